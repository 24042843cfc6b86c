// Finds pages equal to an earlier page of the same checkpoint by their 128-bit XXH3 digest.
//
// Two different pages are taken for equal with probability below n^2 / 2^129 for n pages (1e-25 for
// a guest of 16 TiB). The hash is keyed with the checkpoint's UUID, which a guest cannot know
// before the save, so that it cannot prepare collisions. With a UUID fixed by the caller that
// protection is the caller's.
//
// Bounded memory: 4-way sets, oldest entry of a set replaced; what falls out is stored again, never
// wrong. The content depends on the order of Find calls only, so that one order gives one output.
//
// Thread safety: Digest is const and may run anywhere; FindOrInsert on one thread at a time.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "core/base/result.h"
#include "core/memory/buffer_pool.h"
#include "core/scan/page_digests.h"

namespace chkpt {

class PageDedup {
 public:
  // Room for `page_count` pages, at most kEntriesMax. A new table is touched only as pages are
  // inserted. Error: kNoMemory.
  static Result<std::unique_ptr<PageDedup>> Create(std::shared_ptr<BufferPool> buffers,
                                                   std::uint64_t page_count,
                                                   std::span<const std::uint8_t, 16> uuid);
  PageDedup(const PageDedup&) = delete;
  PageDedup& operator=(const PageDedup&) = delete;

  // Empties a table that another save has used. Once, before the first FindOrInsert; takes up to a
  // millisecond.
  void Clear();

  static constexpr std::size_t kEntriesMax = 512 * 1024;  // 10 MiB

  // Digest of a private copy of a page.
  PageDigest Digest(const std::uint8_t* page) const;

  // Brings the entries FindOrInsert will look at into the cache.
  void Prefetch(const PageDigest& digest) const { __builtin_prefetch(SetOf(digest), 1); }

  // The earlier page with this digest, or kUnknown; then `page` is remembered.
  std::uint64_t FindOrInsert(const PageDigest& digest, std::uint64_t page);

 private:
  // Packed: the table is a tenth of what a save takes.
  struct [[gnu::packed]] Entry {
    std::uint64_t low, high;
    std::uint32_t page_plus_one;  // 0: empty
  };
  static constexpr std::size_t kWays = 4;
  static constexpr std::size_t kSecretBytes = 192;

  Entry* SetOf(const PageDigest& digest) const {
    return entries_ + (digest.low & set_mask_) * kWays;
  }

  PageDedup(PooledBuffer table, std::size_t sets, std::span<const std::uint8_t, 16> uuid);

  const PooledBuffer table_;
  const std::size_t set_mask_;
  Entry* const entries_;
  std::array<std::uint8_t, kSecretBytes> secret_;
};

}  // namespace chkpt

// DeltaCache: pages as they were last sent to a destination, so that one that is sent again can go
// as its difference from what the destination has.
//
// Rounds: a version is a base in later rounds than the one that sent it, and rounds ascend. Whoever
// learns that a stream may not have arrived has its pages forgotten before the next round: a
// difference then never meets another base. (The destination checks that all the same.)
//
// Bounded memory: a fixed number of versions. One that this round or the last one has sent is not
// replaced: pages are sent in ascending order, and a cache that gave way to the newest would have
// none left of those that come first in the next round.
//
// Thread safety: Exchange, Drop and counts from any thread, for one page on one thread at a time;
// Forget while no thread is in Exchange.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "core/base/result.h"
#include "core/base/units.h"
#include "core/bitmap/dirty_bitmap.h"
#include "core/memory/buffer_pool.h"

namespace chkpt {

class DeltaCache {
 public:
  // A difference with more changed words than that is not made: the page itself is about as small,
  // and needs no base.
  static constexpr std::size_t kChangedWordsMax = 128;
  static constexpr std::uint64_t kVersionsMax = std::uint64_t{1} << 31;

  // Room for `version_count` pages, at most kVersionsMax. Memory is touched as versions are kept; 4
  // bytes for each page of the guest around them. Error: kNoMemory.
  static Result<std::shared_ptr<DeltaCache>> Create(std::uint64_t page_count,
                                                    std::uint64_t version_count);
  DeltaCache(const DeltaCache&) = delete;
  DeltaCache& operator=(const DeltaCache&) = delete;

  std::uint64_t page_count() const { return page_count_; }

  enum class Kind : std::uint8_t {
    kWhole,      // as it is
    kDelta,      // the copy has become the difference
    kUnchanged,  // not at all: the destination has it
  };
  struct Sent {
    Kind kind = Kind::kWhole;
    std::uint64_t digest = 0;  // kDelta: XXH3-64 of the page
  };
  // How `page` goes in `round`; `copy` is a private copy of it. What it holds is the page's version
  // from now on.
  Sent Exchange(std::uint64_t round, std::uint64_t page, std::uint8_t* copy);

  // `page` goes in a form that is small by itself.
  void Drop(std::uint64_t page);

  // These pages may be anything at the destination.
  void Forget(const DirtyBitmap& pages);

  struct Counts {
    std::uint64_t deltas = 0;
    std::uint64_t unchanged = 0;
    std::uint64_t versions = 0;  // that are kept now
  };
  Counts counts() const;

 private:
  using Slot = std::uint32_t;  // number of a version and 1; 0: none

  struct Version {
    std::uint64_t page = kUnknown;  // kUnknown: free
    std::uint64_t round = 0;
  };

  DeltaCache(std::uint64_t page_count, std::uint64_t version_count, std::shared_ptr<Buffer> slots,
             std::shared_ptr<Buffer> bytes);

  // REQUIRES: mutex_ is held. 0: every place that was looked at is in use.
  Slot Claim(std::uint64_t round, std::uint64_t page);
  void Free(Slot slot);
  std::uint8_t* BytesOf(Slot slot) const {
    return bytes_->data() + static_cast<std::uint64_t>(slot - 1) * kPageBytes;
  }

  const std::uint64_t page_count_;
  const std::uint64_t version_count_;
  const std::shared_ptr<Buffer> slots_buffer_;
  const std::shared_ptr<Buffer> bytes_;
  Slot* const slot_of_page_;

  mutable std::mutex mutex_;
  std::vector<Version> versions_;  // grows up to version_count_
  std::uint64_t kept_ = 0;
  std::size_t hand_ = 0;  // where the next place is looked for

  std::atomic<std::uint64_t> deltas_{0};
  std::atomic<std::uint64_t> unchanged_{0};
};

}  // namespace chkpt

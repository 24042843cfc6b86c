// PageDigests: the 128-bit XXH3 digest of every page of a memory, as somebody last saw it. Says
// whether a page has changed without keeping the page: 16 bytes each.
//
// Two different contents of a page are taken for equal with probability 2^-128. The hash is keyed
// with random bytes that never leave the process, so that a guest cannot prepare collisions.
//
// Thread safety: Digest from any thread; Note, Copy and IsKnown from any thread for different
// pages.
#pragma once

#include <array>
#include <cstdint>
#include <memory>

#include "core/base/result.h"
#include "core/base/units.h"
#include "core/bitmap/dirty_bitmap.h"

namespace chkpt {

struct PageDigest {
  std::uint64_t low = 0;
  std::uint64_t high = 0;
  friend bool operator==(const PageDigest&, const PageDigest&) = default;
};

class PageDigests {
 public:
  // All pages are unknown. Memory is touched as pages become known. Error: kNoMemory.
  static Result<std::shared_ptr<PageDigests>> Create(std::uint64_t page_count);
  ~PageDigests();
  PageDigests(const PageDigests&) = delete;
  PageDigests& operator=(const PageDigests&) = delete;

  std::uint64_t page_count() const { return page_count_; }

  // Of a private copy of a page. Never the value that stands for unknown.
  PageDigest Digest(const std::uint8_t* page) const;
  const PageDigest& zero() const { return zero_; }
  PageDigest Fill(std::uint64_t word) const;

  // True when `page` was known with this digest; it is known with it from now on. With
  // PageDigest{}: true when it was unknown; it is from now on.
  bool Note(std::uint64_t page, const PageDigest& digest) {
    const bool same = entries_[page] == digest;
    if (!same) entries_[page] = digest;
    return same;
  }
  const PageDigest& Of(std::uint64_t page) const { return entries_[page]; }

  // These pages become unknown: what was noted for them did not come to pass.
  void Forget(const DirtyBitmap& pages);

  // Marks in `pages` what is known differently there, or in one of the two only. An unknown page
  // counts as zero. REQUIRES: made with the same key (Share).
  void Differing(const PageDigests& other, DirtyBitmap* pages) const;
  // An empty one with the same key and page count.
  Result<std::shared_ptr<PageDigests>> Share() const;

 private:
  static constexpr std::size_t kSecretBytes = 192;
  using Secret = std::array<std::uint8_t, kSecretBytes>;

  PageDigests(std::uint64_t page_count, PageDigest* entries, const Secret& secret);
  static Result<std::shared_ptr<PageDigests>> Map(std::uint64_t page_count, const Secret& secret);

  const std::uint64_t page_count_;
  PageDigest* const entries_;
  const Secret secret_;
  PageDigest zero_;
};

}  // namespace chkpt

// GuestPlan: which kind of content each page of one group has. A group is 8192 pages (32 MiB);
// within a full group the shares of a mix are exact to one page (kinds of distinct pages: to one
// block), so that images of a few groups already have them.
//
// Most pages come in extents of whole blocks, as files and slab caches do. Fill pages, half of the
// duplicates and some zero pages lie one by one inside extents, as in the page cache of a real
// guest.
//
// Deterministic by (seed, mix, group). Thread safety: immutable after construction.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/base/units.h"
#include "core/synthetic/guest_like.h"
#include "core/synthetic/page_random.h"

namespace chkpt {

enum class PageKind : std::uint8_t {
  kZero,
  kFill,
  kText,
  kCode,
  kObjects,
  kRandom,
  kNearDuplicate,  // of a page of this group
  kFarDuplicate,   // of any earlier group
};

// Kinds whose pages have content of their own, which a duplicate can copy.
inline bool IsDistinct(PageKind kind) {
  return kind >= PageKind::kText && kind <= PageKind::kRandom;
}

class GuestPlan {
 public:
  static constexpr std::size_t kBlockCount = 512;
  static constexpr std::size_t kPageCount = kBlockCount * kBlockPages;

  // REQUIRES: the shares of `mix` add up to at most 1000.
  GuestPlan(std::uint64_t seed, const GuestLikeMix& mix, std::uint64_t group);

  // Arguments and results are page numbers within the group. REQUIRES: page < kPageCount.
  PageKind kind(std::size_t page) const { return kinds_[page]; }
  // The first page of its extent.
  std::size_t extent(std::size_t page) const { return extents_[page]; }
  // The distinct page that a near duplicate copies; smaller than `page`.
  std::size_t source(std::size_t page) const { return sources_[page]; }
  // The first distinct page at or after `page`, going round; kPageCount when the group has none.
  std::size_t NextDistinct(std::size_t page) const;

 private:
  // Pages that are strewn one by one over the extents.
  struct Strewn {
    std::size_t zero = 0;
    std::size_t fill = 0;
    std::size_t duplicate = 0;
  };

  Strewn LayExtents(const GuestLikeMix& mix, PageRandom* random);
  void Strew(Strewn strewn, PageRandom* random);
  // Makes `page` a duplicate of an earlier distinct page, in its block when `same_block`. False
  // when there is none.
  bool MakeDuplicate(std::size_t page, bool same_block, PageRandom* random);

  std::vector<PageKind> kinds_;
  std::vector<std::uint16_t> extents_;
  std::vector<std::uint16_t> sources_;
};

}  // namespace chkpt

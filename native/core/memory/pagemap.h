// /proc/self/pagemap: which pages of an address range have content, by PAGEMAP_SCAN or by reading
// entries.
//
// Units: addresses in bytes, multiples of the system's page size. Thread safety: any number of
// threads on one descriptor.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "core/memory/presence.h"

namespace chkpt {

// Layout of the kernel's struct page_region.
struct PagemapRange {
  std::uint64_t start = 0;
  std::uint64_t end = 0;
  std::uint64_t categories = 0;
};

struct PagemapWalk {
  std::size_t count = 0;  // ranges found
  std::uint64_t end =
      0;  // everything below was looked at; the end of the range asked for, unless `found` was full
};

// Opens /proc/self/pagemap; -1 if it is not there.
int OpenPagemap();

// The best method not better than `best` that is seen to work on `fd`.
PagemapMethod UsableMethod(int fd, PagemapMethod best);

// Finds ranges of pages in [start, end) that are in memory or swapped out, ascending. Stops when
// `found` is full, or, with `first_page_only`, at the first such page. Nothing when the kernel
// fails. REQUIRES: method is kScan or kEntries; found is not empty.
std::optional<PagemapWalk> WalkPagemap(PagemapMethod method, int fd, std::uint64_t start,
                                       std::uint64_t end, bool first_page_only,
                                       std::span<PagemapRange> found);

}  // namespace chkpt

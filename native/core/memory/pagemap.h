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

// The pagemap of a process; 0 is this one. -1 and errno if it may not be read.
int OpenPagemapOf(int process);

// Reads entries of the pages from address `start` on, as many as fit; zero when the kernel fails.
std::size_t ReadPagemapEntries(int fd, std::uint64_t start, std::span<std::uint64_t> entries);
inline constexpr std::uint64_t kEntryIsPresent = std::uint64_t{1} << 63;
inline constexpr std::uint64_t kEntryIsSwapped = std::uint64_t{1} << 62;
inline constexpr std::uint64_t kEntryIsSoftDirty = std::uint64_t{1} << 55;

// The best method not better than `best` that is seen to work on `fd`.
PagemapMethod UsableMethod(int fd, PagemapMethod best);

// One PAGEMAP_SCAN as the kernel takes it. Bits of struct pm_scan_arg.
struct PagemapQuery {
  std::uint64_t flags = 0;           // kPagemapProtect, kPagemapOnlyAsync
  std::uint64_t required = 0;        // categories that a page must have
  std::uint64_t inverted = 0;        // those of them that it must not have
  std::uint64_t any_of = 0;          // it must have one of these
  std::uint64_t returned = 0;        // told in PagemapRange::categories; other ranges join
  std::uint64_t page_count_max = 0;  // 0: no limit
};
inline constexpr std::uint64_t kPagemapProtect = 1;    // PM_SCAN_WP_MATCHING
inline constexpr std::uint64_t kPagemapOnlyAsync = 2;  // PM_SCAN_CHECK_WPASYNC
inline constexpr std::uint64_t kPageIsWritten = 1 << 1;
inline constexpr std::uint64_t kPageIsPresent = 1 << 3;
inline constexpr std::uint64_t kPageIsSwapped = 1 << 4;
// PAGE_IS_PFNZERO: the shared zero page, small or huge.
inline constexpr std::uint64_t kPageIsZero = 1 << 5;

// Nothing when the kernel fails; errno says why.
std::optional<PagemapWalk> ScanPagemap(int fd, const PagemapQuery& query, std::uint64_t start,
                                       std::uint64_t end, std::span<PagemapRange> found);

// Finds ranges of pages in [start, end) that are in memory or swapped out, ascending. Stops when
// `found` is full, or, with `first_page_only`, at the first such page. Nothing when the kernel
// fails. REQUIRES: method is kScan or kEntries; found is not empty.
std::optional<PagemapWalk> WalkPagemap(PagemapMethod method, int fd, std::uint64_t start,
                                       std::uint64_t end, bool first_page_only,
                                       std::span<PagemapRange> found);

}  // namespace chkpt

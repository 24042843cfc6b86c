// Which pages of a region may hold something else than zeros, found without reading them.
//
// Sources: Documentation/admin-guide/mm/pagemap.rst (PAGEMAP_SCAN, Linux 6.7), lseek(2) SEEK_DATA.
// Pages that are swapped out count as present; pages mapped to the shared zero page do not, where
// PAGEMAP_SCAN tells them (kEntries cannot, and some kernels name only the small one). Pages that
// carry a userfaultfd marker and no memory look swapped out, so they count as present. Parts of a
// file behind its end count as present too: reading them reports that the file was cut.
//
// Thread safety: one finder may be used by several threads at once. Owns its /proc/self/pagemap
// descriptor.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "core/base/result.h"
#include "core/base/units.h"
#include "core/memory/guest_memory.h"

namespace chkpt {

enum class PagemapMethod : std::uint8_t {
  kScan,     // PAGEMAP_SCAN ioctl
  kEntries,  // pread of 8-byte entries of /proc/self/pagemap
  kNone,     // neither: everything is present
};

// A stretch of a file known to hold data. Offsets in the file.
struct StoredExtent {
  std::mutex mutex;
  int fd = -1;
  std::uint64_t start = 0;
  std::uint64_t end = 0;
};

class PresenceFinder {
 public:
  // Takes the best method of this kernel, or a worse one when told (tests of the fallback).
  explicit PresenceFinder(PagemapMethod best = PagemapMethod::kScan);
  ~PresenceFinder();
  PresenceFinder(const PresenceFinder&) = delete;
  PresenceFinder& operator=(const PresenceFinder&) = delete;

  PagemapMethod method() const { return method_; }

  // First page >= `page` and < `limit` that may be present; `limit` when there is none. Page
  // numbers are the memory's. An error of the kernel counts as "present": never lose a page.
  // REQUIRES: region.first_page <= page <= limit <= region.pages().end().
  std::uint64_t NextPresent(const Region& region, std::uint64_t page, std::uint64_t limit) const;

  // The present runs inside `range`, ascending, maximal, clipped to it, into `*runs`, whose old
  // content goes.
  void PresentRuns(const Region& region, PageRun range, std::vector<PageRun>* runs) const;

 private:
  PagemapMethod method_;
  int pagemap_fd_ = -1;
  mutable StoredExtent stored_;
};

}  // namespace chkpt

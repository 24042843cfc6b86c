// ContentMap: which host pages of a range had content when they were looked at last. One bit each.
//
// Thread safety: none; the tracker that owns it holds a lock.
#pragma once

#include <cstdint>
#include <vector>

#include "core/base/units.h"

namespace chkpt {

class ContentMap {
 public:
  explicit ContentMap(std::uint64_t page_count) : page_count_(page_count) {}

  void Clear() { words_.assign(static_cast<std::size_t>((page_count_ + 63) / 64), 0); }
  // REQUIRES: the run lies in the map; Clear was called once.
  void Set(PageRun run);
  // Takes the pages of `run` out and appends the runs that were in.
  void TakeOut(PageRun run, std::vector<PageRun>* taken);
  bool HasAll(PageRun run) const;

 private:
  const std::uint64_t page_count_;
  std::vector<std::uint64_t> words_;
};

}  // namespace chkpt

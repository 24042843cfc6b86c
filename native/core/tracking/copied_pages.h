// Pages whose content somebody has copied since the last look.
//
// A tracker that knows dropped pages by "had content, has none" has to know of these: a page that
// had no content at one harvest, got some, was copied, and was dropped before the next harvest
// looks untouched, and is not what the copy says.
//
// Thread safety: Take by one thread at a time; copying by any.
#pragma once

#include <iterator>
#include <memory>
#include <utility>

#include "core/bitmap/dirty_bitmap.h"
#include "core/memory/guest_memory.h"

namespace chkpt {

class CopiedPages {
 public:
  explicit CopiedPages(std::shared_ptr<GuestMemory> memory)
      : memory_(std::move(memory)), log_(std::make_shared<DirtyBitmap>(memory_->page_count())) {
    memory_->AddCopyLog(log_);
  }
  ~CopiedPages() { memory_->RemoveCopyLog(log_.get()); }
  CopiedPages(const CopiedPages&) = delete;
  CopiedPages& operator=(const CopiedPages&) = delete;

  // Calls `visit(PageRun)` for what was copied since the last call, ascending; a run may cross
  // regions.
  template <typename Visit>
  void Take(Visit visit) {
    DirtyBitmap taken(log_->page_count());
    log_->MoveTo(&taken);
    PageRun runs[256];
    for (std::uint64_t page = 0;;) {
      const std::size_t count = taken.Runs(page, runs);
      for (std::size_t i = 0; i < count; ++i) visit(runs[i]);
      if (count < std::size(runs)) return;
      page = runs[count - 1].end();
    }
  }
  void Clear() {
    Take([](PageRun) {});
  }

 private:
  const std::shared_ptr<GuestMemory> memory_;
  const std::shared_ptr<DirtyBitmap> log_;
};

}  // namespace chkpt

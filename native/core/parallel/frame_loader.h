// FrameLoader: what one worker of a load does with one frame: checks its payload, and puts the
// pages that are wanted where they belong. Which ones those are depends on the place of the stream
// in a chain (see ChainLoad).
//
// Thread safety: one loader per thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "core/base/result.h"
#include "core/parallel/block_loader.h"
#include "core/parallel/chain_load.h"
#include "core/parallel/frame_scanner.h"
#include "core/parallel/page_resolver.h"

namespace chkpt {

// All outlive the loader.
struct LoadTarget {
  bool has_parent = false;
  ChainLoad* chain = nullptr;                // null: every page is this stream's
  const PageResolver* resolver = nullptr;    // not null: a second read, for the pages put off
  PageDigests* digests = nullptr;            // not null: where digests go instead of pages
  PagePlacer* placer = nullptr;              // not null: who puts pages in their place
  const std::vector<bool>* fresh = nullptr;  // by region
};

class FrameLoader {
 public:
  // Error: kNoMemory.
  static Result<std::unique_ptr<FrameLoader>> Create(GuestMemory& memory, const LoadTarget& target,
                                                     std::shared_ptr<BufferPool> buffers);

  // Returns when everything up to and including the page is in place; false when cancelled.
  using WaitForPage = std::function<bool(std::uint64_t page)>;

  // A run or a block whose header was checked. Errors: kDigest, kFormat, kDecode, kIo.
  Status Run(const PageFrame& frame, const WaitForPage& wait, PageTotals* totals);

 private:
  FrameLoader(GuestMemory& memory, const LoadTarget& target, std::unique_ptr<BlockLoader> loader);
  Status RunZeroRun(const Region& region, bool fresh, PageRun pages);
  Status RunWaiting(const PageFrame& frame);
  BlockLoader::PageBits NoteBlock(const PageBlockView& view, PageRun pages);
  Status RunSamePages(const PageBlockView& view, PageRun pages, BlockLoader::PageBits skip,
                      const WaitForPage& wait);
  Status RunSamePage(std::uint64_t source, std::uint64_t page);

  GuestMemory& memory_;
  const LoadTarget target_;
  const std::unique_ptr<BlockLoader> loader_;
};

}  // namespace chkpt

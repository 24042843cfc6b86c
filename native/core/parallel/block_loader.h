// Puts the content of verified frames into a guest memory: the mirror of ChunkEncoder. One per
// worker thread.
//
// Destinations: mapped memory (decoded straight into it where a block has no holes), files (decoded
// to a private buffer, then pwrite), or nothing (regions without memory: verify only).
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "core/base/result.h"
#include "core/codec/page_block.h"
#include "core/format/frame.h"
#include "core/memory/buffer_pool.h"
#include "core/memory/guest_memory.h"
#include "core/parallel/page_totals.h"
#include "core/scan/page_kernels.h"

namespace chkpt {

class BlockLoader {
 public:
  // Error: kNoMemory.
  static Result<std::unique_ptr<BlockLoader>> Create(GuestMemory& memory,
                                                     std::shared_ptr<BufferPool> buffers);

  // A PAGE_BLOCK whose payload digest was checked. Same pages are not filled in: the caller does,
  // with CopyPage, when the page they name is complete. `view` stays valid as long as the payload.
  // `fresh`: the region read as zeros when the load began, so zero pages need not be written.
  Status Load(const PageBlockView& view, const Region& region, bool fresh, PageRun pages,
              PageTotals* totals);

  // A ZERO_RUN.
  Status Zero(const Region& region, bool fresh, PageRun pages, PageTotals* totals);

  // Copies the complete page `source` to `target`.
  Status CopyPage(std::uint64_t source, std::uint64_t target);

 private:
  BlockLoader(GuestMemory& memory, PooledBuffer scratch);
  Status LoadMapped(const PageBlockView& view, const Region& region, bool fresh, PageRun pages,
                    const std::uint8_t* stored);
  Status LoadFile(const PageBlockView& view, bool fresh, PageRun pages, const std::uint8_t* stored);

  GuestMemory& memory_;
  const PooledBuffer scratch_;
  std::uint8_t* const decoded_;    // stored pages of one block
  std::uint8_t* const assembled_;  // one block in page order, for files
};

}  // namespace chkpt

// Puts the content of verified frames into a guest memory: the mirror of ChunkEncoder. One per
// worker thread.
//
// Destinations: mapped memory (decoded straight into it where a block has no holes), files (decoded
// to a private buffer, then pwrite), a placer (decoded to a private buffer), digests of pages, or
// nothing (regions without memory: verify only).
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "core/base/result.h"
#include "core/codec/page_block.h"
#include "core/format/frame.h"
#include "core/memory/buffer_pool.h"
#include "core/memory/guest_memory.h"
#include "core/parallel/page_placer.h"
#include "core/parallel/page_totals.h"
#include "core/scan/page_digests.h"
#include "core/scan/page_kernels.h"

namespace chkpt {

class BlockLoader {
 public:
  // Where pages go instead of memory, or null. `digests`: for a memory that has none. `placer`: for
  // one whose guest runs; then no page may equal another one.
  struct Instead {
    PageDigests* digests = nullptr;
    PagePlacer* placer = nullptr;
  };
  // Error: kNoMemory.
  static Result<std::unique_ptr<BlockLoader>> Create(GuestMemory& memory, Instead instead,
                                                     std::shared_ptr<BufferPool> buffers);

  // Bit i is page i of a block: left alone.
  using PageBits = std::uint32_t;

  // A PAGE_BLOCK or DELTA_BLOCK whose payload digest was checked. Same pages are not filled in: the
  // caller does, with CopyPage, when the page they name is complete. `view` stays valid as long as
  // the payload. `fresh`: the region read as zeros when the load began, so zero pages need not be
  // written. Errors: kDecode; kDigest (a difference from another page than memory holds: that page
  // stays as it is); kIo, kMemoryShort.
  Status Load(const PageBlockView& view, const Region& region, bool fresh, PageRun pages,
              PageBits skip, PageTotals* totals);

  // Pages of a ZERO_RUN.
  Status Zero(const Region& region, bool fresh, PageRun pages);

  // Copies the complete page `source` to `target`.
  Status CopyPage(std::uint64_t source, std::uint64_t target);

  // The content of zero, fill and stored pages of a block, for Put. Same and parent pages have
  // none. Error: kDecode.
  Status Expand(const PageBlockView& view, PageRun pages);
  // Puts page `index` of the expanded block to `target`.
  Status Put(std::size_t index, std::uint64_t target);

 private:
  BlockLoader(GuestMemory& memory, Instead instead, PooledBuffer scratch);
  Status LoadMapped(const PageBlockView& view, const Region& region, bool fresh, PageRun pages,
                    PageBits skip, const std::uint8_t* stored);
  Status LoadFile(const PageBlockView& view, bool fresh, PageRun pages, PageBits skip,
                  const std::uint8_t* stored);
  Status LoadPlaced(const PageBlockView& view, PageRun pages, PageBits skip,
                    const std::uint8_t* stored);
  void LoadDigests(const PageBlockView& view, PageRun pages, PageBits skip,
                   const std::uint8_t* stored);
  bool HasDestination(const Region& region) const;

  GuestMemory& memory_;
  PageDigests* const digests_;
  PagePlacer* const placer_;
  const PooledBuffer scratch_;
  std::uint8_t* const decoded_;    // stored pages of one block
  std::uint8_t* const assembled_;  // one block in page order
};

}  // namespace chkpt

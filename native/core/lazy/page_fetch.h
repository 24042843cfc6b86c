// PageFetch: makes chosen pages of a memory what they are in a checkpoint, and writes none that is
// so already. What a rollback is made of.
//
//   pages ─► (block, mask)… ─► threads: read, verify, decode the pages ─► compare ─► write
//
// The guest stands still. After an error some pages are of the checkpoint and some are not: the
// guest must not run.
//
// Ownership: holds memory and layers. Thread safety: one Run at a time.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "core/base/result.h"
#include "core/bitmap/dirty_bitmap.h"
#include "core/lazy/block_layer.h"
#include "core/memory/guest_memory.h"

namespace chkpt {

struct FetchCounts {
  std::uint64_t pages = 0;    // looked at
  std::uint64_t written = 0;  // of them: they were not what they had to be
  std::uint64_t blocks = 0;   // in which pages were looked at
};

class PageFetch {
 public:
  // `layers`: the checkpoint, then its parents. REQUIRES: not empty; all opened with the memory's
  // regions.
  PageFetch(std::shared_ptr<GuestMemory> memory,
            std::vector<std::shared_ptr<const BlockLayer>> layers);

  // Marks every page that holds something in memory or in the checkpoint: nobody knows which
  // differ.
  void MarkContent(DirtyBitmap* pages) const;

  // `cancelled` is asked now and then by any thread; `progress` counts pages that are done. Errors:
  // kDigest, kFormat, kDecode, kTruncated, kIo, kPermission, kAborted. REQUIRES: threads > 0;
  // pages.page_count() is that of the memory.
  Result<FetchCounts> Run(const DirtyBitmap& pages, unsigned threads,
                          const std::function<bool()>& cancelled,
                          std::atomic<std::uint64_t>* progress = nullptr);

 private:
  struct Piece {
    std::uint64_t block;
    std::uint32_t wanted;  // one bit for each page of the block
  };
  class Worker;
  std::vector<Piece> PiecesOf(const DirtyBitmap& pages) const;

  const std::shared_ptr<GuestMemory> memory_;
  const std::vector<std::shared_ptr<const BlockLayer>> shared_;
  const BlockLayout layout_;
  std::vector<Layer> layers_;
};

}  // namespace chkpt

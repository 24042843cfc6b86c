// BlockLayer: a checkpoint that is open for random access: its bytes, and where its blocks stand.
//
// Ownership: owns the source; shared by everything that fetches from it. Thread safety: immutable
// after Open.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "core/base/result.h"
#include "core/bitmap/dirty_bitmap.h"
#include "core/lazy/block_decoder.h"
#include "core/lazy/block_source.h"

namespace chkpt {

// One checkpoint of a chain, before anything of it was read.
struct LazyLayer {
  std::shared_ptr<BlockSource> source;
  std::array<std::uint8_t, 16> uuid{};
  std::uint64_t epoch = 0;
  bool has_parent = false;
  std::vector<IndexGroup> groups;    // from the index document
  std::uint64_t first_offset = 128;  // of frame 0
  std::uint64_t end_offset = 0;      // of END
};

class BlockLayer {
 public:
  // Reads and verifies the block indexes. `memory` has the checkpoint's regions and may be any
  // memory that has. Errors: those of BlockMap::Read.
  static Result<std::shared_ptr<const BlockLayer>> Open(LazyLayer layer, const GuestMemory& memory);

  const Layer& layer() const { return layer_; }
  std::uint64_t page_count() const { return page_count_; }

  // Marks the pages of all blocks in which the checkpoint holds something itself: of one with a
  // parent, a superset of the pages that differ from the parent's.
  // REQUIRES: pages->page_count() == page_count().
  void MarkHeld(DirtyBitmap* pages) const;

 private:
  BlockLayer(LazyLayer layer, BlockLayout layout, std::uint64_t page_count,
             std::shared_ptr<const BlockMap> map);

  const std::shared_ptr<BlockSource> source_;
  const BlockLayout layout_;
  const std::uint64_t page_count_;
  const Layer layer_;
};

}  // namespace chkpt

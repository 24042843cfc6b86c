// BlockMap: where the PAGE_BLOCK of each block of guest memory stands in one checkpoint, from its
// BLOCK_INDEX frames (docs/format.md section 6).
//
// Units: blocks are counted through all regions in table order; a region's blocks start at its
// first page.
//
// Memory: 8 bytes for each block of the groups that have an index; nothing for the others.
//
// Thread safety: immutable after Read.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "core/base/result.h"
#include "core/format/block_index.h"
#include "core/lazy/frame_reader.h"
#include "core/memory/guest_memory.h"

namespace chkpt {

// Page numbers ⇄ block numbers of one region table.
class BlockLayout {
 public:
  explicit BlockLayout(std::span<const Region> regions);

  std::uint64_t block_count() const { return first_blocks_.back(); }
  std::size_t RegionOfBlock(std::uint64_t block) const;
  // REQUIRES: region <= number of regions; for that one it is block_count().
  std::uint64_t FirstBlockOf(std::size_t region) const { return first_blocks_[region]; }
  // The pages of a block: 16, or fewer at the end of a region.
  PageRun PagesOf(std::uint64_t block) const;
  // REQUIRES: a page of the memory.
  std::uint64_t BlockOf(std::uint64_t page) const;

 private:
  std::vector<PageRun> regions_;
  std::vector<std::uint64_t> first_blocks_;  // of each region, and the end of the last one
};

class BlockMap {
 public:
  // Reads and verifies the index frames at `groups`, which come from an index document: untrusted.
  // Offsets behind `end_offset` (that of END) are refused. Errors: kDigest, kFormat, those of the
  // source.
  static Result<BlockMap> Read(const FrameReader& reader, const BlockLayout& layout,
                               std::span<const Region> regions, std::span<const IndexGroup> groups,
                               std::uint64_t end_offset);

  // Offset of the PAGE_BLOCK; nothing: its pages are in a run (zeros, or in the parent).
  std::optional<std::uint64_t> Find(std::uint64_t block) const;

 private:
  struct Group {
    std::uint64_t first_block = 0;
    std::vector<std::uint64_t> offsets;  // kUnknown: in a run
  };
  std::vector<Group> groups_;  // ascending
};

}  // namespace chkpt

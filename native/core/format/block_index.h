// Where the PAGE_BLOCK frames of one group lie (docs/format.md section 6): built by a save, checked
// by a load.
//
// Memory: 64 KiB, the offsets of one group, whatever the size of the guest. Thread safety: none.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/memory/guest_memory.h"

namespace chkpt {

// A BLOCK_INDEX frame in a stream.
struct IndexGroup {
  std::uint64_t first_page = 0;
  std::uint64_t page_count = 0;
  std::uint64_t offset = 0;  // of the frame, bytes
};

class BlockIndex {
 public:
  // The pages of the group that `page` of `region` is in.
  static PageRun GroupOf(const Region& region, std::uint64_t page);

  // Starts an empty group.
  void Begin(PageRun group);
  // The PAGE_BLOCK of the block at `page` stands at `offset`. REQUIRES: page in group(), ascending.
  void Note(std::uint64_t page, std::uint64_t offset);

  PageRun group() const { return group_; }
  std::size_t payload_bytes() const { return 8 + 4 * offsets_.size(); }
  void Encode(std::uint8_t* payload) const;
  // True when `payload` says what was noted.
  bool Describes(std::span<const std::uint8_t> payload) const;

 private:
  PageRun group_;
  std::vector<std::uint64_t> offsets_;  // kUnknown: in a ZERO_RUN
};

}  // namespace chkpt

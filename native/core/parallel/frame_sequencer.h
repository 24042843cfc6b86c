// Puts encoded chunks into stream order: merges runs across chunks, writes frame headers with
// sequence, offset and digest, and emits the BLOCK_INDEX of each finished group. All of a save that
// cannot be parallel; it costs about 20 ns per frame.
//
// Thread safety: none; the pipeline calls it for one chunk at a time, in ticket order.
#pragma once

#include <cstdint>
#include <vector>

#include "core/memory/guest_memory.h"
#include "core/parallel/encoded_chunk.h"

namespace chkpt {

class FrameSequencer {
 public:
  FrameSequencer(const GuestMemory& memory, const StreamPosition& position);

  // Completes the frames of `chunk` and sets the view of its slab; the view is empty when nothing
  // is to be written yet.
  void Append(EncodedChunk& chunk);

  const PageTotals& totals() const { return totals_; }

 private:
  void AddRun(PageRun run);
  std::size_t WriteIndex(Slab& slab, std::uint8_t* target);
  std::size_t WritePrefix(EncodedChunk& chunk, bool flush_runs, bool flush_index);
  void WriteFrames(EncodedChunk& chunk);

  const GuestMemory& memory_;
  StreamPosition position_;
  PageTotals totals_;
  std::vector<PageRun> pending_runs_;

  bool index_open_ = false;  // index_ has blocks that no BLOCK_INDEX told of yet
  BlockIndex index_;
};

}  // namespace chkpt

// What a worker made of one chunk, before it is known where in the stream it goes.
//
// A slab, in bytes:   | prefix: frames that belong before this chunk | frames of the chunk …
// The sequencer fills the prefix from its end backwards, so that prefix and chunk are contiguous.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "core/base/units.h"
#include "core/codec/page_block.h"
#include "core/format/block_index.h"
#include "core/format/frame.h"
#include "core/memory/buffer_pool.h"
#include "core/parallel/chunk_cursor.h"
#include "core/parallel/page_totals.h"

namespace chkpt {

// One BLOCK_INDEX frame (32 KiB) and a run for each region, all that can be pending before one
// chunk.
inline constexpr std::size_t kSlabPrefixBytes = 64u << 10;
static_assert(kSlabPrefixBytes >= 2 * kFrameHeaderBytes + 8 + 4 * kGroupBlocks +
                                      kFrameHeaderBytes * (kRegionCountMax + 1));
// Frame, head, LZ4 bound of 64 KiB, words.
inline constexpr std::size_t kBlockFrameBytesMax = kFrameHeaderBytes + kPageBlockHeadBytes +
                                                   kBlockBytes + kBlockBytes / 255 + 16 + 8 +
                                                   8 * kBlockPages;
inline constexpr std::size_t kSlabBytes =
    kSlabPrefixBytes + kChunkBlocks * (kBlockFrameBytesMax + kFrameHeaderBytes);

// A slab on its way through the pipeline. Frames are contiguous in [begin, begin + bytes).
struct Slab {
  std::size_t index = 0;
  std::shared_ptr<Buffer> buffer;  // null until the slab is used for the first time
  std::uint8_t* data = nullptr;
  bool taken = false;  // with the consumer, who may have I/O under way
  std::size_t begin = 0;
  std::size_t bytes = 0;
  std::vector<std::uint64_t> digests;  // header digests, one per frame
  std::vector<IndexGroup> groups;
  std::uint64_t pages = 0;  // of the whole memory, done when this slab is
};

// A frame in a slab that still lacks its header.
struct DraftFrame {
  std::size_t slab_offset = 0;
  FrameHeader header;
};

struct EncodedChunk {
  ChunkTicket ticket;
  Slab* slab = nullptr;
  std::size_t body_end = kSlabPrefixBytes;  // in the slab
  std::vector<DraftFrame> frames;           // blocks and the runs between them
  std::uint64_t leading_run_pages = 0;      // whole blocks before the first PAGE_BLOCK
  std::uint64_t trailing_run_pages = 0;     // and after the last one
  PageTotals totals;
};

}  // namespace chkpt

// What one worker does with one chunk: copy every present page out once, classify the copy, take
// its difference from what was sent before, take out pages equal to an earlier one, compress what
// is left, and draft the frames in a slab.
//
// Live guest memory is read in Gather only, each page once. Everything after it works on the
// private copy.
//
// Thread safety: one encoder per thread. Deduplicate must be called in ticket order, one encoder at
// a time.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "core/base/result.h"
#include "core/codec/page_block.h"
#include "core/memory/buffer_pool.h"
#include "core/memory/guest_memory.h"
#include "core/memory/presence.h"
#include "core/parallel/encoded_chunk.h"
#include "core/parallel/page_dedup.h"
#include "core/scan/page_kernels.h"

namespace chkpt {

class DeltaCache;
class WriteGuard;

// What tells the pages to store from those that are left out: by default those that are present
// from the others, which are zeros.
struct ChangeFilter {
  // The checkpoint has a parent: pages that are left out have its content.
  bool has_parent = false;
  // With a parent: the pages that may differ from it, one bit each; empty: any page may.
  std::span<const std::uint64_t> changed;
  // Pages that are stored as zeros and not read, whatever they hold, one bit each; empty: none.
  std::span<const std::uint64_t> scrubbed;
  // What pages were last known to be, with a parent its content, or null. Kept up to date.
  PageDigests* digests = nullptr;
  // With a parent: what was sent of pages in earlier rounds, or null. Kept up to date.
  DeltaCache* deltas = nullptr;
  std::uint64_t round = 0;  // of this save
  // Frozen: keeps the memory that is encoded as it was, while a guest writes. Or null: nobody
  // writes, or it does not matter.
  WriteGuard* guard = nullptr;
};

struct EncodeOptions {
  BlockCodec codec = BlockCodec::kLz4;
  int acceleration = 1;
  bool dedup = true;
};

class ChunkEncoder {
 public:
  // Error: kNoMemory.
  static Result<std::unique_ptr<ChunkEncoder>> Create(const GuestMemory& memory,
                                                      const PresenceFinder& finder,
                                                      const EncodeOptions& options,
                                                      const ChangeFilter& filter,
                                                      std::shared_ptr<BufferPool> buffers);

  // Copies and classifies. Errors: kIo, kMemoryShort (file regions), kSnapshotLost (with a guard).
  // Returns early when cancelled.
  Status Gather(EncodedChunk& chunk, const PageDedup* dedup, const std::atomic<bool>& cancelled);
  // REQUIRES: Gather of this chunk just returned; ticket order.
  void Deduplicate(PageDedup& dedup);
  // Compresses and drafts the frames.
  void Emit(EncodedChunk& chunk, const std::atomic<bool>& cancelled);

 private:
  struct Block {
    PageRun pages;
    std::uint64_t classes = 0;
    std::size_t stored_pages = 0;  // deltas among them
    bool has_deltas = false;
    std::uint8_t* data = nullptr;                    // stored pages, contiguous
    std::array<std::uint64_t, kBlockPages> words{};  // by page of the block
    std::array<PageDigest, kBlockPages> digests{};   // of stored pages, by page of the block
  };

  ChunkEncoder(const GuestMemory& memory, const PresenceFinder& finder,
               const EncodeOptions& options, const ChangeFilter& filter, PooledBuffer staging);

  void FindPages(const EncodedChunk& chunk);
  void FindChanged();
  void Scrub(PageRun pages);
  void AddAbsent(PageRun run);
  Status GatherBlock(const Region& region, Block& block);
  Status GatherRun(const Region& region, PageRun run, Block& block);
  PageClass CopyPage(const std::uint8_t* source, std::uint64_t page, std::uint8_t* target,
                     std::uint64_t* fill) const;
  void PresentRuns(const Region& region, PageRun pages);
  void AddPage(Block& block, std::size_t page, PageClass page_class, std::uint64_t fill,
               const PageDedup* dedup);
  bool IsKnown(const Block& block, std::size_t page, PageClass page_class, std::uint64_t fill);
  BlockPageClass TakeDelta(Block& block, std::size_t page, PageClass page_class);
  // Classes of a block nothing of which is stored.
  std::uint64_t LeftOut(std::size_t page_count) const;
  void PrefetchEntries(const PageDedup& dedup, std::size_t block) const;
  void Compact(Block& block) const;
  std::uint8_t* NextData(const EncodedChunk& chunk) const;
  void EmitBlock(EncodedChunk& chunk, const Block& block);
  void EmitPageBlock(EncodedChunk& chunk, const Block& block);
  void EmitRun(EncodedChunk& chunk);
  void CountBlock(EncodedChunk& chunk, const Block& block) const;

  const GuestMemory& memory_;
  const PresenceFinder& finder_;
  const EncodeOptions options_;
  const ChangeFilter filter_;
  const PageKernels& kernels_;
  const PageDedup* dedup_ = nullptr;
  const PooledBuffer staging_;
  std::vector<PageRun> runs_;     // to copy from the chunk
  std::vector<PageRun> changed_;  // that may differ from the parent, of the chunk
  std::size_t next_run_ = 0;      // the first that may reach into the next block
  bool in_place_ = false;         // blocks were emitted as they were gathered
  std::array<Block, kChunkBlocks> blocks_;
  std::size_t block_count_ = 0;
  std::uint64_t run_pages_ = 0;  // whole blocks left out since the last PAGE_BLOCK of the chunk
};

}  // namespace chkpt

#include "core/parallel/chunk_encoder.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "core/bitmap/dirty_bitmap.h"
#include "core/codec/lz4_encoder.h"
#include "core/parallel/delta_cache.h"
#include "core/tracking/write_guard.h"

namespace chkpt {

Result<std::unique_ptr<ChunkEncoder>> ChunkEncoder::Create(const GuestMemory& memory,
                                                           const PresenceFinder& finder,
                                                           const EncodeOptions& options,
                                                           const ChangeFilter& filter,
                                                           std::shared_ptr<BufferPool> buffers) {
  auto staging =
      PooledBuffer::Take(std::move(buffers), kChunkBytes, memory.page_count() >= kHugeBufferPages);
  if (!staging.ok()) return staging.error();
  return std::unique_ptr<ChunkEncoder>(
      new ChunkEncoder(memory, finder, options, filter, std::move(staging.value())));
}

ChunkEncoder::ChunkEncoder(const GuestMemory& memory, const PresenceFinder& finder,
                           const EncodeOptions& options, const ChangeFilter& filter,
                           PooledBuffer staging)
    : memory_(memory),
      finder_(finder),
      options_(options),
      filter_(filter),
      kernels_(BestPageKernels()),
      staging_(std::move(staging)) {}

Status ChunkEncoder::Gather(EncodedChunk& chunk, const PageDedup* dedup,
                            const std::atomic<bool>& cancelled) {
  const PageRun pages = chunk.ticket.pages;
  const Region& region = *chunk.ticket.region;
  chunk.body_end = kSlabPrefixBytes;
  chunk.frames.clear();
  chunk.totals = {};
  chunk.leading_run_pages = 0;
  chunk.trailing_run_pages = 0;
  run_pages_ = 0;
  dedup_ = dedup;
  block_count_ = (pages.count + kBlockPages - 1) / kBlockPages;
  for (std::size_t i = 0; i < block_count_; ++i) {
    Block& block = blocks_[i];
    block.pages = {pages.first + i * kBlockPages,
                   std::min<std::uint64_t>(kBlockPages, pages.count - i * kBlockPages)};
    block.classes = LeftOut(block.pages.count);
    block.stored_pages = 0;
    block.has_deltas = false;
    block.data = staging_.data() + i * kBlockBytes;
  }
  FindPages(chunk);
  next_run_ = 0;
  // Pages that are neither hashed nor compressed as they are go straight to their place in the
  // slab.
  in_place_ = options_.codec == BlockCodec::kRaw && dedup == nullptr && region.host != nullptr;
  for (std::size_t i = 0; i < block_count_; ++i) {
    if (cancelled.load(std::memory_order_relaxed)) return Ok();
    if (in_place_) blocks_[i].data = NextData(chunk);
    Status status = GatherBlock(region, blocks_[i]);
    if (!status.ok()) return status;
    if (in_place_) EmitBlock(chunk, blocks_[i]);
  }
  return filter_.guard == nullptr ? Ok() : filter_.guard->Release(pages);
}

void ChunkEncoder::PresentRuns(const Region& region, PageRun pages) {
  if (filter_.guard == nullptr) return finder_.PresentRuns(region, pages, &runs_);
  runs_.clear();
  const std::span<const std::uint64_t> image = filter_.guard->image();
  for (std::uint64_t page = pages.first;;) {
    const std::uint64_t first = FirstMarked(image, page, pages.end());
    if (first == pages.end()) return;
    page = FirstClear(image, first, pages.end());
    runs_.push_back({first, page - first});
  }
}

// The pages to copy.
void ChunkEncoder::FindPages(const EncodedChunk& chunk) {
  const PageRun pages = chunk.ticket.pages;
  changed_.clear();
  if (!filter_.has_parent || filter_.changed.empty()) {
    changed_.push_back(pages);
  } else {
    for (std::uint64_t page = pages.first;;) {
      const std::uint64_t first = FirstMarked(filter_.changed, page, pages.end());
      if (first == pages.end()) break;
      page = FirstClear(filter_.changed, first, pages.end());
      changed_.push_back({first, page - first});
    }
  }
  runs_.clear();
  if (!changed_.empty()) {
    // Nobody wants to know of the others, and looking at 512 of them takes longer than copying two.
    const std::uint64_t first = changed_.front().first;
    PresentRuns(*chunk.ticket.region, {first, changed_.back().end() - first});
    if (filter_.has_parent) FindChanged();
  }
  if (!filter_.scrubbed.empty()) Scrub(pages);
}

// What may have changed and is not present reads as zeros.
void ChunkEncoder::FindChanged() {
  const std::vector<PageRun> present = std::exchange(runs_, {});
  std::size_t next = 0;
  const auto visit = [&](PageRun changed) {
    std::uint64_t page = changed.first;
    for (; next < present.size() && present[next].first < changed.end(); ++next) {
      const std::uint64_t first = std::max(present[next].first, page);
      const std::uint64_t end = std::min(present[next].end(), changed.end());
      if (end <= first) continue;
      AddAbsent({page, first - page});
      runs_.push_back({first, end - first});
      page = end;
      if (present[next].end() > changed.end()) break;  // the next changed run may need it too
    }
    AddAbsent({page, changed.end() - page});
  };
  for (const PageRun& run : changed_) visit(run);
}

// Zeros of this checkpoint, also where the parent has zeros: a secret is never left to a parent.
void ChunkEncoder::Scrub(PageRun pages) {
  const std::span<const std::uint64_t> scrubbed = filter_.scrubbed;
  const std::vector<PageRun> found = std::exchange(runs_, {});
  for (const PageRun& run : found) {
    for (std::uint64_t page = run.first;;) {
      const std::uint64_t first = FirstClear(scrubbed, page, run.end());
      if (first == run.end()) break;
      page = FirstMarked(scrubbed, first, run.end());
      runs_.push_back({first, page - first});
    }
  }
  for (std::uint64_t page = FirstMarked(scrubbed, pages.first, pages.end()); page != pages.end();
       page = FirstMarked(scrubbed, page + 1, pages.end())) {
    Block& block = blocks_[(page - pages.first) / kBlockPages];
    SetClass(&block.classes, page - block.pages.first, BlockPageClass::kZero);
    if (filter_.digests != nullptr) filter_.digests->Note(page, filter_.digests->zero());
  }
}

void ChunkEncoder::AddAbsent(PageRun run) {
  const std::uint64_t chunk_first = blocks_[0].pages.first;
  for (std::uint64_t page = run.first; page < run.end(); ++page) {
    Block& block = blocks_[(page - chunk_first) / kBlockPages];
    AddPage(block, page - block.pages.first, PageClass::kZero, 0, nullptr);
  }
}

// Cuts the runs to copy at block borders: a block is what is compressed together.
Status ChunkEncoder::GatherBlock(const Region& region, Block& block) {
  for (; next_run_ < runs_.size(); ++next_run_) {
    const PageRun& run = runs_[next_run_];
    const std::uint64_t first = std::max(run.first, block.pages.first);
    const std::uint64_t end = std::min(run.end(), block.pages.end());
    if (first < end) {
      Status status = GatherRun(region, {first, end - first}, block);
      if (!status.ok()) return status;
    }
    if (run.end() > block.pages.end()) break;
  }
  return Ok();
}

PageClass ChunkEncoder::CopyPage(const std::uint8_t* source, std::uint64_t page,
                                 std::uint8_t* target, std::uint64_t* fill) const {
  const PageClass page_class = kernels_.copy_classify(source, target, fill);
  if (filter_.guard == nullptr) return page_class;
  // Asked for after the page was read: what it overtook is replaced.
  const std::uint8_t* const saved = filter_.guard->Saved(page);
  return saved == nullptr ? page_class : kernels_.copy_classify(saved, target, fill);
}

Status ChunkEncoder::GatherRun(const Region& region, PageRun run, Block& block) {
  std::uint64_t fill = 0;
  if (region.host != nullptr) {
    const std::uint8_t* source = region.host + (run.first - region.first_page) * kPageBytes;
    bool has_content = false;
    for (std::uint64_t i = 0; i < run.count; ++i) {
      std::uint8_t* target = block.data + block.stored_pages * kPageBytes;
      const PageClass page_class = CopyPage(source + i * kPageBytes, run.first + i, target, &fill);
      has_content = has_content || page_class != PageClass::kZero;
      AddPage(block, run.first + i - block.pages.first, page_class, fill, dedup_);
    }
    if (has_content) memory_.NoteCopied(run);
    return Ok();
  }
  // A file: the read is the copy. Pages that turn out not to be stored close the gap behind them.
  std::uint8_t* source = block.data + block.stored_pages * kPageBytes;
  const Status status = memory_.CopyOut(run, source);
  if (!status.ok()) return status;
  for (std::uint64_t i = 0; i < run.count; ++i) {
    std::uint8_t* target = block.data + block.stored_pages * kPageBytes;
    const PageClass page_class = kernels_.classify(source + i * kPageBytes, &fill);
    if (page_class == PageClass::kStored && target != source + i * kPageBytes) {
      std::memmove(target, source + i * kPageBytes, kPageBytes);
    }
    AddPage(block, run.first + i - block.pages.first, page_class, fill, dedup_);
  }
  return Ok();
}

// REQUIRES: the copy of a stored page lies in the block's next slot.
void ChunkEncoder::AddPage(Block& block, std::size_t page, PageClass page_class, std::uint64_t fill,
                           const PageDedup* dedup) {
  if (filter_.digests != nullptr && IsKnown(block, page, page_class, fill)) return;
  BlockPageClass sent_as = static_cast<BlockPageClass>(page_class);
  if (filter_.deltas != nullptr) sent_as = TakeDelta(block, page, page_class);
  SetClass(&block.classes, page, sent_as);
  if (page_class == PageClass::kFill) block.words[page] = fill;
  if (!HasBytes(sent_as)) return;
  if (dedup != nullptr && sent_as == BlockPageClass::kStored) {
    block.digests[page] = dedup->Digest(block.data + block.stored_pages * kPageBytes);
  }
  ++block.stored_pages;
}

// True for a page that has its parent's content. Its place in the block's data is free again.
bool ChunkEncoder::IsKnown(const Block& block, std::size_t page, PageClass page_class,
                           std::uint64_t fill) {
  PageDigest digest = filter_.digests->zero();
  if (page_class == PageClass::kFill) digest = filter_.digests->Fill(fill);
  if (page_class == PageClass::kStored) {
    digest = filter_.digests->Digest(block.data + block.stored_pages * kPageBytes);
  }
  return filter_.digests->Note(block.pages.first + page, digest) && filter_.has_parent;
}

// The class of a page that may go as a difference. Its place in the block's data holds that then.
BlockPageClass ChunkEncoder::TakeDelta(Block& block, std::size_t page, PageClass page_class) {
  if (page_class != PageClass::kStored) {
    filter_.deltas->Drop(block.pages.first + page);
    return static_cast<BlockPageClass>(page_class);
  }
  const DeltaCache::Sent sent = filter_.deltas->Exchange(
      filter_.round, block.pages.first + page, block.data + block.stored_pages * kPageBytes);
  switch (sent.kind) {
    case DeltaCache::Kind::kWhole: return BlockPageClass::kStored;
    case DeltaCache::Kind::kUnchanged: return BlockPageClass::kParent;
    case DeltaCache::Kind::kDelta: break;
  }
  block.words[page] = sent.digest;
  block.has_deltas = true;
  return BlockPageClass::kDelta;
}

std::uint64_t ChunkEncoder::LeftOut(std::size_t page_count) const {
  return filter_.has_parent ? UniformClasses(BlockPageClass::kParent, page_count) : 0;
}

// Brings the entries of the next block into the cache while those of this one are looked up.
void ChunkEncoder::PrefetchEntries(const PageDedup& dedup, std::size_t block) const {
  if (block >= block_count_ || blocks_[block].stored_pages == 0) return;
  for (std::size_t page = 0; page < blocks_[block].pages.count; ++page) {
    if (ClassOf(blocks_[block].classes, page) == BlockPageClass::kStored) {
      dedup.Prefetch(blocks_[block].digests[page]);
    }
  }
}

void ChunkEncoder::Deduplicate(PageDedup& dedup) {
  PrefetchEntries(dedup, 0);
  for (std::size_t i = 0; i < block_count_; ++i) {
    PrefetchEntries(dedup, i + 1);
    Block& block = blocks_[i];
    if (block.stored_pages == 0) continue;
    for (std::size_t page = 0; page < block.pages.count; ++page) {
      if (ClassOf(block.classes, page) != BlockPageClass::kStored) continue;
      const std::uint64_t same = dedup.FindOrInsert(block.digests[page], block.pages.first + page);
      if (same == kUnknown) continue;
      // The data of the page is taken out later, outside the ordered section.
      SetClass(&block.classes, page, BlockPageClass::kSame);
      block.words[page] = same;
    }
  }
}

// Takes the data of pages that became `same` out of a block. Until then `stored_pages` counts them
// too.
void ChunkEncoder::Compact(Block& block) const {
  std::size_t kept = 0;
  std::size_t slot = 0;
  for (std::size_t page = 0; page < block.pages.count; ++page) {
    const BlockPageClass page_class = ClassOf(block.classes, page);
    if (page_class == BlockPageClass::kSame) ++slot;
    if (!HasBytes(page_class)) continue;
    if (kept != slot) {
      std::memmove(block.data + kept * kPageBytes, block.data + slot * kPageBytes, kPageBytes);
    }
    ++kept;
    ++slot;
  }
  block.stored_pages = kept;
}

void ChunkEncoder::Emit(EncodedChunk& chunk, const std::atomic<bool>& cancelled) {
  for (std::size_t i = 0; i < block_count_ && !in_place_; ++i) {
    if (cancelled.load(std::memory_order_relaxed)) return;
    if (dedup_ != nullptr) Compact(blocks_[i]);
    EmitBlock(chunk, blocks_[i]);
  }
  if (chunk.frames.empty()) {
    chunk.leading_run_pages = run_pages_;
  } else {
    chunk.trailing_run_pages = run_pages_;
  }
}

void ChunkEncoder::EmitRun(EncodedChunk& chunk) {
  static const std::uint64_t empty_digest = PayloadDigest({});
  const FrameHeader& last = chunk.frames.back().header;
  chunk.frames.push_back(
      {.slab_offset = chunk.body_end,
       .header = {.type = static_cast<std::uint32_t>(filter_.has_parent ? FrameType::kParentRun
                                                                        : FrameType::kZeroRun),
                  .arg0 = last.arg0 + last.arg1,
                  .arg1 = run_pages_,
                  .payload_digest = empty_digest}});
  chunk.body_end += kFrameHeaderBytes;
  (filter_.has_parent ? chunk.totals.parent_pages : chunk.totals.zero_pages) += run_pages_;
  chunk.totals.pages += run_pages_;
  run_pages_ = 0;
}

// Where the data of the next PAGE_BLOCK of the chunk go.
std::uint8_t* ChunkEncoder::NextData(const EncodedChunk& chunk) const {
  const bool run_first = run_pages_ != 0 && !chunk.frames.empty();
  return chunk.slab->data + chunk.body_end + (run_first ? kFrameHeaderBytes : 0) +
         kFrameHeaderBytes + kPageBlockHeadBytes;
}

void ChunkEncoder::EmitBlock(EncodedChunk& chunk, const Block& block) {
  if (block.classes == LeftOut(block.pages.count)) {
    run_pages_ += block.pages.count;
    return;
  }
  if (run_pages_ != 0 && chunk.frames.empty()) {
    chunk.leading_run_pages = run_pages_;
    run_pages_ = 0;
  } else if (run_pages_ != 0) {
    EmitRun(chunk);
  }
  EmitPageBlock(chunk, block);
  CountBlock(chunk, block);
}

void ChunkEncoder::EmitPageBlock(EncodedChunk& chunk, const Block& block) {
  std::uint8_t* payload = chunk.slab->data + chunk.body_end + kFrameHeaderBytes;
  std::uint8_t* data = payload + kPageBlockHeadBytes;
  const std::size_t stored_bytes = block.stored_pages * kPageBytes;
  std::size_t encoded_bytes = 0;
  if (options_.codec == BlockCodec::kLz4 && stored_bytes != 0) {
    encoded_bytes = EncodeLz4({block.data, stored_bytes}, options_.acceleration, data);
  }
  const bool raw = encoded_bytes == 0;
  if (raw) {
    if (block.data != data) std::memcpy(data, block.data, stored_bytes);
    encoded_bytes = stored_bytes;
  }
  Store<std::uint32_t>(payload,
                       static_cast<std::uint32_t>(raw ? BlockCodec::kRaw : BlockCodec::kLz4));
  Store<std::uint32_t>(payload + 4, static_cast<std::uint32_t>(encoded_bytes));
  Store<std::uint64_t>(payload + 8, block.classes);
  ZeroPadding(data, encoded_bytes);
  std::size_t payload_bytes = kPageBlockHeadBytes + Pad8(encoded_bytes);
  for (std::size_t page = 0; page < block.pages.count; ++page) {
    const BlockPageClass page_class = ClassOf(block.classes, page);
    if (HasWord(page_class)) {
      Store<std::uint64_t>(payload + payload_bytes, block.words[page]);
      payload_bytes += 8;
    }
  }
  const FrameType type = block.has_deltas ? FrameType::kDeltaBlock : FrameType::kPageBlock;
  const DraftFrame frame{.slab_offset = chunk.body_end,
                         .header = {.type = static_cast<std::uint32_t>(type),
                                    .payload_bytes = payload_bytes,
                                    .arg0 = block.pages.first,
                                    .arg1 = block.pages.count,
                                    .payload_digest = PayloadDigest({payload, payload_bytes})}};
  chunk.frames.push_back(frame);
  chunk.body_end += frame.header.frame_bytes();
  chunk.totals.encoded_bytes += encoded_bytes;
  CHKPT_CHECK(chunk.body_end <= kSlabBytes);
}

void ChunkEncoder::CountBlock(EncodedChunk& chunk, const Block& block) const {
  chunk.totals.pages += block.pages.count;
  for (std::size_t page = 0; page < block.pages.count; ++page) {
    switch (ClassOf(block.classes, page)) {
      case BlockPageClass::kZero: ++chunk.totals.zero_pages; break;
      case BlockPageClass::kFill: ++chunk.totals.fill_pages; break;
      case BlockPageClass::kStored:
      case BlockPageClass::kDelta: ++chunk.totals.stored_pages; break;
      case BlockPageClass::kSame: ++chunk.totals.same_pages; break;
      case BlockPageClass::kParent: ++chunk.totals.parent_pages; break;
    }
  }
}

}  // namespace chkpt

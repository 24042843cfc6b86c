#include "core/parallel/frame_sequencer.h"

#include <algorithm>
#include <array>
#include <cstring>

namespace chkpt {
FrameSequencer::FrameSequencer(const GuestMemory& memory, const StreamPosition& position)
    : memory_(memory), position_(position) {}

void FrameSequencer::AddRun(PageRun run) {
  if (run.count == 0) return;
  (position_.has_parent() ? totals_.parent_pages : totals_.zero_pages) += run.count;
  totals_.pages += run.count;
  if (!pending_runs_.empty()) {
    PageRun& last = pending_runs_.back();
    const bool same_region = last.end() == run.first &&
                             memory_.RegionOfPage(last.first) == memory_.RegionOfPage(run.first);
    if (same_region) {
      last.count += run.count;
      return;
    }
  }
  pending_runs_.push_back(run);
}

void FrameSequencer::Append(EncodedChunk& chunk) {
  for (const PageRun& run : chunk.ticket.run_before) AddRun(run);
  const PageRun pages = chunk.ticket.pages;
  const bool at_end = chunk.ticket.region == nullptr;
  const bool has_blocks = !chunk.frames.empty();
  if (!at_end) AddRun({pages.first, chunk.leading_run_pages});

  const bool index_done =
      index_open_ && (at_end || (has_blocks && BlockIndex::GroupOf(*chunk.ticket.region,
                                                                   pages.first) != index_.group()));
  const bool flush_runs = at_end || has_blocks;
  const std::size_t prefix = WritePrefix(chunk, flush_runs, index_done);
  WriteFrames(chunk);

  Slab& slab = *chunk.slab;
  slab.begin = kSlabPrefixBytes - prefix;
  slab.bytes = prefix + (chunk.body_end - kSlabPrefixBytes);
  if (!at_end) {
    AddRun({pages.end() - chunk.trailing_run_pages, chunk.trailing_run_pages});
    totals_.Add(chunk.totals);
  }
  slab.pages = totals_.pages;
}

std::size_t FrameSequencer::WritePrefix(EncodedChunk& chunk, bool flush_runs, bool flush_index) {
  Slab& slab = *chunk.slab;
  slab.digests.clear();
  slab.groups.clear();
  const std::size_t index_bytes =
      flush_index ? kFrameHeaderBytes + Pad8(index_.payload_bytes()) : 0;
  const std::size_t run_bytes = flush_runs ? kFrameHeaderBytes * pending_runs_.size() : 0;
  const std::size_t prefix = index_bytes + run_bytes;
  CHKPT_CHECK(prefix <= kSlabPrefixBytes);
  std::uint8_t* target = slab.data + kSlabPrefixBytes - prefix;
  std::size_t used = flush_index ? WriteIndex(slab, target) : 0;
  if (flush_runs) {
    static const std::uint64_t empty_digest = PayloadDigest({});
    for (const PageRun& run : pending_runs_) {
      const FrameHeader header{.type = static_cast<std::uint32_t>(position_.run_type()),
                               .arg0 = run.first,
                               .arg1 = run.count,
                               .payload_digest = empty_digest};
      slab.digests.push_back(EncodeFrameHeader(header, position_, target + used));
      position_.Advance(kFrameHeaderBytes);
      used += kFrameHeaderBytes;
    }
    pending_runs_.clear();
  }
  return prefix;
}

std::size_t FrameSequencer::WriteIndex(Slab& slab, std::uint8_t* target) {
  std::uint8_t* payload = target + kFrameHeaderBytes;
  const std::size_t payload_bytes = index_.payload_bytes();
  index_.Encode(payload);
  ZeroPadding(payload, payload_bytes);
  const FrameHeader header{.type = static_cast<std::uint32_t>(FrameType::kBlockIndex),
                           .payload_bytes = payload_bytes,
                           .arg0 = index_.group().first,
                           .arg1 = index_.group().count,
                           .payload_digest = PayloadDigest({payload, Pad8(payload_bytes)})};
  slab.groups.push_back({header.arg0, header.arg1, position_.offset});
  slab.digests.push_back(EncodeFrameHeader(header, position_, target));
  position_.Advance(header.frame_bytes());
  index_open_ = false;
  return header.frame_bytes();
}

void FrameSequencer::WriteFrames(EncodedChunk& chunk) {
  Slab& slab = *chunk.slab;
  for (const DraftFrame& frame : chunk.frames) {
    if (IsBlock(static_cast<FrameType>(frame.header.type))) {
      if (!index_open_) index_.Begin(BlockIndex::GroupOf(*chunk.ticket.region, frame.header.arg0));
      index_open_ = true;
      index_.Note(frame.header.arg0, position_.offset);
    }
    slab.digests.push_back(
        EncodeFrameHeader(frame.header, position_, slab.data + frame.slab_offset));
    position_.Advance(frame.header.frame_bytes());
  }
}

}  // namespace chkpt

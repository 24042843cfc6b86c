#include "core/lazy/frame_walk.h"

#include <optional>

namespace chkpt {
namespace {

Error WalkError(const char* message, const VerifiedFrame& frame, std::uint64_t offset) {
  return Error{
      .code = ErrorCode::kFormat, .message = message, .frame = frame.sequence, .offset = offset};
}

// The frame at `offset`, where memory goes on with `next_page`, as it was when its block was
// fetched: its type and its pages were checked then.
std::optional<VerifiedFrame> FindNote(const Layer& layer, const BlockLayout& layout,
                                      std::uint64_t page_count, std::uint64_t next_page,
                                      std::uint64_t offset, std::span<const FrameNote> notes) {
  if (notes.empty() || next_page >= page_count) return std::nullopt;
  const std::uint64_t block = layout.BlockOf(next_page);
  const FrameNote& note = notes[block];
  if (note.frame_bytes == 0 || layer.map->Find(block) != offset) return std::nullopt;
  const PageRun pages = layout.PagesOf(block);
  VerifiedFrame frame;
  frame.header.type = static_cast<std::uint32_t>(FrameType::kPageBlock);
  frame.header.payload_bytes = note.frame_bytes - kFrameHeaderBytes;
  frame.header.arg0 = pages.first;
  frame.header.arg1 = pages.count;
  frame.sequence = note.sequence;
  frame.header_digest = note.header_digest;
  return frame;
}

}  // namespace

Result<std::vector<std::uint64_t>> WalkFrames(const Layer& layer, const BlockLayout& layout,
                                              std::uint64_t page_count, std::uint64_t first_offset,
                                              std::uint64_t end_offset,
                                              std::span<const FrameNote> notes,
                                              const std::atomic<bool>& cancelled) {
  std::vector<std::uint64_t> digests;
  FrameReader::Window window;
  std::uint64_t next_page = 0;
  std::uint64_t offset = first_offset;
  while (offset < end_offset) {
    if (cancelled.load(std::memory_order_relaxed)) {
      return Error{.code = ErrorCode::kAborted, .message = "load cancelled"};
    }
    std::optional<VerifiedFrame> known =
        FindNote(layer, layout, page_count, next_page, offset, notes);
    if (!known) {
      Result<VerifiedFrame> read = layer.reader.ReadHeader(offset, &window);
      if (!read.ok()) return read.error();
      known = read.value();
    }
    const VerifiedFrame& frame = *known;
    const FrameHeader& header = frame.header;
    if (frame.sequence != digests.size()) {
      return WalkError("frame has another sequence number", frame, offset);
    }
    const auto type = static_cast<FrameType>(header.type);
    const bool is_block = type == FrameType::kPageBlock;
    if (is_block || IsRun(type)) {
      if (header.arg0 != next_page || header.arg1 == 0 || header.arg1 > page_count - next_page) {
        return WalkError("frames of memory leave pages out", frame, offset);
      }
      // What stands in a run must not be in the map either.
      const std::uint64_t first = layout.BlockOf(header.arg0);
      const std::uint64_t last = layout.BlockOf(header.arg0 + header.arg1 - 1);
      for (std::uint64_t block = first; block <= last; ++block) {
        const std::optional<std::uint64_t> mapped = layer.map->Find(block);
        if (mapped.has_value() != is_block || (is_block && *mapped != offset)) {
          return WalkError("the block index has another place for a block", frame, offset);
        }
      }
      next_page += header.arg1;
    }
    digests.push_back(frame.header_digest);
    offset += header.frame_bytes();
  }
  if (offset != end_offset || next_page != page_count) {
    return Error{.code = ErrorCode::kFormat,
                 .message = "frames do not end where END stands",
                 .offset = offset};
  }
  return digests;
}

}  // namespace chkpt

#include "core/parallel/frame_scanner.h"

#include <algorithm>

#include "core/codec/page_block.h"

namespace chkpt {
namespace {

// Frames that belong to the context layer; the scanner stops before them. docs/format.md section 4.
constexpr std::uint32_t kContextClose = 0x02;
constexpr std::uint32_t kRegionTable = 0x10;
constexpr std::uint32_t kEnd = 0x20;

// No count or offset of a stream exceeds what a JavaScript reader can hold exactly.
constexpr std::uint64_t kCountMax = (std::uint64_t{1} << 53) - 1;

bool IsForeign(std::uint32_t type) {
  return type <= kRegionTable || type == kEnd || type == (kOptionalFrameBit | (kEnd + 1));
}

}  // namespace

FrameScanner::FrameScanner(const GuestMemory& memory, const StreamPosition& position, bool deltas)
    : memory_(memory), deltas_(deltas && position.has_parent()), position_(position) {
  static_assert(kContextClose < kRegionTable);
}

Error FrameScanner::FrameError(ErrorCode code, const char* message) const {
  return Error{
      .code = code, .message = message, .frame = position_.sequence, .offset = position_.offset};
}

ScanResult FrameScanner::Scan(std::span<const std::uint8_t> bytes) {
  ScanResult result;
  Status status = ScanFrames(bytes, &result);
  if (!status.ok()) result.error = std::move(status.error());
  return result;
}

Status FrameScanner::ScanFrames(std::span<const std::uint8_t> bytes, ScanResult* result) {
  while (bytes.size() - result->consumed_bytes >= kFrameHeaderBytes) {
    const std::uint8_t* source = bytes.data() + result->consumed_bytes;
    // Headers lie far apart: the next one comes from memory while this one is checked.
    const std::uint64_t guess =
        std::min<std::uint64_t>(Load<std::uint64_t>(source + 8), kFramePayloadBytesMax);
    const std::uint64_t next = result->consumed_bytes + kFrameHeaderBytes + Pad8(guess);
    if (next + kFrameHeaderBytes <= bytes.size()) {
      __builtin_prefetch(bytes.data() + next);
      __builtin_prefetch(bytes.data() + next + kFrameHeaderBytes - 1);
    }
    Result<CheckedFrame> checked = CheckFrameHeader(source, position_);
    if (!checked.ok()) return checked.error();
    const CheckedFrame& frame = checked.value();
    const FrameHeader& header = frame.header;
    if (IsForeign(header.type)) {
      result->ended = true;
      break;
    }
    const std::uint64_t frame_bytes = header.frame_bytes();
    if (bytes.size() - result->consumed_bytes < frame_bytes) break;

    const std::uint8_t* payload = source + kFrameHeaderBytes;
    const auto type = static_cast<FrameType>(header.type);
    if (IsRun(type) || type == FrameType::kPageBlock ||
        (deltas_ && type == FrameType::kDeltaBlock)) {
      Status status = CheckPages(frame);
      if (!status.ok()) return status.error();
      result->frames.push_back({header, {position_.sequence, position_.offset}, payload});
      next_page_ = header.arg0 + header.arg1;
    } else if ((header.type & kOptionalFrameBit) != 0) {
      Status status = CheckOptional(frame, payload);
      if (!status.ok()) return status.error();
    } else {
      return FrameError(ErrorCode::kVersion, "unknown critical frame type in a memory context");
    }
    result->digests.push_back(frame.header_digest);
    result->consumed_bytes += frame_bytes;
    position_.Advance(frame_bytes);
  }
  return Ok();
}

Status FrameScanner::CheckPages(const CheckedFrame& frame) {
  const FrameHeader& header = frame.header;
  if (header.arg0 == next_page_ && header.arg1 > kCountMax) {
    return FrameError(ErrorCode::kLimit, "page count is beyond every limit");
  }
  if (header.arg0 != next_page_ || header.arg0 >= memory_.page_count()) {
    return FrameError(ErrorCode::kFormat, "pages are missing, repeated or out of order");
  }
  const Region& region = memory_.regions()[memory_.RegionOfPage(header.arg0)];
  const std::uint64_t in_region = header.arg0 - region.first_page;
  const std::uint64_t rest = region.page_count() - in_region;
  if (in_region % kBlockPages != 0 || header.arg1 == 0 || header.arg1 > rest) {
    return FrameError(ErrorCode::kFormat, "pages do not start at a block or leave their region");
  }
  if (IsRun(static_cast<FrameType>(header.type))) {
    if (static_cast<FrameType>(header.type) != position_.run_type()) {
      return FrameError(ErrorCode::kFormat, position_.has_parent()
                                                ? "zero run in a checkpoint with a parent"
                                                : "parent run in a checkpoint without a parent");
    }
    if (header.payload_bytes != 0 || (header.arg1 % kBlockPages != 0 && header.arg1 != rest)) {
      return FrameError(ErrorCode::kFormat, "run does not end at a block or has a payload");
    }
    if (frame.header.payload_digest != PayloadDigest({})) {
      return FrameError(ErrorCode::kDigest, "run does not match its payload digest");
    }
    return Ok();
  }
  if (header.arg1 != std::min<std::uint64_t>(kBlockPages, rest)) {
    return FrameError(ErrorCode::kFormat, "page block is not a whole block");
  }
  if (header.payload_bytes < kPageBlockHeadBytes ||
      header.payload_bytes > kPageBlockPayloadBytesMax) {
    return FrameError(ErrorCode::kFormat, "page block has an impossible length");
  }
  return NoteBlock(region, header.arg0);
}

// Optional frames are not needed for a forward read, but damage in them is damage.
Status FrameScanner::CheckOptional(const CheckedFrame& frame, const std::uint8_t* payload) {
  const std::size_t padded = Pad8(frame.header.payload_bytes);
  if (PayloadDigest({payload, padded}) != frame.header.payload_digest) {
    return FrameError(ErrorCode::kDigest, "frame payload does not match its digest");
  }
  for (std::size_t i = frame.header.payload_bytes; i < padded; ++i) {
    if (payload[i] != 0) return FrameError(ErrorCode::kFormat, "frame padding is not zero");
  }
  const bool is_index = frame.header.type == static_cast<std::uint32_t>(FrameType::kBlockIndex);
  return is_index ? CheckIndex(frame.header, payload) : Ok();
}

Status FrameScanner::CheckIndex(const FrameHeader& header, const std::uint8_t* payload) {
  const bool in_place = !index_told_ && header.arg0 == index_.group().first &&
                        header.arg1 == index_.group().count &&
                        header.payload_bytes == index_.payload_bytes();
  if (in_place && Load<std::uint64_t>(payload) > kCountMax) {
    return FrameError(ErrorCode::kLimit, "base of a block index is beyond every limit");
  }
  if (!in_place || !index_.Describes({payload, header.payload_bytes})) {
    return FrameError(ErrorCode::kFormat, "block index does not say where its blocks are");
  }
  index_told_ = true;
  groups_.push_back({header.arg0, header.arg1, position_.offset});
  return Ok();
}

Status FrameScanner::NoteBlock(const Region& region, std::uint64_t page) {
  const PageRun group = BlockIndex::GroupOf(region, page);
  if (group != index_.group()) {
    index_.Begin(group);
    index_told_ = false;
  } else if (index_told_) {
    return FrameError(ErrorCode::kFormat, "page block behind the block index of its group");
  }
  index_.Note(page, position_.offset);
  return Ok();
}

}  // namespace chkpt

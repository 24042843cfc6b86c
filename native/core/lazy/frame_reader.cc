#include "core/lazy/frame_reader.h"

#include <algorithm>

#include "core/codec/page_block.h"

namespace chkpt {
namespace {

// A PAGE_BLOCK of LZ4 is rarely longer; the rest of one that is costs a second read.
constexpr std::size_t kFirstReadBytes = kFrameHeaderBytes + kPageBlockPayloadBytesMax;

// Enough for some hundred small frames, little to waste where a block follows.
constexpr std::size_t kWindowBytes = 16384;

}  // namespace

Result<VerifiedFrame> FrameReader::CheckHeader(std::uint64_t offset,
                                               const std::uint8_t* bytes) const {
  // The sequence number is not known here. It is part of what the digest covers.
  const StreamPosition position{.uuid = uuid_,
                                .epoch = epoch_,
                                .sequence = Load<std::uint64_t>(bytes + 16),
                                .offset = offset};
  Result<CheckedFrame> checked = CheckFrameHeader(bytes, position);
  if (!checked.ok()) {
    Error error = std::move(checked.error());
    error.frame = kUnknown;
    return error;
  }
  VerifiedFrame frame;
  frame.header = checked.value().header;
  frame.sequence = position.sequence;
  frame.header_digest = checked.value().header_digest;
  return frame;
}

Result<VerifiedFrame> FrameReader::ReadHeader(std::uint64_t offset) const {
  std::uint8_t bytes[kFrameHeaderBytes];
  Status read = source_.Read(offset, bytes);
  if (!read.ok()) return read.error();
  return CheckHeader(offset, bytes);
}

Result<VerifiedFrame> FrameReader::ReadHeader(std::uint64_t offset, Window* window) const {
  const auto all = source_.asked_bytes();
  if (!all) return ReadHeader(offset);
  const std::uint64_t end = window->offset + window->bytes.size();
  if (offset < window->offset || offset + kFrameHeaderBytes > end) {
    const std::uint64_t left = *all - std::min(offset, *all);
    window->offset = offset;
    window->bytes.resize(
        static_cast<std::size_t>(std::clamp<std::uint64_t>(left, kFrameHeaderBytes, kWindowBytes)));
    Status read = source_.Read(offset, window->bytes);
    if (!read.ok()) {
      window->bytes.clear();
      return read.error();
    }
  }
  return CheckHeader(offset, window->bytes.data() + (offset - window->offset));
}

Result<VerifiedFrame> FrameReader::Read(std::uint64_t offset, std::vector<std::uint8_t>* buffer,
                                        bool* is_known) const {
  if (const auto header = source_.View(offset, kFrameHeaderBytes); !header.empty()) {
    Result<VerifiedFrame> frame = CheckInPlace(offset, header, is_known);
    // Else it goes over the end of a piece.
    if (!frame.ok() || !frame.value().payload.empty()) return frame;
  }
  if (is_known != nullptr) *is_known = false;
  if (buffer->size() < kFirstReadBytes) buffer->resize(kFirstReadBytes);
  std::uint8_t* bytes = buffer->data();
  std::size_t known_bytes = kFrameHeaderBytes;
  if (const auto all = source_.asked_bytes()) {
    const std::uint64_t left = *all - std::min(offset, *all);
    known_bytes = static_cast<std::size_t>(
        std::clamp<std::uint64_t>(left, kFrameHeaderBytes, kFirstReadBytes));
  }
  Status read = source_.Read(offset, {bytes, known_bytes});
  if (!read.ok()) return read.error();
  Result<VerifiedFrame> frame = CheckHeader(offset, bytes);
  if (!frame.ok()) return frame;
  const std::size_t frame_bytes = static_cast<std::size_t>(frame.value().header.frame_bytes());
  if (buffer->size() < frame_bytes) buffer->resize(frame_bytes);
  bytes = buffer->data();
  if (frame_bytes > known_bytes) {
    read = source_.Read(offset + known_bytes, {bytes + known_bytes, frame_bytes - known_bytes});
    if (!read.ok()) return read.error();
  }
  return Check(offset, {bytes, frame_bytes});
}

// `payload` stays empty when the frame is not in one piece.
Result<VerifiedFrame> FrameReader::CheckInPlace(std::uint64_t offset,
                                                std::span<const std::uint8_t> header,
                                                bool* is_known) const {
  Result<VerifiedFrame> frame = CheckHeader(offset, header.data());
  if (!frame.ok()) return frame;
  const std::uint64_t frame_bytes = frame.value().header.frame_bytes();
  const auto bytes = source_.View(offset, static_cast<std::size_t>(frame_bytes));
  if (bytes.empty()) return frame;
  if (is_known != nullptr && *is_known) {
    frame.value().payload = bytes.subspan(kFrameHeaderBytes, frame.value().header.payload_bytes);
    return frame;
  }
  frame = Check(offset, bytes);
  if (is_known != nullptr) *is_known = frame.ok();
  return frame;
}

Result<VerifiedFrame> FrameReader::Check(std::uint64_t offset,
                                         std::span<const std::uint8_t> bytes) const {
  const Error cut{.code = ErrorCode::kTruncated,
                  .message = "a frame is longer than its place",
                  .offset = offset};
  if (bytes.size() < kFrameHeaderBytes) return cut;
  Result<VerifiedFrame> frame = CheckHeader(offset, bytes.data());
  if (!frame.ok()) return frame;
  const FrameHeader& header = frame.value().header;
  if (bytes.size() < header.frame_bytes()) return cut;
  const std::uint64_t padded_bytes = Pad8(header.payload_bytes);
  if (PayloadDigest(bytes.subspan(kFrameHeaderBytes, padded_bytes)) != header.payload_digest) {
    return Error{.code = ErrorCode::kDigest,
                 .message = "frame payload does not match its digest",
                 .frame = frame.value().sequence,
                 .offset = offset};
  }
  frame.value().payload = bytes.subspan(kFrameHeaderBytes, header.payload_bytes);
  return frame;
}

}  // namespace chkpt

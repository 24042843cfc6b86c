#include "core/format/frame.h"

#include "core/base/xxh3.h"

namespace chkpt {
namespace {

constexpr std::size_t kBoundHeaderBytes = 48;
constexpr std::size_t kBindingBytes = 16 + 8 + 8 + kBoundHeaderBytes;

std::uint64_t HeaderDigest(const std::uint8_t* header, const StreamPosition& position) {
  std::uint8_t binding[kBindingBytes];
  std::memcpy(binding, position.uuid.data(), 16);
  Store<std::uint64_t>(binding + 16, position.epoch);
  Store<std::uint64_t>(binding + 24, position.offset);
  std::memcpy(binding + 32, header, kBoundHeaderBytes);
  return XXH3_64bits(binding, sizeof binding);
}

Error FrameError(ErrorCode code, const char* message, const StreamPosition& position) {
  return Error{
      .code = code, .message = message, .frame = position.sequence, .offset = position.offset};
}

}  // namespace

std::uint64_t PayloadDigest(std::span<const std::uint8_t> padded_payload) {
  return XXH3_64bits(padded_payload.data(), padded_payload.size());
}

std::uint64_t EncodeFrameHeader(const FrameHeader& header, const StreamPosition& position,
                                std::uint8_t* target) {
  Store<std::uint32_t>(target, header.type);
  Store<std::uint32_t>(target + 4, 0);
  Store<std::uint64_t>(target + 8, header.payload_bytes);
  Store<std::uint64_t>(target + 16, position.sequence);
  Store<std::uint64_t>(target + 24, header.arg0);
  Store<std::uint64_t>(target + 32, header.arg1);
  Store<std::uint64_t>(target + 40, header.payload_digest);
  const std::uint64_t digest = HeaderDigest(target, position);
  Store<std::uint64_t>(target + 48, digest);
  return digest;
}

Result<CheckedFrame> CheckFrameHeader(const std::uint8_t* source, const StreamPosition& position) {
  const std::uint64_t digest = Load<std::uint64_t>(source + 48);
  if (digest != HeaderDigest(source, position)) {
    return FrameError(ErrorCode::kDigest, "frame header does not match its digest", position);
  }
  if (Load<std::uint32_t>(source + 4) != 0) {
    return FrameError(ErrorCode::kFormat, "frame flags are not zero", position);
  }
  if (Load<std::uint64_t>(source + 16) != position.sequence) {
    return FrameError(ErrorCode::kFormat, "frame has another sequence number", position);
  }
  CheckedFrame frame;
  frame.header.type = Load<std::uint32_t>(source);
  frame.header.payload_bytes = Load<std::uint64_t>(source + 8);
  frame.header.arg0 = Load<std::uint64_t>(source + 24);
  frame.header.arg1 = Load<std::uint64_t>(source + 32);
  frame.header.payload_digest = Load<std::uint64_t>(source + 40);
  frame.header_digest = digest;
  if (frame.header.payload_bytes > kFramePayloadBytesMax) {
    return FrameError(ErrorCode::kLimit, "frame payload exceeds its limit", position);
  }
  return frame;
}

}  // namespace chkpt

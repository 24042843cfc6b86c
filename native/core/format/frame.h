// Frame headers of docs/format.md section 4, as native code writes and checks them.
//
//   0     4      8              16        24    32    40              48             56
//   | type | flags | payload bytes | sequence | arg0 | arg1 | payload digest | header digest |
//
// src/format/ has the same constants; test/support/forged.ts holds the two decoders against each
// other.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "core/base/bytes.h"
#include "core/base/result.h"
#include "core/base/units.h"

namespace chkpt {

inline constexpr std::size_t kFrameHeaderBytes = 56;
inline constexpr std::size_t kFramePayloadBytesMax = (1u << 20) + (64u << 10);
static_assert(kFramePayloadBytesMax == 1'114'112);

enum class FrameType : std::uint32_t {
  kZeroRun = 0x11,
  kPageBlock = 0x12,
  kParentRun = 0x14,
  kDeltaBlock = 0x15,
  kBlockIndex = 0x80000013,
};
// Frames that stand for whole blocks.
constexpr bool IsRun(FrameType type) {
  return type == FrameType::kZeroRun || type == FrameType::kParentRun;
}
// Frames with the pages of one block.
constexpr bool IsBlock(FrameType type) {
  return type == FrameType::kPageBlock || type == FrameType::kDeltaBlock;
}
inline constexpr std::uint32_t kOptionalFrameBit = 0x80000000;

// Where a stream stands: what the next frame's header digest is bound to.
struct StreamPosition {
  std::array<std::uint8_t, 16> uuid{};
  std::uint64_t epoch = 0;
  std::uint64_t sequence = 0;
  std::uint64_t offset = 0;  // bytes from the start of the stream

  // A checkpoint has a parent exactly when its epoch is not 0.
  bool has_parent() const { return epoch != 0; }
  // Type of the frames for whole blocks that are not stored.
  FrameType run_type() const { return has_parent() ? FrameType::kParentRun : FrameType::kZeroRun; }

  // Where one frame stands, for messages.
  struct Place {
    std::uint64_t sequence = 0;
    std::uint64_t offset = 0;
  };

  void Advance(std::uint64_t frame_bytes) {
    ++sequence;
    offset += frame_bytes;
  }
};

struct FrameHeader {
  std::uint32_t type = 0;
  std::uint64_t payload_bytes = 0;
  std::uint64_t arg0 = 0;
  std::uint64_t arg1 = 0;
  std::uint64_t payload_digest = 0;

  std::uint64_t frame_bytes() const { return kFrameHeaderBytes + Pad8(payload_bytes); }
};

// XXH3-64 of a payload with its padding.
std::uint64_t PayloadDigest(std::span<const std::uint8_t> padded_payload);

// Writes the header of the frame at `position` and returns its header digest.
std::uint64_t EncodeFrameHeader(const FrameHeader& header, const StreamPosition& position,
                                std::uint8_t* target);

struct CheckedFrame {
  FrameHeader header;
  std::uint64_t header_digest = 0;
};

// Checks digest, then flags, sequence and bounds, of the 56 bytes at `position`. Errors: kDigest,
// kFormat, kLimit.
Result<CheckedFrame> CheckFrameHeader(const std::uint8_t* source, const StreamPosition& position);

// Writes zeros from `payload_bytes` to its padded length.
inline void ZeroPadding(std::uint8_t* payload, std::size_t payload_bytes) {
  for (std::size_t i = payload_bytes; i < Pad8(payload_bytes); ++i) payload[i] = 0;
}

}  // namespace chkpt

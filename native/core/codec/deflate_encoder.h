// Encoder: bytes to a DEFLATE stream (RFC 1951), fast rather than small: as `gzip -1`.
//
// Greedy, with the two last places of each hash as candidates; per block of at most 64 KiB the
// smallest of its three forms. The same source always gives the same stream, whatever was encoded
// before.
//
// Ownership: owns its tables, about 200 KiB. Thread safety: one thread at a time.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "core/codec/deflate_format.h"

namespace chkpt::deflate {

class Encoder {
 public:
  static constexpr std::size_t kSourceBytesMax = 64u << 20;

  Encoder();
  Encoder(const Encoder&) = delete;
  Encoder& operator=(const Encoder&) = delete;

  // Most bytes that Encode writes, those included that it writes behind the end.
  static std::size_t Bound(std::size_t source_bytes);

  // A whole stream; its bytes. REQUIRES: at most kSourceBytesMax, that nobody writes to; room for
  // Bound().
  std::size_t Encode(std::span<const std::uint8_t> source, std::uint8_t* target);

 private:
  struct Bucket {
    std::uint32_t newer;
    std::uint32_t older;
  };
  // Literals, then a match; the last of a block may be without one (length 0).
  struct Sequence {
    std::uint32_t literals;
    std::uint16_t length;
    std::uint16_t distance;
  };
  struct Match {
    std::uint32_t length;
    std::uint32_t distance;
  };
  struct BitWriter;
  struct Codes;

  // One block from `start` on; where it ends.
  std::size_t ParseBlock(std::span<const std::uint8_t> source, std::size_t start);
  Match FindMatch(std::span<const std::uint8_t> source, std::size_t at);
  void Note(std::span<const std::uint8_t> source, std::size_t at);
  void Add(const std::uint8_t* literals, std::size_t count, Match match);
  void WriteBlock(std::span<const std::uint8_t> block, bool last, BitWriter& writer);
  void WriteSequences(const std::uint8_t* literals, const Codes& codes, BitWriter& writer) const;
  std::uint64_t CodedBits(const Codes& codes) const;

  std::vector<Bucket> buckets_;
  std::vector<Sequence> sequences_;
  std::array<std::uint32_t, kLiteralSymbols> literal_counts_;
  std::array<std::uint32_t, kDistanceSymbols> distance_counts_;
};

}  // namespace chkpt::deflate

// Inflater: a DEFLATE stream (RFC 1951) back to its bytes. Untrusted input: whatever the stream is,
// nothing outside the buffers is read or written, and memory does not depend on it.
//
// Refuses what zlib refuses: codes that are over-subscribed, or incomplete other than one code of
// one bit; a block without a code for its end; distances to before the start.
//
// Ownership: owns its tables and 160 KiB of window. Thread safety: one thread at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "core/base/result.h"
#include "core/codec/bit_reader.h"
#include "core/codec/deflate_format.h"

namespace chkpt::deflate {

// Takes the next bytes; its error ends the decoding.
using ByteSink = std::function<Status(std::span<const std::uint8_t> bytes)>;

class Inflater {
 public:
  Inflater();
  Inflater(const Inflater&) = delete;
  Inflater& operator=(const Inflater&) = delete;

  // One whole stream, up to and without the rest of its last byte. Errors: kDecode, kTruncated,
  // those of the source and of the sink.
  Status Run(BitReader& input, const ByteSink& sink);

 private:
  // An entry of a table: how many bits the code has (lowest 8 bits), flags and the number of extra
  // bits (next 8), the value (upper 16).
  using Table = std::vector<std::uint32_t>;

  Status ReadCodes(BitReader& input);
  Status ReadLengths(BitReader& input, std::span<std::uint8_t> lengths);
  void SetFixedCodes();
  Status CopyStored(BitReader& input, const ByteSink& sink);
  Status DecodeBlock(BitReader& input, const ByteSink& sink);
  // Hands over what is new and makes room for a match and for literals of one round.
  Status Flush(const ByteSink& sink);

  Table literals_;
  Table distances_;
  Table code_lengths_;
  std::vector<std::uint8_t> window_;
  std::size_t out_ = 0;          // offset in window_ of the next byte
  std::size_t handed_over_ = 0;  // offset of the first byte that the sink does not have
  std::size_t first_ = 0;        // offset of the oldest byte of this stream
};

}  // namespace chkpt::deflate

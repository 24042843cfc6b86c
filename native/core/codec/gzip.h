// gzip (RFC 1952): members written one by one, and files of members read back. Untrusted input.
//
// What is written depends on the bytes alone: no name, no time, no system.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "core/base/result.h"
#include "core/codec/bit_reader.h"
#include "core/codec/deflate_encoder.h"
#include "core/codec/inflater.h"

namespace chkpt::gzip {

// Most bytes that EncodeMember writes, those behind the end included.
std::size_t MemberBound(std::size_t source_bytes);

// One member; its bytes. REQUIRES: room for the bound; deflate::Encoder::kSourceBytesMax; nobody
// writes to the source.
std::size_t EncodeMember(deflate::Encoder& encoder, std::span<const std::uint8_t> source,
                         std::uint8_t* target);

// Reads members one behind the other. Thread safety: one thread at a time.
class Reader {
 public:
  Reader() = default;
  Reader(const Reader&) = delete;
  Reader& operator=(const Reader&) = delete;

  // One member, whose CRC and length are verified after the sink has seen all of it; its decoded
  // bytes. Errors: kFormat (no gzip member), kTruncated, kDecode, kDigest, those of source and
  // sink.
  Result<std::uint64_t> ReadMember(BitReader& input, const deflate::ByteSink& sink);

 private:
  deflate::Inflater inflater_;
};

}  // namespace chkpt::gzip

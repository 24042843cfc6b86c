#include "core/codec/gzip.h"

#include <algorithm>
#include <array>

#include "core/base/bytes.h"
#include "core/codec/crc32.h"

namespace chkpt::gzip {
namespace {

constexpr std::size_t kHeaderBytes = 10;
constexpr std::size_t kTrailerBytes = 8;
// Names and comments that others write end somewhere.
constexpr std::size_t kTextBytesMax = 64u << 10;

constexpr std::uint8_t kMethodDeflate = 8;
enum Flag : std::uint8_t {
  kHeaderCrc = 2,
  kExtra = 4,
  kName = 8,
  kComment = 16,
  kReserved = 0xe0,
};

// No flags, no time, fastest method, unknown system.
constexpr std::array<std::uint8_t, kHeaderBytes> kHeader{0x1f, 0x8b, kMethodDeflate, 0, 0, 0, 0, 0,
                                                         4,    255};

Error Cut(const BitReader& input) {
  if (input.error()) return *input.error();
  return {.code = ErrorCode::kTruncated, .message = "a gzip member ends in the middle"};
}
Error NotGzip(const char* what) { return {.code = ErrorCode::kFormat, .message = what}; }

Status Skip(BitReader& input, std::size_t bytes) {
  std::array<std::uint8_t, 256> skipped;
  while (bytes != 0) {
    const std::size_t part = std::min(bytes, skipped.size());
    if (input.ReadBytes({skipped.data(), part}) != part) return Cut(input);
    bytes -= part;
  }
  return Ok();
}

Status SkipText(BitReader& input) {
  for (std::size_t bytes = 0; bytes < kTextBytesMax; ++bytes) {
    std::uint8_t byte = 0;
    if (input.ReadBytes({&byte, 1}) != 1) return Cut(input);
    if (byte == 0) return Ok();
  }
  return Error{.code = ErrorCode::kLimit, .message = "a gzip header does not end"};
}

Status ReadHeader(BitReader& input) {
  std::array<std::uint8_t, kHeaderBytes> header;
  const std::size_t bytes = input.ReadBytes(header);
  if (bytes >= 2 && (header[0] != kHeader[0] || header[1] != kHeader[1])) {
    return NotGzip("no gzip member begins here");
  }
  if (bytes != header.size()) return Cut(input);
  if (header[2] != kMethodDeflate) return NotGzip("a gzip member is not compressed by DEFLATE");
  const std::uint8_t flags = header[3];
  if ((flags & kReserved) != 0) return NotGzip("a gzip header has flags that do not exist");
  Status status = Ok();
  if ((flags & kExtra) != 0) {
    std::uint8_t length[2];
    if (input.ReadBytes(length) != sizeof length) return Cut(input);
    status = Skip(input, Load<std::uint16_t>(length));
  }
  if (status.ok() && (flags & kName) != 0) status = SkipText(input);
  if (status.ok() && (flags & kComment) != 0) status = SkipText(input);
  if (status.ok() && (flags & kHeaderCrc) != 0) status = Skip(input, 2);
  return status;
}

}  // namespace

std::size_t MemberBound(std::size_t source_bytes) {
  return kHeaderBytes + deflate::Encoder::Bound(source_bytes) + kTrailerBytes;
}

std::size_t EncodeMember(deflate::Encoder& encoder, std::span<const std::uint8_t> source,
                         std::uint8_t* target) {
  std::copy(kHeader.begin(), kHeader.end(), target);
  std::uint8_t* const trailer =
      target + kHeaderBytes + encoder.Encode(source, target + kHeaderBytes);
  Store<std::uint32_t>(trailer, Crc32(0, source));
  Store<std::uint32_t>(trailer + 4, static_cast<std::uint32_t>(source.size()));
  return static_cast<std::size_t>(trailer + kTrailerBytes - target);
}

Result<std::uint64_t> Reader::ReadMember(BitReader& input, const deflate::ByteSink& sink) {
  Status status = ReadHeader(input);
  if (!status.ok()) return status.error();
  std::uint32_t crc = 0;
  std::uint64_t bytes = 0;
  status = inflater_.Run(input, [&](std::span<const std::uint8_t> decoded) {
    crc = Crc32(crc, decoded);
    bytes += decoded.size();
    return sink(decoded);
  });
  if (!status.ok()) return status.error();
  input.AlignToByte();
  std::uint8_t trailer[kTrailerBytes];
  if (input.ReadBytes(trailer) != sizeof trailer) return Cut(input);
  if (Load<std::uint32_t>(trailer) != crc) {
    return Error{.code = ErrorCode::kDigest, .message = "the CRC of a gzip member does not match"};
  }
  if (Load<std::uint32_t>(trailer + 4) != static_cast<std::uint32_t>(bytes)) {
    return Error{.code = ErrorCode::kDigest,
                 .message = "the length of a gzip member does not match"};
  }
  return bytes;
}

}  // namespace chkpt::gzip

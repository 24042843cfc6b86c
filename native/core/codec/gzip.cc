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

// Reads a header (RFC 1952, 2.3) and remembers what its CRC must be.
class HeaderReader {
 public:
  explicit HeaderReader(BitReader& input) : input_(input) {}

  Status Read() {
    std::array<std::uint8_t, kHeaderBytes> header;
    const std::size_t bytes = input_.ReadBytes(header);
    if (bytes >= 2 && (header[0] != kHeader[0] || header[1] != kHeader[1])) {
      return NotGzip("no gzip member begins here");
    }
    if (bytes != header.size()) return Cut(input_);
    if (header[2] != kMethodDeflate) return NotGzip("a gzip member is not compressed by DEFLATE");
    const std::uint8_t flags = header[3];
    if ((flags & kReserved) != 0) return NotGzip("a gzip header has flags that do not exist");
    crc_ = Crc32(0, header);
    Status status = Ok();
    if ((flags & kExtra) != 0) status = SkipExtra();
    if (status.ok() && (flags & kName) != 0) status = SkipText();
    if (status.ok() && (flags & kComment) != 0) status = SkipText();
    if (status.ok() && (flags & kHeaderCrc) != 0) status = CheckCrc();
    return status;
  }

 private:
  bool Take(std::span<std::uint8_t> bytes) {
    if (input_.ReadBytes(bytes) != bytes.size()) return false;
    crc_ = Crc32(crc_, bytes);
    return true;
  }

  Status SkipExtra() {
    std::uint8_t length[2];
    if (!Take(length)) return Cut(input_);
    std::array<std::uint8_t, 256> skipped;
    for (std::size_t bytes = Load<std::uint16_t>(length); bytes != 0;) {
      const std::size_t part = std::min(bytes, skipped.size());
      if (!Take({skipped.data(), part})) return Cut(input_);
      bytes -= part;
    }
    return Ok();
  }

  Status SkipText() {
    for (std::size_t bytes = 0; bytes < kTextBytesMax; ++bytes) {
      std::uint8_t byte = 0;
      if (!Take({&byte, 1})) return Cut(input_);
      if (byte == 0) return Ok();
    }
    return Error{.code = ErrorCode::kLimit, .message = "a gzip header does not end"};
  }

  Status CheckCrc() {
    std::uint8_t stored[2];
    const std::uint32_t crc = crc_;
    if (!Take(stored)) return Cut(input_);
    if (Load<std::uint16_t>(stored) == static_cast<std::uint16_t>(crc)) return Ok();
    return Error{.code = ErrorCode::kDigest, .message = "the CRC of a gzip header does not match"};
  }

  BitReader& input_;
  std::uint32_t crc_ = 0;
};

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
  Status status = HeaderReader(input).Read();
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

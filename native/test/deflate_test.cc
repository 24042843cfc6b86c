// DEFLATE and gzip against zlib: what one writes the other reads, and what is damaged both refuse.
#include <gtest/gtest.h>
#include <zlib.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "core/codec/crc32.h"
#include "core/codec/gzip.h"
#include "core/codec/huffman.h"

namespace chkpt::deflate {
namespace {

using Bytes = std::vector<std::uint8_t>;

#if defined(__SANITIZE_THREAD__)
constexpr int kLess = 40;
#elif defined(__SANITIZE_ADDRESS__)
constexpr int kLess = 8;
#else
constexpr int kLess = 1;
#endif

constexpr std::uint8_t kDeflateCanary = 0xC5;

// Words from a small set, runs, copies and random bytes: matches of all lengths at all distances.
Bytes DeflateMixture(std::mt19937_64& random, std::size_t count) {
  Bytes bytes(count);
  std::size_t at = 0;
  while (at < count) {
    const std::size_t run =
        std::min<std::size_t>(1 + random() % (1u << (random() % 12)), count - at);
    const std::uint64_t kind = random() % 4;
    const auto value = static_cast<std::uint8_t>(random());
    const std::size_t back = at == 0 ? 0 : 1 + random() % std::min<std::size_t>(at, 40000);
    for (std::size_t i = 0; i < run; ++i, ++at) {
      if (kind == 0)
        bytes[at] = value;
      else if (kind == 1)
        bytes[at] = static_cast<std::uint8_t>(random());
      else if (kind == 2 && back != 0)
        bytes[at] = bytes[at - back];
      else
        bytes[at] = static_cast<std::uint8_t>("page table "[random() % 11]);
    }
  }
  return bytes;
}

struct Decoded {
  bool ok = false;
  Bytes bytes{};
  ErrorCode code = ErrorCode::kInternal;
};

// All members, as zlib reads them; stops with an error where they end in the middle, or something
// else follows.
Decoded DecodeByZlib(std::span<const std::uint8_t> source) {
  Decoded decoded;
  z_stream stream{};
  EXPECT_EQ(inflateInit2(&stream, 15 + 16), Z_OK);
  stream.next_in = const_cast<std::uint8_t*>(source.data());
  stream.avail_in = static_cast<uInt>(source.size());
  Bytes piece(1 << 16);
  while (stream.avail_in != 0) {
    inflateReset(&stream);
    int status = Z_OK;
    while (status == Z_OK) {
      stream.next_out = piece.data();
      stream.avail_out = static_cast<uInt>(piece.size());
      status = inflate(&stream, Z_NO_FLUSH);
      decoded.bytes.insert(decoded.bytes.end(), piece.data(), stream.next_out);
    }
    decoded.ok = status == Z_STREAM_END;
    if (!decoded.ok) break;
  }
  inflateEnd(&stream);
  return decoded;
}

// `read_bytes`: what the source gives at a time; 0: the reader has all bytes at once.
Decoded DecodeByUs(std::span<const std::uint8_t> source, std::size_t read_bytes = 0) {
  const Bytes exact(source.begin(), source.end());  // so that a sanitizer sees what reads behind it
  std::size_t at = 0;
  const auto read = [&](std::span<std::uint8_t> target) -> Result<std::size_t> {
    const std::size_t part = std::min({target.size(), read_bytes, exact.size() - at});
    if (part != 0) std::memcpy(target.data(), exact.data() + at, part);
    at += part;
    return part;
  };
  BitReader input =
      read_bytes == 0 ? BitReader(std::span<const std::uint8_t>(exact)) : BitReader(read);
  gzip::Reader reader;
  Decoded decoded;
  while (!input.AtEnd()) {
    auto member = reader.ReadMember(input, [&](std::span<const std::uint8_t> part) {
      decoded.bytes.insert(decoded.bytes.end(), part.begin(), part.end());
      return Ok();
    });
    decoded.ok = member.ok();
    if (!member.ok()) {
      decoded.code = member.error().code;
      break;
    }
  }
  return decoded;
}

Bytes EncodeByUs(Encoder& encoder, const Bytes& content) {
  const Bytes source(content.begin(), content.end());
  Bytes target(gzip::MemberBound(source.size()) + 64, kDeflateCanary);
  const std::size_t bytes = gzip::EncodeMember(encoder, source, target.data());
  EXPECT_TRUE(source == content) << "changed its source";
  for (std::size_t i = gzip::MemberBound(source.size()); i < target.size(); ++i) {
    EXPECT_EQ(target[i], kDeflateCanary) << "wrote behind its bound, source of " << source.size();
  }
  target.resize(bytes);
  return target;
}

Bytes EncodeByZlib(const Bytes& source, int level, int strategy, int window_bits = 15,
                   int memory_level = 8) {
  z_stream stream{};
  EXPECT_EQ(deflateInit2(&stream, level, Z_DEFLATED, window_bits + 16, memory_level, strategy),
            Z_OK);
  Bytes target(deflateBound(&stream, static_cast<uLong>(source.size())) + 64);
  stream.next_in = const_cast<std::uint8_t*>(source.data());
  stream.avail_in = static_cast<uInt>(source.size());
  stream.next_out = target.data();
  stream.avail_out = static_cast<uInt>(target.size());
  EXPECT_EQ(::deflate(&stream, Z_FINISH), Z_STREAM_END);
  target.resize(stream.total_out);
  deflateEnd(&stream);
  return target;
}

void ExpectBothRead(const Bytes& encoded, const Bytes& content) {
  const Decoded by_zlib = DecodeByZlib(encoded);
  ASSERT_TRUE(by_zlib.ok) << content.size();
  ASSERT_TRUE(by_zlib.bytes == content) << content.size();
  const Decoded by_us = DecodeByUs(encoded);
  ASSERT_TRUE(by_us.ok) << content.size();
  ASSERT_TRUE(by_us.bytes == content) << content.size();
}

TEST(DeflateTest, WhateverIsEncodedZlibReadsBack) {
  std::mt19937_64 random(1);
  Encoder encoder;
  for (std::size_t bytes = 0; bytes < 300; ++bytes) {
    const Bytes content = DeflateMixture(random, bytes);
    ExpectBothRead(EncodeByUs(encoder, content), content);
  }
  for (int round = 0; round < 120 / kLess; ++round) {
    const Bytes content = DeflateMixture(random, random() % (1u << (10 + round % 10)));
    ExpectBothRead(EncodeByUs(encoder, content), content);
  }
}

TEST(DeflateTest, ContentOfOneKindIsReadBack) {
  std::mt19937_64 random(2);
  Encoder encoder;
  for (const std::size_t bytes :
       {4096ul, 65535ul, 65536ul, 65537ul, 131073ul, 262144ul, 1ul << 20}) {
    Bytes noise(bytes), words(bytes), steps(bytes), fours(bytes);
    for (std::size_t i = 0; i < bytes; ++i) {
      noise[i] = static_cast<std::uint8_t>(random());
      words[i] = static_cast<std::uint8_t>(random() % 3);
      steps[i] = static_cast<std::uint8_t>(i >> 8);
      // Matches of four bytes only, as many as there can be: blocks end by their number.
      fours[i] = static_cast<std::uint8_t>((random() % 16) * (i % 4 == 0 ? 1 : 0));
    }
    for (const Bytes& content : {Bytes(bytes, 0), Bytes(bytes, 7), noise, words, steps, fours}) {
      ExpectBothRead(EncodeByUs(encoder, content), content);
    }
    EXPECT_LE(EncodeByUs(encoder, noise).size(), bytes + 18 + 10 * (bytes / 65535 + 1));
    EXPECT_LE(EncodeByUs(encoder, Bytes(bytes, 0)).size(), bytes / 800 + 64);
  }
}

TEST(DeflateTest, WhatWasEncodedBeforeDoesNotMatter) {
  std::mt19937_64 random(3);
  Encoder used;
  for (int round = 0; round < 20; ++round) {
    const Bytes content = DeflateMixture(random, 50000);
    Encoder fresh;
    EXPECT_TRUE(EncodeByUs(used, content) == EncodeByUs(fresh, content));
  }
}

TEST(DeflateTest, WhateverZlibWritesIsReadBack) {
  std::mt19937_64 random(4);
  for (const int strategy : {Z_DEFAULT_STRATEGY, Z_FILTERED, Z_HUFFMAN_ONLY, Z_RLE, Z_FIXED}) {
    for (int level = 0; level <= 9; level += kLess == 1 ? 1 : 3) {
      for (const std::size_t bytes : {0ul, 1ul, 100ul, 5000ul, 100000ul, 400000ul}) {
        const Bytes content = DeflateMixture(random, bytes);
        const Bytes encoded =
            EncodeByZlib(content, level, strategy, 9 + static_cast<int>(random() % 7),
                         1 + static_cast<int>(random() % 9));
        const Decoded decoded = DecodeByUs(encoded);
        ASSERT_TRUE(decoded.ok) << strategy << " " << level << " " << bytes;
        ASSERT_TRUE(decoded.bytes == content) << strategy << " " << level << " " << bytes;
      }
    }
  }
}

TEST(DeflateTest, ItDoesNotMatterHowTheInputArrives) {
  std::mt19937_64 random(5);
  Encoder encoder;
  const Bytes first = DeflateMixture(random, 70000);
  const Bytes second = DeflateMixture(random, 3000);
  Bytes encoded = EncodeByUs(encoder, first);
  for (const Bytes& more : {EncodeByZlib(second, 0, Z_DEFAULT_STRATEGY), EncodeByUs(encoder, {}),
                            EncodeByZlib(second, 6, Z_DEFAULT_STRATEGY)}) {
    encoded.insert(encoded.end(), more.begin(), more.end());
  }
  Bytes content = first;
  content.insert(content.end(), second.begin(), second.end());
  content.insert(content.end(), second.begin(), second.end());
  for (const std::size_t read_bytes : {0ul, 1ul, 2ul, 7ul, 8ul, 9ul, 1000ul}) {
    const Decoded decoded = DecodeByUs(encoded, read_bytes);
    EXPECT_TRUE(decoded.ok) << read_bytes;
    EXPECT_TRUE(decoded.bytes == content) << read_bytes;
  }
}

TEST(DeflateTest, DamageIsRefusedWhereZlibRefusesIt) {
  std::mt19937_64 random(6);
  Encoder encoder;
  for (int round = 0; round < 8000 / kLess; ++round) {
    const Bytes content = DeflateMixture(random, random() % 3000);
    Bytes encoded = random() % 2 == 0 ? EncodeByUs(encoder, content)
                                      : EncodeByZlib(content, static_cast<int>(random() % 10),
                                                     static_cast<int>(random() % 5));
    // The header stays: there zlib reads fields of which nothing comes here.
    const std::uint64_t kind = random() % 3;
    if (kind == 0) encoded.resize(10 + random() % (encoded.size() - 10));
    if (kind == 1) encoded.push_back(static_cast<std::uint8_t>(random()));
    if (kind != 0) {
      for (std::uint64_t flips = 1 + random() % 3; flips > 0; --flips) {
        encoded[10 + random() % (encoded.size() - 10)] ^=
            static_cast<std::uint8_t>(1u << (random() % 8));
      }
    }
    const Decoded by_zlib = DecodeByZlib(encoded);
    const Decoded by_us = DecodeByUs(encoded, random() % 2 == 0 ? 0 : 1 + random() % 64);
    ASSERT_EQ(by_us.ok, by_zlib.ok) << round;
    if (by_us.ok) {
      ASSERT_TRUE(by_us.bytes == by_zlib.bytes) << round;
    }
  }
}

TEST(DeflateTest, RandomBlocksAreReadOrRefusedAsZlibDoes) {
  std::mt19937_64 random(7);
  for (int round = 0; round < 16000 / kLess; ++round) {
    Bytes encoded{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3};
    const std::size_t bytes = 1 + random() % 200;
    for (std::size_t i = 0; i < bytes; ++i) encoded.push_back(static_cast<std::uint8_t>(random()));
    // Mostly the first block is one of dynamic codes with few of them: the others seldom live long.
    if (round % 4 != 0)
      encoded[10] = static_cast<std::uint8_t>((encoded[10] & 0xf8) | 4 | (random() & 1));
    const Decoded by_zlib = DecodeByZlib(encoded);
    const Decoded by_us = DecodeByUs(encoded);
    ASSERT_EQ(by_us.ok, by_zlib.ok) << round;
    // What was decoded before the error: zlib hands over what it has, we do so in large pieces.
    if (by_us.ok) {
      ASSERT_TRUE(by_us.bytes == by_zlib.bytes) << round;
    }
  }
}

TEST(DeflateTest, EveryTruncationIsTruncation) {
  std::mt19937_64 random(8);
  Encoder encoder;
  const Bytes encoded = EncodeByUs(encoder, DeflateMixture(random, 2000));
  for (std::size_t bytes = 2; bytes < encoded.size(); ++bytes) {
    const Decoded decoded = DecodeByUs({encoded.data(), bytes});
    EXPECT_FALSE(decoded.ok) << bytes;
    EXPECT_EQ(decoded.code, ErrorCode::kTruncated) << bytes;
  }
}

TEST(DeflateTest, TheCrcThatZlibPutsBehindAHeaderIsChecked) {
  std::string extra(700, 'e');
  std::string name = "name";
  std::string comment = "comment";
  gz_header header{};
  header.hcrc = 1;
  header.time = 0x12345678;
  header.extra = reinterpret_cast<Bytef*>(extra.data());
  header.extra_len = static_cast<uInt>(extra.size());
  header.name = reinterpret_cast<Bytef*>(name.data());
  header.comment = reinterpret_cast<Bytef*>(comment.data());
  Bytes content(1000, 7);
  Bytes encoded(4096);
  z_stream stream{};
  ASSERT_EQ(deflateInit2(&stream, 1, Z_DEFLATED, 31, 8, Z_DEFAULT_STRATEGY), Z_OK);
  ASSERT_EQ(deflateSetHeader(&stream, &header), Z_OK);
  stream.next_in = content.data();
  stream.avail_in = static_cast<uInt>(content.size());
  stream.next_out = encoded.data();
  stream.avail_out = static_cast<uInt>(encoded.size());
  ASSERT_EQ(::deflate(&stream, Z_FINISH), Z_STREAM_END);
  encoded.resize(stream.total_out);
  deflateEnd(&stream);
  EXPECT_TRUE(DecodeByUs(encoded).bytes == content);
  const std::size_t header_bytes = 10 + 2 + extra.size() + name.size() + 1 + comment.size() + 1 + 2;
  for (std::size_t byte = 4; byte < header_bytes; ++byte) {
    Bytes damaged = encoded;
    damaged[byte] ^= 0x10;
    EXPECT_FALSE(DecodeByUs(damaged).ok) << byte;
    EXPECT_FALSE(DecodeByZlib(damaged).ok) << byte;
  }
}

TEST(DeflateTest, HeadersWithNamesAreReadAndHeadersOfNothingAreNot) {
  std::mt19937_64 random(9);
  Encoder encoder;
  const Bytes content = DeflateMixture(random, 100);
  const Bytes encoded = EncodeByUs(encoder, content);
  const auto with_header = [&](std::uint8_t flags, const std::string& extra) {
    Bytes bytes(encoded.begin(), encoded.begin() + 10);
    bytes[3] = flags;
    bytes.insert(bytes.end(), extra.begin(), extra.end());
    bytes.insert(bytes.end(), encoded.begin() + 10, encoded.end());
    return DecodeByUs(bytes);
  };
  using std::string_literals::operator""s;
  EXPECT_TRUE(with_header(8, "name\0"s).ok);
  EXPECT_TRUE(with_header(4 | 8 | 16, "\3\0abcname\0comment\0"s).ok);
  EXPECT_EQ(with_header(2, "xx").code, ErrorCode::kDigest);
  EXPECT_EQ(with_header(0x20, "").code, ErrorCode::kFormat);
  EXPECT_EQ(with_header(8, std::string(100000, 'n')).code, ErrorCode::kLimit);
  Bytes other = encoded;
  other[0] = 0x50;
  EXPECT_EQ(DecodeByUs(other).code, ErrorCode::kFormat);
  other = encoded;
  other[2] = 7;
  EXPECT_EQ(DecodeByUs(other).code, ErrorCode::kFormat);
  other = encoded;
  other[other.size() - 8] ^= 1;
  EXPECT_EQ(DecodeByUs(other).code, ErrorCode::kDigest);
  other = encoded;
  other[other.size() - 1] ^= 1;
  EXPECT_EQ(DecodeByUs(other).code, ErrorCode::kDigest);
}

TEST(DeflateTest, AnErrorOfTheSinkEndsTheDecoding) {
  Encoder encoder;
  const Bytes encoded = EncodeByUs(encoder, Bytes(1 << 20, 1));
  BitReader input{std::span<const std::uint8_t>(encoded)};
  gzip::Reader reader;
  std::size_t taken = 0;
  auto member = reader.ReadMember(input, [&](std::span<const std::uint8_t> part) -> Status {
    taken += part.size();
    return Error{.code = ErrorCode::kLimit, .message = "enough"};
  });
  ASSERT_FALSE(member.ok());
  EXPECT_EQ(member.error().code, ErrorCode::kLimit);
  EXPECT_LT(taken, 200000u);
}

TEST(Crc32Test, IsZlibsWhateverTheLengthAndTheCuts) {
  std::mt19937_64 random(10);
  const Bytes bytes = DeflateMixture(random, 5000);
  for (std::size_t count = 0; count < 700; ++count) {
    const std::size_t start = random() % 64;
    const std::span<const std::uint8_t> part(bytes.data() + start, count);
    const auto wanted = static_cast<std::uint32_t>(crc32(0, part.data(), static_cast<uInt>(count)));
    EXPECT_EQ(Crc32(0, part), wanted) << count;
    EXPECT_EQ(Crc32Portable(0, part), wanted) << count;
    const std::size_t cut = count == 0 ? 0 : random() % count;
    EXPECT_EQ(Crc32(Crc32(0, part.first(cut)), part.subspan(cut)), wanted) << count;
  }
}

TEST(HuffmanTest, CodesAreCompleteAndNoLongerThanAllowed) {
  std::mt19937_64 random(11);
  for (int round = 0; round < 2000 / kLess; ++round) {
    const bool small = round % 2 == 0;
    const unsigned bits_max = small ? 7 : 15;
    std::vector<std::uint32_t> counts(small ? 19 : 286);
    // Fibonacci-like counts make the longest codes.
    std::uint32_t before = 1, next = 1;
    for (std::uint32_t& count : counts) {
      const std::uint64_t kind = static_cast<std::uint64_t>(round) % 3;
      count = kind == 0 ? next : static_cast<std::uint32_t>(random() % (kind == 1 ? 5 : 100000));
      before = std::exchange(next, std::min(before + next, 1u << 22));
    }
    std::vector<std::uint8_t> lengths(counts.size());
    MakeCodeLengths(counts, bits_max, lengths);
    double sum = 0;
    for (std::size_t i = 0; i < lengths.size(); ++i) {
      ASSERT_LE(lengths[i], bits_max);
      if (counts[i] != 0) {
        ASSERT_GT(lengths[i], 0);
      }
      if (lengths[i] != 0) sum += 1.0 / static_cast<double>(1u << lengths[i]);
    }
    ASSERT_EQ(sum, 1.0) << round;
  }
}

}  // namespace
}  // namespace chkpt::deflate

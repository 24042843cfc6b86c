// Whatever EncodeLz4 writes, liblz4 reads back; and it writes nothing outside its bound.
#include "core/codec/lz4_encoder.h"

#include <gtest/gtest.h>
#include <lz4.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "core/codec/lz4_block.h"

namespace chkpt {
namespace {

using Bytes = std::vector<std::uint8_t>;

constexpr std::uint8_t kCanary = 0xC5;
constexpr std::size_t kCanaryBytes = 64;

struct Encoded {
  std::size_t bytes;  // 0: not smaller
  std::size_t source_bytes;
};

// Source and target have exact sizes, so that a sanitizer sees what reads or writes beyond them.
Encoded RoundTrip(const Bytes& content, int acceleration = 1) {
  const Bytes source(content.begin(), content.end());
  Bytes target(Lz4Bound(source.size()) + kCanaryBytes, kCanary);
  const std::size_t bytes = EncodeLz4(source, acceleration, target.data());
  for (std::size_t i = Lz4Bound(source.size()); i < target.size(); ++i) {
    EXPECT_EQ(target[i], kCanary) << "wrote behind its bound, source of " << source.size();
  }
  EXPECT_TRUE(source == content) << "changed its source";
  if (bytes != 0) {
    EXPECT_LT(bytes, source.size());
    Bytes decoded(source.size(), 1);
    EXPECT_TRUE(DecodeLz4({target.data(), bytes}, decoded)) << "source of " << source.size();
    EXPECT_TRUE(decoded == source) << "source of " << source.size();
  }
  return {bytes, source.size()};
}

// Words from a small set, runs and random bytes: matches of all lengths at all distances.
Bytes Mixture(std::mt19937_64& random, std::size_t count) {
  Bytes bytes(count);
  std::size_t at = 0;
  while (at < count) {
    const std::size_t run =
        std::min<std::size_t>(1 + random() % (1u << (random() % 11)), count - at);
    const std::uint64_t kind = random() % 4;
    const auto value = static_cast<std::uint8_t>(random());
    const std::size_t back = at == 0 ? 0 : 1 + random() % at;
    for (std::size_t i = 0; i < run; ++i, ++at) {
      if (kind == 0)
        bytes[at] = value;
      else if (kind == 1)
        bytes[at] = static_cast<std::uint8_t>(random());
      else if (back != 0)
        bytes[at] = bytes[at - back];
    }
  }
  return bytes;
}

TEST(Lz4EncoderTest, EverySizeOfCompressibleBytes) {
  std::mt19937_64 random(1);
  for (std::size_t size = 0; size <= 600; ++size) {
    RoundTrip(Bytes(size, 0));
    RoundTrip(Mixture(random, size));
  }
}

TEST(Lz4EncoderTest, BlocksOfEveryPageCount) {
  std::mt19937_64 random(2);
  for (std::size_t pages = 1; pages <= kBlockPages; ++pages) {
    for (int i = 0; i < 40; ++i) RoundTrip(Mixture(random, pages * kPageBytes), 1 + i % 3 * 7);
  }
}

TEST(Lz4EncoderTest, LargestMatchAndLargestDistance) {
  // One match of nearly the whole block.
  const Encoded zeros = RoundTrip(Bytes(kBlockBytes, 0));
  EXPECT_GT(zeros.bytes, 0u);
  EXPECT_LT(zeros.bytes, kBlockBytes / 200);
  // A match whose distance is as far as a block goes: 6 bytes from its front, at its very end.
  std::mt19937_64 random(3);
  Bytes far(kBlockBytes);
  for (std::uint8_t& byte : far) byte = static_cast<std::uint8_t>(random());
  for (std::size_t gap = 40; gap <= 120; ++gap) {
    Bytes copy = far;
    std::copy_n(copy.begin() + 1, 32, copy.end() - static_cast<std::ptrdiff_t>(gap));
    RoundTrip(copy);
  }
}

TEST(Lz4EncoderTest, RandomBytesAreNotSmallerAndStayInBound) {
  std::mt19937_64 random(4);
  for (std::size_t size : {1u, 15u, 16u, 96u, 97u, 255u, 270u, 4096u, 65536u}) {
    Bytes bytes(size);
    for (std::uint8_t& byte : bytes) byte = static_cast<std::uint8_t>(random());
    for (int acceleration : {1, 8, 65537}) EXPECT_EQ(RoundTrip(bytes, acceleration).bytes, 0u);
  }
}

TEST(Lz4EncoderTest, SameBytesFromSameInput) {
  std::mt19937_64 random(5);
  const Bytes source = Mixture(random, kBlockBytes);
  Bytes first(Lz4Bound(source.size())), second(Lz4Bound(source.size()));
  const std::size_t bytes = EncodeLz4(source, 1, first.data());
  ASSERT_EQ(EncodeLz4(source, 1, second.data()), bytes);
  EXPECT_EQ(std::memcmp(first.data(), second.data(), bytes), 0);
}

// Not a time: an encoder that finds no matches would pass everything above.
TEST(Lz4EncoderTest, NearlyAsSmallAsLiblz4OnGuestLikePages) {
  std::mt19937_64 random(6);
  std::size_t ours = 0;
  std::size_t theirs = 0;
  Bytes target(static_cast<std::size_t>(LZ4_compressBound(kBlockBytes)));
  for (int i = 0; i < 200; ++i) {
    const Bytes source = Mixture(random, kBlockBytes);
    ours += RoundTrip(source).bytes;
    theirs += static_cast<std::size_t>(LZ4_compress_default(
        reinterpret_cast<const char*>(source.data()), reinterpret_cast<char*>(target.data()),
        static_cast<int>(source.size()), static_cast<int>(target.size())));
  }
  EXPECT_LT(static_cast<double>(ours), 1.10 * static_cast<double>(theirs));
}

}  // namespace
}  // namespace chkpt

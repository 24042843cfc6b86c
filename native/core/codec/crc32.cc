#include "core/codec/crc32.h"

#include <array>
#include <cstddef>

#include "core/base/bytes.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace chkpt {
namespace {

constexpr std::uint32_t kPolynomial = 0xedb88320;  // bits reversed
constexpr std::size_t kStride = 8;

using Tables = std::array<std::array<std::uint32_t, 256>, kStride>;

// Row r: what a byte adds to the remainder when r bytes follow it in the same step.
constexpr Tables MakeTables() {
  Tables tables{};
  for (std::uint32_t byte = 0; byte < 256; ++byte) {
    std::uint32_t rest = byte;
    for (int bit = 0; bit < 8; ++bit) rest = (rest >> 1) ^ ((rest & 1) != 0 ? kPolynomial : 0);
    tables[0][byte] = rest;
  }
  for (std::size_t row = 1; row < kStride; ++row) {
    for (std::size_t byte = 0; byte < 256; ++byte) {
      const std::uint32_t before = tables[row - 1][byte];
      tables[row][byte] = (before >> 8) ^ tables[0][before & 0xff];
    }
  }
  return tables;
}

constexpr Tables kTables = MakeTables();

// `rest` is the remainder with its bits inverted, as the algorithm carries it.
std::uint32_t Advance(std::uint32_t rest, const std::uint8_t* bytes, std::size_t count) {
  for (; count >= kStride; bytes += kStride, count -= kStride) {
    const std::uint64_t word = Load<std::uint64_t>(bytes) ^ rest;
    rest = 0;
    for (std::size_t i = 0; i < kStride; ++i) {
      rest ^= kTables[kStride - 1 - i][(word >> (8 * i)) & 0xff];
    }
  }
  for (; count != 0; ++bytes, --count) rest = (rest >> 8) ^ kTables[0][(rest ^ *bytes) & 0xff];
  return rest;
}

#if defined(__x86_64__)

// Remainders of x^n, as Intel's "Fast CRC Computation for Generic Polynomials Using PCLMULQDQ"
// names them, for the reversed polynomial: n is how far a 128-bit lane is moved.
constexpr std::uint64_t kBy544 = 0x154442bd4, kBy480 = 0x1c6e41596;  // 4 lanes
constexpr std::uint64_t kBy160 = 0x1751997d0, kBy96 = 0x0ccaa009e;   // 1 lane

__attribute__((target("pclmul,sse4.1"))) __m128i Fold(__m128i lane, __m128i factors, __m128i next) {
  const __m128i low = _mm_clmulepi64_si128(lane, factors, 0x00);
  const __m128i high = _mm_clmulepi64_si128(lane, factors, 0x11);
  return _mm_xor_si128(_mm_xor_si128(low, high), next);
}

// Folds everything into 16 bytes that leave the same remainder; those the tables finish.
__attribute__((target("pclmul,sse4.1"))) std::uint32_t AdvanceFolded(std::uint32_t rest,
                                                                     const std::uint8_t* bytes,
                                                                     std::size_t count) {
  const auto load = [](const std::uint8_t* at) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(at));
  };
  __m128i lanes[4] = {load(bytes), load(bytes + 16), load(bytes + 32), load(bytes + 48)};
  lanes[0] = _mm_xor_si128(lanes[0], _mm_cvtsi32_si128(static_cast<int>(rest)));
  bytes += 64;
  count -= 64;
  const __m128i by_four =
      _mm_set_epi64x(static_cast<long long>(kBy480), static_cast<long long>(kBy544));
  for (; count >= 64; bytes += 64, count -= 64) {
    for (std::size_t i = 0; i < 4; ++i) lanes[i] = Fold(lanes[i], by_four, load(bytes + 16 * i));
  }
  const __m128i by_one =
      _mm_set_epi64x(static_cast<long long>(kBy96), static_cast<long long>(kBy160));
  __m128i sum = lanes[0];
  for (std::size_t i = 1; i < 4; ++i) sum = Fold(sum, by_one, lanes[i]);
  for (; count >= 16; bytes += 16, count -= 16) sum = Fold(sum, by_one, load(bytes));
  alignas(16) std::uint8_t folded[16];
  _mm_store_si128(reinterpret_cast<__m128i*>(folded), sum);
  return Advance(Advance(0, folded, sizeof folded), bytes, count);
}

bool HasCarrylessMultiply() {
  static const bool has =
      __builtin_cpu_supports("pclmul") != 0 && __builtin_cpu_supports("sse4.1") != 0;
  return has;
}

#endif

}  // namespace

std::uint32_t Crc32Portable(std::uint32_t crc, std::span<const std::uint8_t> bytes) {
  return ~Advance(~crc, bytes.data(), bytes.size());
}

std::uint32_t Crc32(std::uint32_t crc, std::span<const std::uint8_t> bytes) {
#if defined(__x86_64__)
  if (bytes.size() >= 64 && HasCarrylessMultiply()) {
    return ~AdvanceFolded(~crc, bytes.data(), bytes.size());
  }
#endif
  return Crc32Portable(crc, bytes);
}

}  // namespace chkpt

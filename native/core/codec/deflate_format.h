// Numbers of DEFLATE (RFC 1951) and gzip (RFC 1952) that encoder and decoder share.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace chkpt::deflate {

inline constexpr std::size_t kWindowBytes = 32768;
inline constexpr unsigned kMatchBytesMax = 258;
inline constexpr unsigned kCodeBitsMax = 15;
inline constexpr unsigned kCodeLengthBitsMax = 7;
inline constexpr unsigned kLiteralSymbols = 288;  // 286 and 287 never occur
inline constexpr unsigned kDistanceSymbols = 32;  // 30 and 31 never occur
inline constexpr unsigned kCodeLengthSymbols = 19;
inline constexpr unsigned kEndOfBlock = 256;
inline constexpr unsigned kFirstLength = 257;
inline constexpr unsigned kLengthCodes = 29;
inline constexpr unsigned kDistanceCodes = 30;
inline constexpr std::size_t kStoredBytesMax = 65535;

enum BlockType : unsigned { kStored = 0, kFixed = 1, kDynamic = 2 };

inline constexpr std::array<std::uint16_t, kLengthCodes> kLengthBase{
    3,  4,  5,  6,  7,  8,  9,  10, 11,  13,  15,  17,  19,  23, 27,
    31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258};
inline constexpr std::array<std::uint8_t, kLengthCodes> kLengthExtra{
    0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0};
inline constexpr std::array<std::uint16_t, kDistanceCodes> kDistanceBase{
    1,   2,   3,   4,   5,   7,    9,    13,   17,   25,   33,   49,   65,    97,    129,
    193, 257, 385, 513, 769, 1025, 1537, 2049, 3073, 4097, 6145, 8193, 12289, 16385, 24577};
inline constexpr std::array<std::uint8_t, kDistanceCodes> kDistanceExtra{
    0, 0, 0, 0, 1, 1, 2, 2,  3,  3,  4,  4,  5,  5,  6,
    6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13};
// The order in which a dynamic block gives the lengths of the code of its code lengths.
inline constexpr std::array<std::uint8_t, kCodeLengthSymbols> kCodeLengthOrder{
    16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15};

// Bits of the code of each literal and length in a fixed block.
constexpr unsigned FixedLiteralBits(unsigned symbol) {
  if (symbol < 144) return 8;
  if (symbol < 256) return 9;
  return symbol < 280 ? 7 : 8;
}
inline constexpr unsigned kFixedDistanceBits = 5;

}  // namespace chkpt::deflate

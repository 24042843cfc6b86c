// Prefix codes of DEFLATE for an encoder: lengths from frequencies, codes from lengths.
#pragma once

#include <cstdint>
#include <span>

namespace chkpt::deflate {

// Lengths of a complete code, none longer than `bits_max`, 0 for what does not occur; close to the
// best. When only one symbol occurs, or none, codes of one bit are made for two, so that every
// decoder accepts the code. REQUIRES: as many lengths as counts, 2 to 288, and bits_max 7 to 15;
// with 7, at most 19 of them. The sum of the counts fits 32 bits.
void MakeCodeLengths(std::span<const std::uint32_t> counts, unsigned bits_max,
                     std::span<std::uint8_t> lengths);

// The code of each symbol with its bits in the order in which they are written: first bit lowest.
void MakeCodes(std::span<const std::uint8_t> lengths, std::span<std::uint16_t> codes);

}  // namespace chkpt::deflate

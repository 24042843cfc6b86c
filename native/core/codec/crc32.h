// CRC-32 of gzip (RFC 1952, section 8).
#pragma once

#include <cstdint>
#include <span>

namespace chkpt {

// Goes on from `crc`, which is 0 for the first bytes. The fastest way that this CPU has.
std::uint32_t Crc32(std::uint32_t crc, std::span<const std::uint8_t> bytes);

// Without instructions that not every CPU has: the oracle of the other.
std::uint32_t Crc32Portable(std::uint32_t crc, std::span<const std::uint8_t> bytes);

}  // namespace chkpt

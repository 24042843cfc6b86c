// Decoding of LZ4 raw blocks (lz4_Block_format.md) by liblz4.
#pragma once

#include <cstdint>
#include <span>

namespace chkpt {

// True when `encoded` is one valid block that decodes to exactly `target.size()` bytes. Never
// writes outside target.
bool DecodeLz4(std::span<const std::uint8_t> encoded, std::span<std::uint8_t> target);

// True when `encoded` begins with target.size() bytes that decode; what follows them is not looked
// at. Never writes outside target.
bool DecodeLz4Front(std::span<const std::uint8_t> encoded, std::span<std::uint8_t> target);

// LZ4_versionNumber(): 11000 for the bundled sources.
int Lz4VersionNumber();

}  // namespace chkpt

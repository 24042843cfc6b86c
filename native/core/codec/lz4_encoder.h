// An encoder of LZ4 blocks (lz4_Block_format.md) made for pages of memory. Any LZ4 decoder reads
// what it writes. docs/decisions/0006-lz4-encoder.md has the alternatives and what they cost.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "core/base/units.h"

namespace chkpt {

// Most bytes EncodeLz4 touches behind `target`.
constexpr std::size_t Lz4Bound(std::size_t source_bytes) {
  return source_bytes + source_bytes / 255 + 16;
}

// Compresses a private copy, never live guest memory: bytes that change under it would give a block
// that decodes to neither version. acceleration >= 1, as in LZ4_compress_fast: greater is faster
// and larger.
//
// Returns the encoded bytes, or 0 when the result is not smaller than the source: the caller then
// stores the bytes raw. REQUIRES: source has at most kBlockBytes, target has
// Lz4Bound(source.size()) bytes. Uses 16 KiB of stack.
std::size_t EncodeLz4(std::span<const std::uint8_t> source, int acceleration, std::uint8_t* target);

}  // namespace chkpt

#include "core/codec/lz4_block.h"

#include <lz4.h>

#include "core/base/check.h"

namespace chkpt {

Lz4Encoder::Lz4Encoder(int acceleration)
    : acceleration_(acceleration),
      state_(std::make_unique<std::uint64_t[]>((static_cast<std::size_t>(LZ4_sizeofState()) + 7) /
                                               8)) {
  CHKPT_CHECK(acceleration >= 1);
}

Lz4Encoder::~Lz4Encoder() = default;

std::size_t Lz4Encoder::Bound(std::size_t source_bytes) {
  return static_cast<std::size_t>(LZ4_compressBound(static_cast<int>(source_bytes)));
}

std::size_t Lz4Encoder::Encode(std::span<const std::uint8_t> source, std::uint8_t* target) {
  // With room for the bound LZ4 takes its variant without output checks, which is faster.
  const int encoded = LZ4_compress_fast_extState(
      state_.get(), reinterpret_cast<const char*>(source.data()), reinterpret_cast<char*>(target),
      static_cast<int>(source.size()), static_cast<int>(Bound(source.size())), acceleration_);
  CHKPT_CHECK(encoded > 0);
  const auto encoded_bytes = static_cast<std::size_t>(encoded);
  return encoded_bytes < source.size() ? encoded_bytes : 0;
}

bool DecodeLz4(std::span<const std::uint8_t> encoded, std::span<std::uint8_t> target) {
  const int decoded = LZ4_decompress_safe(
      reinterpret_cast<const char*>(encoded.data()), reinterpret_cast<char*>(target.data()),
      static_cast<int>(encoded.size()), static_cast<int>(target.size()));
  return decoded >= 0 && static_cast<std::size_t>(decoded) == target.size();
}

int Lz4VersionNumber() { return LZ4_versionNumber(); }

}  // namespace chkpt

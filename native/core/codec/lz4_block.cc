#include "core/codec/lz4_block.h"

#include <lz4.h>

namespace chkpt {

bool DecodeLz4(std::span<const std::uint8_t> encoded, std::span<std::uint8_t> target) {
  const int decoded = LZ4_decompress_safe(
      reinterpret_cast<const char*>(encoded.data()), reinterpret_cast<char*>(target.data()),
      static_cast<int>(encoded.size()), static_cast<int>(target.size()));
  return decoded >= 0 && static_cast<std::size_t>(decoded) == target.size();
}

bool DecodeLz4Front(std::span<const std::uint8_t> encoded, std::span<std::uint8_t> target) {
  const int bytes = static_cast<int>(target.size());
  return LZ4_decompress_safe_partial(reinterpret_cast<const char*>(encoded.data()),
                                     reinterpret_cast<char*>(target.data()),
                                     static_cast<int>(encoded.size()), bytes, bytes) == bytes;
}

int Lz4VersionNumber() { return LZ4_versionNumber(); }

}  // namespace chkpt

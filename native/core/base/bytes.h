// Little-endian loads and stores at any alignment: everything in the format is little-endian.
#pragma once

#include <bit>
#include <concepts>
#include <cstdint>
#include <cstring>

namespace chkpt {

template <std::unsigned_integral T>
constexpr T LittleEndian(T value) {
  if constexpr (std::endian::native == std::endian::little || sizeof(T) == 1) {
    return value;
  } else {
    T swapped = 0;
    for (std::size_t i = 0; i < sizeof(T); ++i) {
      swapped = static_cast<T>((swapped << 8) | ((value >> (8 * i)) & 0xff));
    }
    return swapped;
  }
}

template <std::unsigned_integral T>
inline T Load(const std::uint8_t* source) {
  T value;
  std::memcpy(&value, source, sizeof value);
  return LittleEndian(value);
}

template <std::unsigned_integral T>
inline void Store(std::uint8_t* target, T value) {
  value = LittleEndian(value);
  std::memcpy(target, &value, sizeof value);
}

// Next multiple of 8. REQUIRES: no overflow.
constexpr std::uint64_t Pad8(std::uint64_t bytes) { return (bytes + 7) & ~std::uint64_t{7}; }

}  // namespace chkpt

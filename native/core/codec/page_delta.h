// The difference of two versions of a page: their bytes XORed. Where a page has changed little it
// is nearly all zeros, and LZ4 makes next to nothing of it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/base/bytes.h"
#include "core/base/units.h"

namespace chkpt {

inline constexpr std::size_t kPageWords = kPageBytes / 8;

// 8-byte words that are not the same in both, 0 to kPageWords. Nobody writes to the pages.
inline std::size_t ChangedWords(const std::uint8_t* left, const std::uint8_t* right) {
  std::size_t changed = 0;
  for (std::size_t i = 0; i < kPageBytes; i += 8) {
    changed += Load<std::uint64_t>(left + i) != Load<std::uint64_t>(right + i);
  }
  return changed;
}

// `target` becomes the difference of `page` and itself.
inline void XorPage(const std::uint8_t* page, std::uint8_t* target) {
  for (std::size_t i = 0; i < kPageBytes; i += 8) {
    Store<std::uint64_t>(target + i,
                         Load<std::uint64_t>(target + i) ^ Load<std::uint64_t>(page + i));
  }
}

// `page` becomes the difference of the two, and `base` what `page` was.
inline void ExchangeForDelta(std::uint8_t* base, std::uint8_t* page) {
  for (std::size_t i = 0; i < kPageBytes; i += 8) {
    const auto newer = Load<std::uint64_t>(page + i);
    Store<std::uint64_t>(page + i, newer ^ Load<std::uint64_t>(base + i));
    Store<std::uint64_t>(base + i, newer);
  }
}

}  // namespace chkpt

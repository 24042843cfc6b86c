// Where one generated page is written: a buffer that the last token of a page may run over.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/base/units.h"

namespace chkpt {

inline constexpr std::size_t kPageWords = kPageBytes / sizeof(std::uint64_t);
inline constexpr std::size_t kPageSlackBytes = 64;
inline constexpr std::size_t kPageBufferBytes = kPageBytes + kPageSlackBytes;

}  // namespace chkpt

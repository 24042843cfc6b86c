// Units of guest memory. Numbers match src/limits.ts and docs/format.md.
#pragma once

#include <cstddef>
#include <cstdint>

namespace chkpt {

inline constexpr std::size_t kPageBytes = 4096;
inline constexpr std::size_t kBlockPages = 16;
inline constexpr std::size_t kBlockBytes = kBlockPages * kPageBytes;
// A chunk is what one worker takes at a time: one huge page, so that one thread populates it.
inline constexpr std::size_t kChunkBlocks = 32;
inline constexpr std::size_t kChunkPages = kChunkBlocks * kBlockPages;
inline constexpr std::size_t kChunkBytes = kChunkPages * kPageBytes;
static_assert(kChunkBytes == 2u << 20);

inline constexpr std::size_t kGroupBlocks = 8192;
inline constexpr std::size_t kGroupPages = kGroupBlocks * kBlockPages;
static_assert(kGroupBlocks % kChunkBlocks == 0);

inline constexpr std::size_t kRegionCountMax = 256;
inline constexpr std::uint64_t kMemoryBytesMax = std::uint64_t{16} << 40;
inline constexpr std::uint64_t kAddressMax = std::uint64_t{1} << 52;

// Run of pages. Units: pages.
struct PageRun {
  std::uint64_t first = 0;
  std::uint64_t count = 0;
  std::uint64_t end() const { return first + count; }
  friend bool operator==(const PageRun&, const PageRun&) = default;
};

}  // namespace chkpt

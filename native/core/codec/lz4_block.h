// LZ4 raw blocks (lz4_Block_format.md), 64 KiB at most. One encoder per worker thread: it owns the
// 16 KiB hash table.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

namespace chkpt {

class Lz4Encoder {
 public:
  // acceleration >= 1, as LZ4_compress_fast: greater is faster and larger.
  explicit Lz4Encoder(int acceleration);
  ~Lz4Encoder();
  Lz4Encoder(const Lz4Encoder&) = delete;
  Lz4Encoder& operator=(const Lz4Encoder&) = delete;

  // Most bytes Encode writes for `source_bytes`.
  static std::size_t Bound(std::size_t source_bytes);

  // Compresses a private copy, never live guest memory. Returns the encoded bytes, or 0 when the
  // result is not smaller than the source: the caller then stores the bytes raw. REQUIRES: target
  // has Bound(source.size()) bytes.
  std::size_t Encode(std::span<const std::uint8_t> source, std::uint8_t* target);

 private:
  const int acceleration_;
  const std::unique_ptr<std::uint64_t[]> state_;
};

// True when `encoded` is one valid block that decodes to exactly `target.size()` bytes. Never
// writes outside target.
bool DecodeLz4(std::span<const std::uint8_t> encoded, std::span<std::uint8_t> target);

// LZ4_versionNumber(): 11000 for the bundled sources.
int Lz4VersionNumber();

}  // namespace chkpt

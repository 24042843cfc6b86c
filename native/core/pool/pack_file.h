// Packs: files of a pool that hold content of several checkpoints, docs/stores.md.
//
//   objects, one behind the other | per object: u64 u64 XXH3-128, u32 bytes, u32 0 | footer
//   footer: magic, u64 objects, u64 bytes of all objects, u64 XXH3 of the table and the 24 bytes
//   before
//
// A pack is written once and never changed. Its table is a hint: what it says of an object is
// compared with the bytes before anybody relies on it.
#pragma once

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "core/base/result.h"

namespace chkpt {

inline constexpr std::array<std::uint8_t, 8> kPackMagic = {0x8b, 'C',  'K',  'P',
                                                           '\r', '\n', 0x1a, '\n'};
inline constexpr std::size_t kPackEntryBytes = 24;
inline constexpr std::size_t kPackFooterBytes = 32;
// Objects below this stay with their checkpoint: the place of one takes 24 bytes, twice.
inline constexpr std::size_t kObjectBytesMin = 512;
inline constexpr std::uint64_t kPackFileBytesMax = std::uint64_t{1} << 30;

// XXH3-128 of an object. Finds candidates; equal digests prove nothing.
struct ObjectDigest {
  std::uint64_t low = 0;
  std::uint64_t high = 0;
  friend auto operator<=>(const ObjectDigest&, const ObjectDigest&) = default;
};
ObjectDigest DigestOf(std::span<const std::uint8_t> object);

struct PackObject {
  ObjectDigest digest;
  std::uint64_t offset = 0;
  std::uint32_t bytes = 0;
};

// `UUID.pack`.
bool IsPackName(std::string_view name);

// Table and footer behind `objects`, which stand one behind the other from offset 0 on.
std::vector<std::uint8_t> EncodePackEnd(std::span<const PackObject> objects);

// The table of a pack of `file_bytes` bytes with at most `count_max` objects. Errors: kFormat (also
// when there are more), kDigest, kIo.
Result<std::vector<PackObject>> ReadPackTable(int fd, std::uint64_t file_bytes,
                                              std::uint64_t count_max);

}  // namespace chkpt

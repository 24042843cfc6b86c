// The payload of a PAGE_BLOCK frame (docs/format.md section 6) and of a DELTA_BLOCK frame (section
// 14).
//
//   0     1        4             8         16       16 + pad8(E)
//   |codec| 0 0 0  | encoded E   | classes | data … | one u64 per fill, same or delta page
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "core/base/bytes.h"
#include "core/base/result.h"
#include "core/base/units.h"

namespace chkpt {

enum class BlockCodec : std::uint8_t { kRaw = 0, kLz4 = 1 };

// Class of a page in the format. The first three have the values of scan's PageClass.
enum class BlockPageClass : std::uint8_t {
  kZero = 0,
  kFill = 1,
  kStored = 2,
  kSame = 3,
  kParent = 4,
  kDelta = 5,
};

inline constexpr std::size_t kPageBlockHeadBytes = 16;
// Head, 16 raw pages, 16 words.
inline constexpr std::size_t kPageBlockPayloadBytesMax =
    kPageBlockHeadBytes + kBlockBytes + 8 * kBlockPages;

inline BlockPageClass ClassOf(std::uint64_t classes, std::size_t page) {
  return static_cast<BlockPageClass>((classes >> (4 * page)) & 0xf);
}

// Pages that have 4096 bytes of the decoded data.
constexpr bool HasBytes(BlockPageClass page_class) {
  return page_class == BlockPageClass::kStored || page_class == BlockPageClass::kDelta;
}

// Pages that have a word behind the data.
constexpr bool HasWord(BlockPageClass page_class) {
  return page_class == BlockPageClass::kFill || page_class == BlockPageClass::kSame ||
         page_class == BlockPageClass::kDelta;
}

inline void SetClass(std::uint64_t* classes, std::size_t page, BlockPageClass page_class) {
  *classes &= ~(std::uint64_t{0xf} << (4 * page));
  *classes |= std::uint64_t{static_cast<std::uint8_t>(page_class)} << (4 * page);
}

// `page_count` pages of one class.
inline std::uint64_t UniformClasses(BlockPageClass page_class, std::size_t page_count) {
  std::uint64_t classes = 0;
  for (std::size_t page = 0; page < page_count; ++page) SetClass(&classes, page, page_class);
  return classes;
}

struct PageBlockView {
  BlockCodec codec = BlockCodec::kRaw;
  std::uint64_t classes = 0;
  std::size_t stored_pages = 0;         // deltas among them
  std::span<const std::uint8_t> data;   // encoded bytes
  const std::uint8_t* words = nullptr;  // word i belongs to the i-th page that has one
  std::size_t word_count = 0;
};

// Parses a payload whose digest was checked. `first_page` is the number of its first page: a same
// page must name an earlier one. Every rule of the format is checked except what only decoding can
// tell. `has_parent`: pages may be left to a parent. `has_deltas`: it is the payload of a
// DELTA_BLOCK. Errors: kFormat.
Result<PageBlockView> ParsePageBlock(std::span<const std::uint8_t> payload,
                                     std::uint64_t first_page, std::size_t page_count,
                                     bool has_parent, bool has_deltas = false);

}  // namespace chkpt

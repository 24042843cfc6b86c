#include "core/codec/page_block.h"

namespace chkpt {
namespace {

Error BlockError(const char* message, std::uint64_t first_page) {
  return Error{.code = ErrorCode::kFormat, .message = message, .page = first_page};
}

struct ClassCounts {
  std::size_t zero = 0, stored = 0, words = 0, parent = 0, deltas = 0;
  bool valid = true;
};

ClassCounts CountClasses(std::uint64_t classes, std::size_t page_count, bool has_parent,
                         bool has_deltas) {
  ClassCounts counts;
  for (std::size_t page = 0; page < kBlockPages; ++page) {
    const BlockPageClass page_class = ClassOf(classes, page);
    if (page >= page_count) {
      counts.valid = counts.valid && page_class == BlockPageClass::kZero;
      continue;
    }
    switch (page_class) {
      case BlockPageClass::kZero: ++counts.zero; break;
      case BlockPageClass::kStored: ++counts.stored; break;
      case BlockPageClass::kFill:
      case BlockPageClass::kSame: ++counts.words; break;
      case BlockPageClass::kParent:
        ++counts.parent;
        counts.valid = counts.valid && has_parent;
        break;
      case BlockPageClass::kDelta:
        ++counts.stored;
        ++counts.words;
        ++counts.deltas;
        counts.valid = counts.valid && has_deltas;
        break;
      default: counts.valid = false;
    }
  }
  return counts;
}

bool IsZero(const std::uint8_t* bytes, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) {
    if (bytes[i] != 0) return false;
  }
  return true;
}

}  // namespace

Result<PageBlockView> ParsePageBlock(std::span<const std::uint8_t> payload,
                                     std::uint64_t first_page, std::size_t page_count,
                                     bool has_parent, bool has_deltas) {
  if (payload.size() < kPageBlockHeadBytes || payload.size() > kPageBlockPayloadBytesMax) {
    return BlockError("page block has an impossible length", first_page);
  }
  const std::uint8_t* head = payload.data();
  const std::uint8_t codec = head[0];
  const std::uint64_t encoded_bytes = Load<std::uint32_t>(head + 4);
  PageBlockView view;
  view.classes = Load<std::uint64_t>(head + 8);
  const ClassCounts counts = CountClasses(view.classes, page_count, has_parent, has_deltas);
  if (codec > 1 || !IsZero(head + 1, 3))
    return BlockError("page block has an unknown codec", first_page);
  if (!counts.valid) return BlockError("page block has an unknown page class", first_page);
  if (has_deltas && counts.deltas == 0) {
    return BlockError("delta block has no difference", first_page);
  }
  // Such a block is part of a run.
  if (!has_parent && counts.zero == page_count) {
    return BlockError("page block has only zero pages", first_page);
  }
  if (counts.parent == page_count) {
    return BlockError("page block has only pages of the parent", first_page);
  }

  const std::uint64_t stored_bytes = counts.stored * kPageBytes;
  const bool fits = codec == 0 ? encoded_bytes == stored_bytes
                               : encoded_bytes > 0 && encoded_bytes < stored_bytes;
  if (!fits) return BlockError("page block has impossible encoded bytes", first_page);
  if (payload.size() != kPageBlockHeadBytes + Pad8(encoded_bytes) + 8 * counts.words) {
    return BlockError("page block has another length than its classes say", first_page);
  }
  if (!IsZero(head + kPageBlockHeadBytes + encoded_bytes, Pad8(encoded_bytes) - encoded_bytes)) {
    return BlockError("page block padding is not zero", first_page);
  }
  view.codec = static_cast<BlockCodec>(codec);
  view.stored_pages = counts.stored;
  view.data = payload.subspan(kPageBlockHeadBytes, encoded_bytes);
  view.words = head + kPageBlockHeadBytes + Pad8(encoded_bytes);
  view.word_count = counts.words;
  std::size_t word = 0;
  for (std::size_t page = 0; page < page_count; ++page) {
    const BlockPageClass page_class = ClassOf(view.classes, page);
    if (page_class == BlockPageClass::kSame &&
        Load<std::uint64_t>(view.words + 8 * word) >= first_page + page) {
      return BlockError("page refers to a page that is not before it", first_page + page);
    }
    if (HasWord(page_class)) ++word;
  }
  return view;
}

}  // namespace chkpt

#include "core/lazy/block_decoder.h"

#include <cstring>

#include "core/codec/lz4_block.h"

namespace chkpt {
namespace {

constexpr std::size_t kSlots = 2;
constexpr std::size_t kAskingSlots = 16;

Error PageError(const char* message, std::uint64_t page) {
  return Error{.code = ErrorCode::kFormat, .message = message, .page = page};
}

void FillPage(std::uint8_t* target, std::uint64_t word) {
  for (std::size_t i = 0; i < kPageBytes; i += 8) Store<std::uint64_t>(target + i, word);
}

// Where page `page` of a block finds its stored bytes and its word.
struct Place {
  std::size_t slot = 0;
  std::size_t word = 0;
};

Place PlaceOf(std::uint64_t classes, std::size_t page) {
  Place place;
  for (std::size_t i = 0; i < page; ++i) {
    const BlockPageClass page_class = ClassOf(classes, i);
    if (page_class == BlockPageClass::kStored) ++place.slot;
    if (page_class == BlockPageClass::kFill || page_class == BlockPageClass::kSame) ++place.word;
  }
  return place;
}

// How many of the stored pages have to be decoded for those of `wanted`.
std::size_t StoredCount(std::uint64_t classes, std::uint32_t wanted) {
  std::size_t slot = 0;
  std::size_t count = 0;
  for (std::size_t page = 0; page < kBlockPages; ++page) {
    if (ClassOf(classes, page) != BlockPageClass::kStored) continue;
    ++slot;
    if ((wanted >> page & 1) != 0) count = slot;
  }
  return count;
}

// The first stored page when all of them are neighbours and none is `same`, else kBlockPages.
std::size_t OnlyRun(const PageBlockView& view) {
  std::size_t first = kBlockPages;
  std::size_t last = 0;
  for (std::size_t page = 0; page < kBlockPages; ++page) {
    const BlockPageClass page_class = ClassOf(view.classes, page);
    if (page_class == BlockPageClass::kSame) return kBlockPages;
    if (page_class != BlockPageClass::kStored) continue;
    if (first == kBlockPages) first = page;
    last = page;
  }
  return first != kBlockPages && last - first + 1 == view.stored_pages ? first : kBlockPages;
}

}  // namespace

BlockDecoder::BlockDecoder(std::span<const Layer> layers, const BlockLayout& layout,
                           const std::atomic<bool>& cancelled)
    : layers_(layers),
      layout_(layout),
      cancelled_(cancelled),
      slots_(layers.empty() || !layers[0].reader.asks() ? kSlots : kAskingSlots),
      known_content_(new std::uint8_t[kKnownPages * kPageBytes]) {}

bool BlockDecoder::IsZero(std::span<const Layer> layers, std::uint64_t block) {
  for (const Layer& layer : layers) {
    if (layer.map->Find(block)) return false;
  }
  return true;
}

Status BlockDecoder::Parse(std::size_t layer, std::uint64_t block, std::uint64_t offset,
                           const VerifiedFrame& frame, Parsed* parsed) {
  const PageRun pages = layout_.PagesOf(block);
  parsed->layer = ~std::size_t{0};
  const FrameHeader& header = frame.header;
  if (header.type != static_cast<std::uint32_t>(FrameType::kPageBlock) ||
      header.arg0 != pages.first || header.arg1 != pages.count) {
    return Error{.code = ErrorCode::kFormat,
                 .message = "the block index has another frame here",
                 .frame = frame.sequence,
                 .offset = offset,
                 .page = pages.first};
  }
  Result<PageBlockView> view =
      ParsePageBlock(frame.payload, pages.first, pages.count, layers_[layer].has_parent);
  if (!view.ok()) {
    Error error = std::move(view.error());
    error.frame = frame.sequence;
    error.offset = offset;
    return error;
  }
  parsed->view = view.value();
  parsed->note = {frame.sequence, frame.header_digest, header.frame_bytes()};
  parsed->layer = layer;
  parsed->block = block;
  parsed->decoded_pages = 0;
  return Ok();
}

Result<BlockDecoder::Parsed*> BlockDecoder::Fetch(std::size_t layer, std::uint64_t block,
                                                  std::uint64_t offset) {
  for (Parsed& slot : slots_) {
    if (slot.layer == layer && slot.block == block) return &slot;
  }
  if (cancelled_.load(std::memory_order_relaxed)) {
    return Error{.code = ErrorCode::kAborted, .message = "load cancelled"};
  }
  Parsed* slot = &slots_[victim_];
  victim_ = (victim_ + 1) % slots_.size();
  slot->layer = ~std::size_t{0};
  DirtyBitmap* const verified = layers_[layer].verified.get();
  bool is_known = verified != nullptr && verified->IsMarked(block);
  const bool was_known = is_known;
  Result<VerifiedFrame> frame = layers_[layer].reader.Read(offset, &slot->buffer, &is_known);
  if (!frame.ok()) {
    if (frame.error().page == kUnknown) frame.error().page = layout_.PagesOf(block).first;
    return frame.error();
  }
  if (is_known && !was_known && verified != nullptr) verified->MarkRun({block, 1});
  Status parsed = Parse(layer, block, offset, frame.value(), slot);
  if (!parsed.ok()) return parsed.error();
  return slot;
}

Result<const std::uint8_t*> BlockDecoder::Stored(Parsed* parsed, std::size_t count) {
  const PageBlockView& view = parsed->view;
  if (view.codec == BlockCodec::kRaw) return view.data.data();
  if (parsed->decoded_pages < count) {
    parsed->decoded.resize(kBlockBytes);
    const std::span<std::uint8_t> target(parsed->decoded.data(), count * kPageBytes);
    // Its digest was verified: what is behind the pages that are wanted need not be decoded.
    if (!(count == view.stored_pages ? DecodeLz4(view.data, target)
                                     : DecodeLz4Front(view.data, target))) {
      return Error{.code = ErrorCode::kDecode,
                   .message = "block does not decode to its declared size",
                   .page = layout_.PagesOf(parsed->block).first};
    }
    parsed->decoded_pages = count;
  }
  return static_cast<const std::uint8_t*>(parsed->decoded.data());
}

Status BlockDecoder::TakePages(Parsed* parsed, std::uint32_t* pending, std::uint8_t* target) {
  const PageRun pages = layout_.PagesOf(parsed->block);
  const PageBlockView& view = parsed->view;
  const std::uint8_t* stored = nullptr;
  const std::size_t run = OnlyRun(view);
  const bool in_place = view.codec == BlockCodec::kLz4 && run != kBlockPages &&
                        *pending == (std::uint32_t{1} << pages.count) - 1;
  if (in_place) {
    std::uint8_t* place = target + run * kPageBytes;
    if (!DecodeLz4(view.data, {place, view.stored_pages * kPageBytes})) {
      return Error{.code = ErrorCode::kDecode,
                   .message = "block does not decode to its declared size",
                   .page = pages.first};
    }
  } else if (const std::size_t count = StoredCount(view.classes, *pending); count != 0) {
    Result<const std::uint8_t*> bytes = Stored(parsed, count);
    if (!bytes.ok()) return bytes.error();
    stored = bytes.value();
  }
  Place place;
  for (std::size_t page = 0; page < pages.count; ++page) {
    const bool wanted = (*pending >> page & 1) != 0;
    std::uint8_t* bytes = target + page * kPageBytes;
    const BlockPageClass page_class = ClassOf(view.classes, page);
    if (page_class == BlockPageClass::kParent) continue;
    if (wanted) *pending &= ~(std::uint32_t{1} << page);
    switch (page_class) {
      case BlockPageClass::kZero:
        if (wanted) std::memset(bytes, 0, kPageBytes);
        break;
      case BlockPageClass::kFill:
        if (wanted) FillPage(bytes, Load<std::uint64_t>(view.words + 8 * place.word));
        ++place.word;
        break;
      case BlockPageClass::kStored:
        if (wanted && !in_place) std::memcpy(bytes, stored + place.slot * kPageBytes, kPageBytes);
        ++place.slot;
        break;
      case BlockPageClass::kSame:
        if (wanted) {
          same_.push_back({parsed->layer, page, Load<std::uint64_t>(view.words + 8 * place.word)});
        }
        ++place.word;
        break;
      default: break;
    }
  }
  return Ok();
}

// Content of one page as layer `layer` has it. Ends: a step goes to an earlier page of the layer or
// to the next layer.
Status BlockDecoder::CopyPage(std::size_t layer, std::uint64_t page, std::uint8_t* target) {
  const KnownPage wanted{layer, page};
  KnownPage& known = known_[(page ^ layer) % kKnownPages];
  std::uint8_t* content = known_content_.get() + (page ^ layer) % kKnownPages * kPageBytes;
  if (known.layer == layer && known.page == page) {
    std::memcpy(target, content, kPageBytes);
    return Ok();
  }
  for (bool found = false; !found;) {
    const std::uint64_t block = layout_.BlockOf(page);
    const std::optional<std::uint64_t> offset = layers_[layer].map->Find(block);
    BlockPageClass page_class =
        layers_[layer].has_parent ? BlockPageClass::kParent : BlockPageClass::kZero;
    Parsed* parsed = nullptr;
    const std::size_t index = page - layout_.PagesOf(block).first;
    if (offset) {
      Result<Parsed*> fetched = Fetch(layer, block, *offset);
      if (!fetched.ok()) return fetched.error();
      parsed = fetched.value();
      page_class = ClassOf(parsed->view.classes, index);
    }
    const Place place = parsed == nullptr ? Place{} : PlaceOf(parsed->view.classes, index);
    found = true;
    if (page_class == BlockPageClass::kParent) {
      if (!layers_[layer].has_parent || layer + 1 == layers_.size()) {
        return PageError("a page is in a parent that is not there", page);
      }
      ++layer;
      found = false;
    } else if (page_class == BlockPageClass::kSame) {
      page = Load<std::uint64_t>(parsed->view.words + 8 * place.word);
      found = false;
    } else if (page_class == BlockPageClass::kZero) {
      std::memset(target, 0, kPageBytes);
    } else if (page_class == BlockPageClass::kFill) {
      FillPage(target, Load<std::uint64_t>(parsed->view.words + 8 * place.word));
    } else {
      Result<const std::uint8_t*> stored = Stored(parsed, place.slot + 1);
      if (!stored.ok()) return stored.error();
      std::memcpy(target, stored.value() + place.slot * kPageBytes, kPageBytes);
    }
  }
  known = wanted;
  std::memcpy(content, target, kPageBytes);
  return Ok();
}

Status BlockDecoder::Finish(std::uint64_t block, std::size_t layer, std::uint32_t pending,
                            std::uint8_t* target) {
  for (; pending != 0; ++layer) {
    if (layer == layers_.size()) {
      return PageError("a page is in a parent that is not there", layout_.PagesOf(block).first);
    }
    const std::optional<std::uint64_t> offset = layers_[layer].map->Find(block);
    if (offset) {
      Result<Parsed*> parsed = Fetch(layer, block, *offset);
      if (!parsed.ok()) return parsed.error();
      if (layer == 0) note_ = parsed.value()->note;
      Status taken = TakePages(parsed.value(), &pending, target);
      if (!taken.ok()) return taken;
    }
    if (pending == 0 || layers_[layer].has_parent) continue;
    if (offset)
      return PageError("a page is in a parent that is not there", layout_.PagesOf(block).first);
    for (std::size_t page = 0; pending != 0; ++page, pending >>= 1) {
      if ((pending & 1) != 0) std::memset(target + page * kPageBytes, 0, kPageBytes);
    }
    break;
  }
  for (const SamePage& same : same_) {
    Status copied = CopyPage(same.layer, same.source, target + same.page * kPageBytes);
    if (!copied.ok()) return copied;
  }
  return Ok();
}

Status BlockDecoder::Decode(std::uint64_t block, std::uint8_t* target) {
  return DecodePages(block, (std::uint32_t{1} << layout_.PagesOf(block).count) - 1, target);
}

Status BlockDecoder::DecodePages(std::uint64_t block, std::uint32_t wanted, std::uint8_t* target) {
  same_.clear();
  note_ = {};
  return Finish(block, 0, wanted, target);
}

Status BlockDecoder::DecodeRead(std::uint64_t block, std::uint64_t offset,
                                std::span<const std::uint8_t> bytes, std::uint8_t* target) {
  Result<VerifiedFrame> frame = layers_[0].reader.Check(offset, bytes);
  if (!frame.ok()) {
    if (frame.error().page == kUnknown) frame.error().page = layout_.PagesOf(block).first;
    return frame.error();
  }
  Parsed* slot = &slots_[victim_];
  Status parsed = Parse(0, block, offset, frame.value(), slot);
  if (!parsed.ok()) return parsed;
  note_ = slot->note;
  same_.clear();
  std::uint32_t pending = (std::uint32_t{1} << layout_.PagesOf(block).count) - 1;
  Status taken = TakePages(slot, &pending, target);
  // The view points into the caller's bytes: nobody may find it later.
  slot->layer = ~std::size_t{0};
  if (!taken.ok()) return taken;
  if (pending != 0 && !layers_[0].has_parent) {
    return PageError("a page is in a parent that is not there", layout_.PagesOf(block).first);
  }
  return Finish(block, 1, pending, target);
}

}  // namespace chkpt

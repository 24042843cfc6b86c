#include "core/parallel/block_loader.h"

#include <cstring>
#include <optional>

#include "core/codec/lz4_block.h"
#include "core/codec/page_delta.h"

namespace chkpt {
namespace {

void FillPage(std::uint8_t* target, std::uint64_t word) {
  for (std::size_t i = 0; i < kPageBytes; i += 8) Store<std::uint64_t>(target + i, word);
}

// The first stored page of a block whose stored pages are all neighbours.
std::optional<std::size_t> OnlyStoredRun(const PageBlockView& view) {
  std::size_t first = 0;
  while (first < kBlockPages && ClassOf(view.classes, first) != BlockPageClass::kStored) ++first;
  for (std::size_t page = first; page < first + view.stored_pages; ++page) {
    if (page >= kBlockPages || ClassOf(view.classes, page) != BlockPageClass::kStored) {
      return std::nullopt;
    }
  }
  return first;
}

// Walks the pages of a block whose stored pages are decoded.
class BlockPages {
 public:
  BlockPages(const PageBlockView& view, const std::uint8_t* stored)
      : view_(view), stored_(stored) {}

  struct Page {
    BlockPageClass page_class = BlockPageClass::kZero;
    std::uint64_t word = 0;               // of pages that have one
    const std::uint8_t* bytes = nullptr;  // of stored pages and deltas
  };
  Page Next() {
    Page page{.page_class = ClassOf(view_.classes, page_++)};
    if (HasWord(page.page_class)) {
      page.word = Load<std::uint64_t>(view_.words + 8 * word_++);
    }
    if (HasBytes(page.page_class)) page.bytes = stored_ + kPageBytes * slot_++;
    return page;
  }

 private:
  const PageBlockView& view_;
  const std::uint8_t* const stored_;
  std::size_t page_ = 0;
  std::size_t word_ = 0;
  std::size_t slot_ = 0;
};

// False for a page whose content is not in the block.
bool CopyContent(const BlockPages::Page& page, std::uint8_t* target) {
  switch (page.page_class) {
    case BlockPageClass::kZero: std::memset(target, 0, kPageBytes); return true;
    case BlockPageClass::kFill: FillPage(target, page.word); return true;
    case BlockPageClass::kStored: std::memcpy(target, page.bytes, kPageBytes); return true;
    case BlockPageClass::kSame:
    case BlockPageClass::kParent:
    case BlockPageClass::kDelta: return false;
  }
  return false;
}

// `page` holds what the page was, and then what it is.
Status ApplyDelta(const BlockPages::Page& delta, std::uint64_t number, std::uint8_t* page) {
  XorPage(delta.bytes, page);
  if (PayloadDigest({page, kPageBytes}) == delta.word) return Ok();
  return Error{.code = ErrorCode::kDigest,
               .message = "page is a difference from another one than memory holds",
               .page = number};
}

// Where the stored pages of a block are: as they came, or decoded to `target`.
Status Decode(const PageBlockView& view, PageRun pages, std::uint8_t* target,
              const std::uint8_t** stored) {
  *stored = view.data.data();
  if (view.codec != BlockCodec::kLz4) return Ok();
  if (!DecodeLz4(view.data, {target, view.stored_pages * kPageBytes})) {
    return Error{.code = ErrorCode::kDecode,
                 .message = "block does not decode to its declared size",
                 .page = pages.first};
  }
  *stored = target;
  return Ok();
}

}  // namespace

Result<std::unique_ptr<BlockLoader>> BlockLoader::Create(GuestMemory& memory, Instead instead,
                                                         std::shared_ptr<BufferPool> buffers) {
  auto scratch = PooledBuffer::Take(std::move(buffers), 2 * kBlockBytes, false);
  if (!scratch.ok()) return scratch.error();
  return std::unique_ptr<BlockLoader>(new BlockLoader(memory, instead, std::move(scratch.value())));
}

BlockLoader::BlockLoader(GuestMemory& memory, Instead instead, PooledBuffer scratch)
    : memory_(memory),
      digests_(instead.digests),
      placer_(instead.placer),
      scratch_(std::move(scratch)),
      decoded_(scratch_.data()),
      assembled_(scratch_.data() + kBlockBytes) {}

bool BlockLoader::HasDestination(const Region& region) const {
  return region.host != nullptr || region.fd >= 0 || digests_ != nullptr;
}

Status BlockLoader::Load(const PageBlockView& view, const Region& region, bool fresh, PageRun pages,
                         PageBits skip, PageTotals* totals) {
  totals->pages += pages.count;
  totals->encoded_bytes += view.data.size();
  PageBits taken = 0;
  for (std::size_t page = 0; page < pages.count; ++page) {
    const BlockPageClass page_class = ClassOf(view.classes, page);
    switch (page_class) {
      case BlockPageClass::kZero: ++totals->zero_pages; break;
      case BlockPageClass::kFill: ++totals->fill_pages; break;
      case BlockPageClass::kStored:
      case BlockPageClass::kDelta: ++totals->stored_pages; break;
      case BlockPageClass::kSame: ++totals->same_pages; break;
      case BlockPageClass::kParent: ++totals->parent_pages; break;
    }
    if (page_class != BlockPageClass::kParent) taken |= PageBits{1} << page;
  }
  if ((taken & ~skip) == 0) return Ok();
  // Stored pages that are neighbours are decoded where they belong.
  std::uint8_t* target = decoded_;
  const std::optional<std::size_t> first = OnlyStoredRun(view);
  if (first && region.host != nullptr && placer_ == nullptr && (taken & skip) == 0) {
    target = region.host + (pages.first + *first - region.first_page) * kPageBytes;
  }
  const std::uint8_t* stored = nullptr;
  Status status = Decode(view, pages, target, &stored);
  if (!status.ok()) return status;
  if (!HasDestination(region)) return Ok();
  if (digests_ != nullptr) {
    LoadDigests(view, pages, skip, stored);
  } else if (placer_ != nullptr) {
    return LoadPlaced(view, pages, skip, stored);
  } else if (region.host != nullptr) {
    return LoadMapped(view, region, fresh, pages, skip, stored);
  } else {
    return LoadFile(view, fresh, pages, skip, stored);
  }
  return Ok();
}

Status BlockLoader::LoadMapped(const PageBlockView& view, const Region& region, bool fresh,
                               PageRun pages, PageBits skip, const std::uint8_t* stored) {
  std::uint8_t* target = region.host + (pages.first - region.first_page) * kPageBytes;
  BlockPages walk(view, stored);
  for (std::size_t page = 0; page < pages.count; ++page, target += kPageBytes) {
    const BlockPages::Page content = walk.Next();
    if ((skip >> page & 1) != 0) continue;
    switch (content.page_class) {
      case BlockPageClass::kZero:
        if (!fresh) std::memset(target, 0, kPageBytes);
        break;
      case BlockPageClass::kFill: FillPage(target, content.word); break;
      case BlockPageClass::kStored:
        if (content.bytes != target) std::memcpy(target, content.bytes, kPageBytes);
        break;
      case BlockPageClass::kDelta: {
        std::memcpy(assembled_, target, kPageBytes);
        Status status = ApplyDelta(content, pages.first + page, assembled_);
        if (!status.ok()) return status;
        std::memcpy(target, assembled_, kPageBytes);
        break;
      }
      case BlockPageClass::kSame:
      case BlockPageClass::kParent: break;
    }
  }
  return Ok();
}

// Pages are written in runs; a run ends at a page that is left alone: zero in a fresh file,
// skipped, or one whose content is not here.
Status BlockLoader::LoadFile(const PageBlockView& view, bool fresh, PageRun pages, PageBits skip,
                             const std::uint8_t* stored) {
  BlockPages walk(view, stored);
  std::size_t run = 0;
  for (std::size_t page = 0; page <= pages.count; ++page) {
    bool left_alone = page == pages.count;
    if (!left_alone) {
      const BlockPages::Page content = walk.Next();
      const bool untouched = content.page_class == BlockPageClass::kZero && fresh;
      const bool skipped = (skip >> page & 1) != 0;
      std::uint8_t* const target = assembled_ + page * kPageBytes;
      if (content.page_class == BlockPageClass::kDelta && !skipped) {
        Status status = memory_.CopyOut({pages.first + page, 1}, target);
        if (status.ok()) status = ApplyDelta(content, pages.first + page, target);
        if (!status.ok()) return status;
      } else {
        left_alone = untouched || skipped || !CopyContent(content, target);
      }
    }
    if (!left_alone) continue;
    if (run < page) {
      const Status status =
          memory_.CopyIn({pages.first + run, page - run}, assembled_ + run * kPageBytes);
      if (!status.ok()) return status;
    }
    run = page + 1;
  }
  return Ok();
}

Status BlockLoader::LoadPlaced(const PageBlockView& view, PageRun pages, PageBits skip,
                               const std::uint8_t* stored) {
  BlockPages walk(view, stored);
  std::size_t run = 0;
  for (std::size_t page = 0; page <= pages.count; ++page) {
    bool left_alone = page == pages.count;
    if (!left_alone) {
      const BlockPages::Page content = walk.Next();
      if (content.page_class == BlockPageClass::kSame) {
        return Error{.code = ErrorCode::kFormat,
                     .message = "a page that equals another where each has to come by itself",
                     .page = pages.first + page};
      }
      left_alone = (skip >> page & 1) != 0 || !CopyContent(content, assembled_ + page * kPageBytes);
    }
    if (!left_alone) continue;
    if (run < page) {
      Status placed =
          placer_->Place({pages.first + run, page - run}, assembled_ + run * kPageBytes);
      if (!placed.ok()) return placed;
    }
    run = page + 1;
  }
  return Ok();
}

void BlockLoader::LoadDigests(const PageBlockView& view, PageRun pages, PageBits skip,
                              const std::uint8_t* stored) {
  BlockPages walk(view, stored);
  for (std::size_t page = 0; page < pages.count; ++page) {
    const BlockPages::Page content = walk.Next();
    if ((skip >> page & 1) != 0 || !CopyContent(content, assembled_)) continue;
    digests_->Note(pages.first + page, digests_->Digest(assembled_));
  }
}

Status BlockLoader::Zero(const Region& region, bool fresh, PageRun pages) {
  if (digests_ != nullptr) {
    for (std::uint64_t i = 0; i < pages.count; ++i) {
      digests_->Note(pages.first + i, digests_->zero());
    }
    return Ok();
  }
  if (placer_ != nullptr) return placer_->PlaceZero(pages);
  if (fresh || !HasDestination(region)) return Ok();
  return memory_.Zero(pages);
}

Status BlockLoader::CopyPage(std::uint64_t source, std::uint64_t target) {
  if (digests_ != nullptr) {
    digests_->Note(target, digests_->Of(source));
    return Ok();
  }
  const Region& from = memory_.regions()[memory_.RegionOfPage(source)];
  const Region& to = memory_.regions()[memory_.RegionOfPage(target)];
  if (!HasDestination(to)) return Ok();
  const std::uint8_t* bytes = decoded_;
  if (from.host != nullptr) {
    bytes = from.host + (source - from.first_page) * kPageBytes;
  } else {
    const Status status = memory_.CopyOut({source, 1}, decoded_);
    if (!status.ok()) return status;
  }
  return memory_.CopyIn({target, 1}, bytes);
}

Status BlockLoader::Expand(const PageBlockView& view, PageRun pages) {
  const std::uint8_t* stored = nullptr;
  Status status = Decode(view, pages, decoded_, &stored);
  if (!status.ok()) return status;
  BlockPages walk(view, stored);
  for (std::size_t page = 0; page < pages.count; ++page) {
    CopyContent(walk.Next(), assembled_ + page * kPageBytes);
  }
  return Ok();
}

Status BlockLoader::Put(std::size_t index, std::uint64_t target) {
  const std::uint8_t* bytes = assembled_ + index * kPageBytes;
  if (digests_ != nullptr) {
    digests_->Note(target, digests_->Digest(bytes));
    return Ok();
  }
  const Region& region = memory_.regions()[memory_.RegionOfPage(target)];
  return HasDestination(region) ? memory_.CopyIn({target, 1}, bytes) : Ok();
}

}  // namespace chkpt

#include "core/parallel/block_loader.h"

#include <cstring>
#include <optional>

#include "core/codec/lz4_block.h"

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

}  // namespace

Result<std::unique_ptr<BlockLoader>> BlockLoader::Create(GuestMemory& memory,
                                                         std::shared_ptr<BufferPool> buffers) {
  auto scratch = PooledBuffer::Take(std::move(buffers), 2 * kBlockBytes, false);
  if (!scratch.ok()) return scratch.error();
  return std::unique_ptr<BlockLoader>(new BlockLoader(memory, std::move(scratch.value())));
}

BlockLoader::BlockLoader(GuestMemory& memory, PooledBuffer scratch)
    : memory_(memory),
      scratch_(std::move(scratch)),
      decoded_(scratch_.data()),
      assembled_(scratch_.data() + kBlockBytes) {}

Status BlockLoader::Load(const PageBlockView& view, const Region& region, bool fresh, PageRun pages,
                         PageTotals* totals) {
  const std::size_t stored_bytes = view.stored_pages * kPageBytes;
  const std::uint8_t* stored = view.data.data();
  if (view.codec == BlockCodec::kLz4) {
    // Stored pages that are neighbours are decoded where they belong.
    std::uint8_t* target = decoded_;
    const std::optional<std::size_t> first = OnlyStoredRun(view);
    if (first && region.host != nullptr) {
      target = region.host + (pages.first + *first - region.first_page) * kPageBytes;
    }
    if (!DecodeLz4(view.data, {target, stored_bytes})) {
      return Error{.code = ErrorCode::kDecode,
                   .message = "block does not decode to its declared size",
                   .page = pages.first};
    }
    stored = target;
  }
  totals->pages += pages.count;
  totals->encoded_bytes += view.data.size();
  for (std::size_t page = 0; page < pages.count; ++page) {
    switch (ClassOf(view.classes, page)) {
      case BlockPageClass::kZero: ++totals->zero_pages; break;
      case BlockPageClass::kFill: ++totals->fill_pages; break;
      case BlockPageClass::kStored: ++totals->stored_pages; break;
      case BlockPageClass::kSame: ++totals->same_pages; break;
    }
  }
  if (region.host != nullptr) return LoadMapped(view, region, fresh, pages, stored);
  if (region.fd >= 0) return LoadFile(view, fresh, pages, stored);
  return Ok();
}

Status BlockLoader::LoadMapped(const PageBlockView& view, const Region& region, bool fresh,
                               PageRun pages, const std::uint8_t* stored) {
  std::uint8_t* target = region.host + (pages.first - region.first_page) * kPageBytes;
  std::size_t slot = 0;
  std::size_t word = 0;
  for (std::size_t page = 0; page < pages.count; ++page, target += kPageBytes) {
    switch (ClassOf(view.classes, page)) {
      case BlockPageClass::kZero:
        if (!fresh) std::memset(target, 0, kPageBytes);
        break;
      case BlockPageClass::kFill:
        FillPage(target, chkpt::Load<std::uint64_t>(view.words + 8 * word++));
        break;
      case BlockPageClass::kStored:
        if (stored + kPageBytes * slot != target) {
          std::memcpy(target, stored + kPageBytes * slot, kPageBytes);
        }
        ++slot;
        break;
      case BlockPageClass::kSame: ++word; break;
    }
  }
  return Ok();
}

Status BlockLoader::LoadFile(const PageBlockView& view, bool fresh, PageRun pages,
                             const std::uint8_t* stored) {
  // Pages are written in runs; a run ends at a page that is left alone: zero in a fresh file, or
  // same.
  std::size_t slot = 0;
  std::size_t word = 0;
  std::size_t run = 0;
  for (std::size_t page = 0; page <= pages.count; ++page) {
    std::uint8_t* target = assembled_ + page * kPageBytes;
    const BlockPageClass page_class =
        page == pages.count ? BlockPageClass::kSame : ClassOf(view.classes, page);
    bool left_alone = false;
    switch (page_class) {
      case BlockPageClass::kZero:
        left_alone = fresh;
        if (!left_alone) std::memset(target, 0, kPageBytes);
        break;
      case BlockPageClass::kFill:
        FillPage(target, chkpt::Load<std::uint64_t>(view.words + 8 * word++));
        break;
      case BlockPageClass::kStored:
        std::memcpy(target, stored + kPageBytes * slot++, kPageBytes);
        break;
      case BlockPageClass::kSame:
        ++word;
        left_alone = true;
        break;
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

Status BlockLoader::Zero(const Region& region, bool fresh, PageRun pages, PageTotals* totals) {
  totals->pages += pages.count;
  totals->zero_pages += pages.count;
  if (fresh || (region.host == nullptr && region.fd < 0)) return Ok();
  return memory_.Zero(pages);
}

Status BlockLoader::CopyPage(std::uint64_t source, std::uint64_t target) {
  const Region& from = memory_.regions()[memory_.RegionOfPage(source)];
  const Region& to = memory_.regions()[memory_.RegionOfPage(target)];
  if (to.host == nullptr && to.fd < 0) return Ok();
  const std::uint8_t* bytes = decoded_;
  if (from.host != nullptr) {
    bytes = from.host + (source - from.first_page) * kPageBytes;
  } else {
    const Status status = memory_.CopyOut({source, 1}, decoded_);
    if (!status.ok()) return status;
  }
  return memory_.CopyIn({target, 1}, bytes);
}

}  // namespace chkpt

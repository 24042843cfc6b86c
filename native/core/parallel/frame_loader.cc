#include "core/parallel/frame_loader.h"

#include <utility>

namespace chkpt {
namespace {

// A PAGE_BLOCK or DELTA_BLOCK, checked. Errors: kDigest, kFormat.
Result<PageBlockView> ParseFrame(const PageFrame& frame, bool has_parent) {
  const FrameHeader& header = frame.header;
  if (IsRun(static_cast<FrameType>(header.type))) {
    return Error{.code = ErrorCode::kFormat,
                 .message = "the checkpoint has changed while it was read",
                 .page = header.arg0};
  }
  if (PayloadDigest({frame.payload, Pad8(header.payload_bytes)}) != header.payload_digest) {
    return Error{.code = ErrorCode::kDigest,
                 .message = "page block does not match its digest",
                 .page = header.arg0};
  }
  return ParsePageBlock({frame.payload, header.payload_bytes}, header.arg0, header.arg1, has_parent,
                        static_cast<FrameType>(header.type) == FrameType::kDeltaBlock);
}

}  // namespace

Result<std::unique_ptr<FrameLoader>> FrameLoader::Create(GuestMemory& memory,
                                                         const LoadTarget& target,
                                                         std::shared_ptr<BufferPool> buffers) {
  auto loader = BlockLoader::Create(memory, {.digests = target.digests, .placer = target.placer},
                                    std::move(buffers));
  if (!loader.ok()) return loader.error();
  return std::unique_ptr<FrameLoader>(new FrameLoader(memory, target, std::move(loader.value())));
}

FrameLoader::FrameLoader(GuestMemory& memory, const LoadTarget& target,
                         std::unique_ptr<BlockLoader> loader)
    : memory_(memory), target_(target), loader_(std::move(loader)) {}

Status FrameLoader::Run(const PageFrame& frame, const WaitForPage& wait, PageTotals* totals) {
  if (target_.resolver != nullptr) {
    totals->pages += frame.header.arg1;
    return RunWaiting(frame);
  }
  const FrameHeader& header = frame.header;
  const PageRun pages{header.arg0, header.arg1};
  const std::size_t region_index = memory_.RegionOfPage(pages.first);
  const Region& region = memory_.regions()[region_index];
  const bool fresh = (*target_.fresh)[region_index];
  if (IsRun(static_cast<FrameType>(header.type))) {
    const bool zero = static_cast<FrameType>(header.type) == FrameType::kZeroRun;
    totals->pages += pages.count;
    (zero ? totals->zero_pages : totals->parent_pages) += pages.count;
    return zero ? RunZeroRun(region, fresh, pages) : Ok();
  }
  Result<PageBlockView> view = ParseFrame(frame, target_.has_parent);
  if (!view.ok()) return view.error();
  const BlockLoader::PageBits skip = NoteBlock(view.value(), pages);
  Status status = loader_->Load(view.value(), region, fresh, pages, skip, totals);
  if (!status.ok()) return status;
  return RunSamePages(view.value(), pages, skip, wait);
}

Status FrameLoader::RunZeroRun(const Region& region, bool fresh, PageRun pages) {
  if (target_.chain == nullptr) return loader_->Zero(region, fresh, pages);
  if (fresh && target_.digests == nullptr && target_.placer == nullptr) return Ok();
  PageRun run{pages.first, 0};
  for (std::uint64_t page = pages.first; page <= pages.end(); ++page) {
    if (page < pages.end() && !target_.chain->IsNewer(page)) {
      ++run.count;
      continue;
    }
    if (run.count != 0) {
      Status status = loader_->Zero(region, fresh, run);
      if (!status.ok()) return status;
    }
    run = {page + 1, 0};
  }
  return Ok();
}

// Tells the chain what this block has; which pages of it are to be left alone.
BlockLoader::PageBits FrameLoader::NoteBlock(const PageBlockView& view, PageRun pages) {
  if (target_.chain == nullptr) return 0;
  BlockLoader::PageBits skip = 0;
  std::size_t word = 0;
  for (std::size_t i = 0; i < pages.count; ++i) {
    const BlockPageClass page_class = ClassOf(view.classes, i);
    const std::uint64_t page = pages.first + i;
    const std::size_t own_word = HasWord(page_class) ? word++ : 0;
    if (page_class == BlockPageClass::kParent) continue;
    if (target_.has_parent) target_.chain->SetOwn(page);
    if (!target_.chain->IsNewer(page)) continue;
    skip |= BlockLoader::PageBits{1} << i;
    if (page_class == BlockPageClass::kSame) {
      target_.chain->NoteAlias(page, Load<std::uint64_t>(view.words + 8 * own_word));
    }
  }
  return skip;
}

Status FrameLoader::RunSamePages(const PageBlockView& view, PageRun pages,
                                 BlockLoader::PageBits skip, const WaitForPage& wait) {
  std::size_t word = 0;
  for (std::size_t page = 0; word < view.word_count; ++page) {
    const BlockPageClass page_class = ClassOf(view.classes, page);
    if (!HasWord(page_class)) continue;
    const std::uint64_t source = Load<std::uint64_t>(view.words + 8 * word++);
    if (page_class != BlockPageClass::kSame) continue;
    if (!wait(source)) return Ok();
    if (target_.has_parent && !target_.chain->IsOwn(source)) {
      return Error{.code = ErrorCode::kFormat,
                   .message = "page equals a page that is left to the parent",
                   .page = pages.first + page};
    }
    if ((skip >> page & 1) != 0) continue;
    const Status status = RunSamePage(source, pages.first + page);
    if (!status.ok()) return status;
  }
  return Ok();
}

Status FrameLoader::RunSamePage(std::uint64_t source, std::uint64_t page) {
  if (target_.chain != nullptr) source = target_.chain->RootOf(source);
  if (target_.chain == nullptr || !target_.chain->IsNewer(source))
    return loader_->CopyPage(source, page);
  target_.chain->Defer({.source = source, .page = page});
  return Ok();
}

// Of a second read: whoever waits for a page of this frame gets it.
Status FrameLoader::RunWaiting(const PageFrame& frame) {
  const PageRun pages{frame.header.arg0, frame.header.arg1};
  const std::span<const DeferredPage> waiting = target_.resolver->Waiting(pages);
  if (waiting.empty()) return Ok();
  const bool zero = static_cast<FrameType>(frame.header.type) == FrameType::kZeroRun;
  PageBlockView view;
  if (!zero) {
    Result<PageBlockView> parsed = ParseFrame(frame, target_.has_parent);
    if (!parsed.ok()) return parsed.error();
    view = parsed.value();
    Status status = loader_->Expand(view, pages);
    if (!status.ok()) return status;
  } else {
    Status status = loader_->Expand(view, {pages.first, 1});
    if (!status.ok()) return status;
  }
  for (const DeferredPage& page : waiting) {
    const std::size_t index = zero ? 0 : static_cast<std::size_t>(page.source - pages.first);
    const BlockPageClass page_class = ClassOf(view.classes, index);
    if (page_class == BlockPageClass::kSame || page_class == BlockPageClass::kParent) {
      return Error{.code = ErrorCode::kFormat,
                   .message = "the checkpoint has changed while it was read",
                   .page = page.source};
    }
    Status status = loader_->Put(index, page.page);
    if (!status.ok()) return status;
  }
  return Ok();
}

}  // namespace chkpt

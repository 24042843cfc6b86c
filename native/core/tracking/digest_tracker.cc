#include "core/tracking/digest_tracker.h"

#include <algorithm>
#include <utility>

#include "core/scan/chunk_walk.h"

namespace chkpt {
namespace {

std::uint64_t ChunkCount(const Region& region) {
  return (region.page_count() + kChunkPages - 1) / kChunkPages;
}

}  // namespace

Result<std::unique_ptr<DirtyTracker>> DigestTracker::Open(std::shared_ptr<GuestMemory> memory,
                                                          unsigned threads) {
  for (const Region& region : memory->regions()) {
    if (region.host == nullptr && region.fd < 0) {
      return Error{.code = ErrorCode::kUnsupported,
                   .message = "this memory is only described; nothing is behind it"};
    }
  }
  auto digests = PageDigests::Create(memory->page_count());
  if (!digests.ok()) return digests.error();
  return std::unique_ptr<DirtyTracker>(
      new DigestTracker(std::move(memory), threads, std::move(digests.value())));
}

DigestTracker::DigestTracker(std::shared_ptr<GuestMemory> memory, unsigned threads,
                             std::shared_ptr<PageDigests> digests)
    : DirtyTracker(std::move(memory), false), threads_(threads), digests_(std::move(digests)) {
  std::uint64_t chunks = 0;
  for (const Region& region : this->memory()->regions()) chunks += ChunkCount(region);
  used_.resize(static_cast<std::size_t>(chunks));
  seen_.resize(static_cast<std::size_t>(chunks));
}

Status DigestTracker::Reset(const Cancelled& cancelled) { return Pass(nullptr, cancelled); }

Status DigestTracker::Collect(DirtyBitmap* found, const Cancelled& cancelled) {
  return Pass(found, cancelled);
}

Status DigestTracker::Pass(DirtyBitmap* found, const Cancelled& cancelled) {
  std::ranges::fill(seen_, std::uint8_t{0});
  ChunkWalk walk(*memory(), ChunkWalk::Copy::kWholeChunk, cancelled);
  Status walked = walk.Run(
      threads_, [&](const Chunk& chunk, const std::vector<PageRun>& runs, std::uint8_t* bytes) {
        Compare(chunk.pages, runs, bytes, chunk.index, found);
        seen_[static_cast<std::size_t>(chunk.index)] = 1;
      });
  if (!walked.ok()) return walked;
  std::uint64_t index = 0;
  for (const Region& region : memory()->regions()) {
    for (std::uint64_t page = region.first_page; page < region.pages().end();
         page += kChunkPages, ++index) {
      const std::size_t at = static_cast<std::size_t>(index);
      if (used_[at] == 0 || seen_[at] != 0) continue;
      Compare({page, std::min<std::uint64_t>(kChunkPages, region.pages().end() - page)}, {},
              nullptr, index, found);
    }
  }
  return Ok();
}

void DigestTracker::Compare(PageRun pages, const std::vector<PageRun>& present,
                            const std::uint8_t* bytes, std::uint64_t chunk, DirtyBitmap* found) {
  const bool was_used = used_[static_cast<std::size_t>(chunk)] != 0;
  bool is_used = false;
  const auto note = [&](std::uint64_t page, const PageDigest& digest) {
    is_used = is_used || digest != PageDigest{};
    if (!digests_->Note(page, digest) && found != nullptr) found->Mark(page);
  };
  std::uint64_t page = pages.first;
  const auto absent_until = [&](std::uint64_t end) {
    for (; was_used && page < end; ++page) note(page, PageDigest{});
    page = end;
  };
  for (const PageRun& run : present) {
    absent_until(run.first);
    for (; page < run.end(); ++page) {
      const PageDigest digest = digests_->Digest(bytes + (page - pages.first) * kPageBytes);
      note(page, digest == digests_->zero() ? PageDigest{} : digest);
    }
  }
  absent_until(pages.end());
  used_[static_cast<std::size_t>(chunk)] = is_used ? 1 : 0;
}

}  // namespace chkpt

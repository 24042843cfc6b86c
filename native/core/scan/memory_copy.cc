#include "core/scan/memory_copy.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "core/memory/guest_copy.h"
#include "core/scan/chunk_walk.h"

namespace chkpt {
namespace {

bool SameRegions(const GuestMemory& a, const GuestMemory& b) {
  return std::ranges::equal(a.regions(), b.regions(), [](const Region& x, const Region& y) {
    return x.base == y.base && x.bytes == y.bytes;
  });
}

}  // namespace

MemoryCopy::MemoryCopy(std::shared_ptr<GuestMemory> target)
    : target_(std::move(target)), written_(std::make_unique<DirtyBitmap>(target_->page_count())) {}

Status MemoryCopy::Update(const GuestMemory& source, unsigned threads,
                          std::function<bool()> cancelled) {
  if (!SameRegions(source, *target_)) {
    return Error{.code = ErrorCode::kFormat, .message = "a copy has the regions of its source"};
  }
  target_->MarkUsed();
  auto seen = std::make_unique<DirtyBitmap>(target_->page_count());
  const auto visit = [&](const Chunk& chunk, const std::vector<PageRun>& runs,
                         std::uint8_t* bytes) {
    const Region& to = target_->regions()[target_->RegionOfPage(chunk.pages.first)];
    const std::uint64_t first = chunk.region->first_page;
    for (const PageRun& run : runs) {
      const std::uint8_t* from = bytes != nullptr
                                     ? bytes + (run.first - chunk.pages.first) * kPageBytes
                                     : chunk.region->host + (run.first - first) * kPageBytes;
      written_->MarkRun(run);
      seen->MarkRun(run);
      CopyGuest(to.host + (run.first - first) * kPageBytes, from, run.count * kPageBytes);
    }
  };
  Status status =
      ChunkWalk(source, ChunkWalk::Copy::kVisitorCopies, std::move(cancelled)).Run(threads, visit);
  if (!status.ok()) return status;
  status = ZeroOthers(*seen);
  if (status.ok()) written_ = std::move(seen);
  return status;
}

Status MemoryCopy::ZeroOthers(const DirtyBitmap& seen) {
  std::vector<std::uint64_t> words(written_->word_count());
  written_->Take(words);
  written_->Merge(words);
  RunIterator written(words, written_->page_count());
  for (PageRun run; written.Next(&run);) {
    for (std::uint64_t page = run.first; page < run.end();) {
      std::uint64_t end = page;
      while (end < run.end() && !seen.IsMarked(end)) ++end;
      // A run may go over the end of a region.
      while (page < end) {
        const Region& region = target_->regions()[target_->RegionOfPage(page)];
        const std::uint64_t count = std::min(end, region.pages().end()) - page;
        Status status = target_->Zero({page, count});
        if (!status.ok()) return status;
        page += count;
      }
      while (page < run.end() && seen.IsMarked(page)) ++page;
    }
  }
  return Ok();
}

}  // namespace chkpt

#include "core/scan/memory_copy.h"

#include <algorithm>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

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
  auto seen = std::make_unique<DirtyBitmap>(target_->page_count());
  std::mutex mutex;
  std::optional<Error> error;
  const auto visit = [&](const Chunk& chunk, const std::vector<PageRun>& runs, std::uint8_t*) {
    const Region& to = target_->regions()[target_->RegionOfPage(chunk.pages.first)];
    for (const PageRun& run : runs) {
      written_->MarkRun(run);
      seen->MarkRun(run);
      Status copied =
          source.CopyOut(run, to.host + (run.first - chunk.region->first_page) * kPageBytes);
      if (copied.ok()) continue;
      const std::lock_guard lock(mutex);
      error = std::move(copied.error());
      return;
    }
  };
  const auto ends = [&] {
    if (cancelled()) return true;
    const std::lock_guard lock(mutex);
    return error.has_value();
  };
  Status status = ChunkWalk(source, ChunkWalk::Copy::kVisitorReads, ends).Run(threads, visit);
  if (error) return *error;
  if (!status.ok()) return status;
  status = ZeroOthers(*seen);
  if (status.ok()) {
    written_ = std::move(seen);
  } else {
    written_->MarkRun({0, target_->page_count()});
  }
  return status;
}

Status MemoryCopy::ZeroOthers(DirtyBitmap& seen) {
  std::vector<std::uint64_t> others(written_->word_count());
  std::vector<std::uint64_t> words(seen.word_count());
  written_->Take(others);
  seen.Take(words);
  seen.Merge(words);
  for (std::size_t i = 0; i < words.size(); ++i) others[i] &= ~words[i];
  RunIterator runs(others, target_->page_count());
  for (PageRun run; runs.Next(&run);) {
    // A run may go over the end of a region.
    while (run.count != 0) {
      const Region& region = target_->regions()[target_->RegionOfPage(run.first)];
      const PageRun piece{run.first, std::min(run.end(), region.pages().end()) - run.first};
      Status status = target_->Zero(piece);
      if (!status.ok()) return status;
      run = {piece.end(), run.count - piece.count};
    }
  }
  return Ok();
}

}  // namespace chkpt

#include "core/tracking/digest_tracker.h"

#include <sys/mman.h>
#include <sys/random.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "core/base/xxh3.h"
#include "core/scan/chunk_walk.h"

namespace chkpt {
namespace {

std::uint64_t ChunkCount(const Region& region) {
  return (region.page_count() + kChunkPages - 1) / kChunkPages;
}

Status FillRandom(std::span<std::uint8_t> bytes) {
  while (!bytes.empty()) {
    const ssize_t done = ::getrandom(bytes.data(), bytes.size(), 0);
    if (done < 0 && errno != EINTR) return SystemError(errno, "getrandom");
    if (done > 0) bytes = bytes.subspan(static_cast<std::size_t>(done));
  }
  return Ok();
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
  void* table = ::mmap(nullptr, memory->page_count() * sizeof(Digest), PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (table == MAP_FAILED) return SystemError(errno, "the table of digests");
  std::unique_ptr<DigestTracker> tracker(
      new DigestTracker(std::move(memory), threads, static_cast<Digest*>(table)));
  Status random = FillRandom(tracker->secret_);
  if (!random.ok()) return random.error();
  const std::vector<std::uint8_t> zeros(kPageBytes);
  tracker->zero_ = tracker->DigestOf(zeros.data());
  return std::unique_ptr<DirtyTracker>(std::move(tracker));
}

DigestTracker::DigestTracker(std::shared_ptr<GuestMemory> memory, unsigned threads, Digest* table)
    : DirtyTracker(std::move(memory), false), threads_(threads), table_(table) {
  std::uint64_t chunks = 0;
  for (const Region& region : this->memory()->regions()) chunks += ChunkCount(region);
  used_.resize(static_cast<std::size_t>(chunks));
  seen_.resize(static_cast<std::size_t>(chunks));
}

DigestTracker::~DigestTracker() { ::munmap(table_, memory()->page_count() * sizeof(Digest)); }

DigestTracker::Digest DigestTracker::DigestOf(const std::uint8_t* page) const {
  const XXH128_hash_t hash =
      XXH3_128bits_withSecret(page, kPageBytes, secret_.data(), secret_.size());
  return {hash.low64 ^ zero_.low, hash.high64 ^ zero_.high};
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
  const auto note = [&](std::uint64_t page, const Digest& digest) {
    is_used = is_used || digest != Digest{};
    if (table_[page] == digest) return;
    table_[page] = digest;
    if (found != nullptr) found->Mark(page);
  };
  std::uint64_t page = pages.first;
  const auto absent_until = [&](std::uint64_t end) {
    for (; was_used && page < end; ++page) note(page, Digest{});
    page = end;
  };
  for (const PageRun& run : present) {
    absent_until(run.first);
    for (; page < run.end(); ++page) {
      note(page, DigestOf(bytes + (page - pages.first) * kPageBytes));
    }
  }
  absent_until(pages.end());
  used_[static_cast<std::size_t>(chunk)] = is_used ? 1 : 0;
}

}  // namespace chkpt

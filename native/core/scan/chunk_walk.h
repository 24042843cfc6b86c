// A pass over all pages of a memory that may hold something, chunk by chunk, on several threads.
// Untouched memory is not read.
//
// Thread safety: Run is called once; `visit` runs on all threads at the same time.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "core/base/result.h"
#include "core/base/units.h"
#include "core/memory/guest_memory.h"
#include "core/memory/presence.h"

namespace chkpt {

struct Chunk {
  const Region* region = nullptr;
  PageRun pages;
  std::uint64_t index = 0;  // of all chunks of the memory
};

// Calls `visit(chunk, runs, bytes)` for every chunk with something present; `bytes` holds the
// chunk's pages in place (runs only are filled in) and belongs to the thread. With kVisitorCopies
// it is null for mapped regions, with kVisitorReads for all: the visitor reads each page once, by
// itself.
class ChunkWalk {
 public:
  using Visit = std::function<void(const Chunk&, const std::vector<PageRun>&, std::uint8_t* bytes)>;

  enum class Copy : std::uint8_t { kWholeChunk, kVisitorCopies, kVisitorReads };

  // `cancelled` is asked for each chunk and presence query, by any thread.
  ChunkWalk(const GuestMemory& memory, Copy copy, std::function<bool()> cancelled)
      : memory_(memory), copy_(copy), cancelled_(std::move(cancelled)) {}

  // Errors: kIo, kMemoryShort (file regions), kAborted.
  Status Run(unsigned threads, const Visit& visit) {
    std::vector<std::thread> workers;
    for (unsigned i = 1; i < threads; ++i) workers.emplace_back([&] { Work(visit); });
    Work(visit);
    for (std::thread& worker : workers) worker.join();
    if (cancelled_()) return Error{.code = ErrorCode::kAborted, .message = "scan cancelled"};
    if (error_) return *error_;
    return Ok();
  }

 private:
  bool Claim(Chunk* chunk) {
    const std::lock_guard lock(mutex_);
    while (region_index_ < memory_.regions().size() && !error_) {
      const Region& region = memory_.regions()[region_index_];
      const std::uint64_t end = region.pages().end();
      while (page_ < end) {
        if (cancelled_()) return false;
        const std::uint64_t limit = std::min<std::uint64_t>(end, page_ + (kPageBytes << 10));
        page_ = finder_.NextPresent(region, page_, limit);
        if (page_ < limit) break;
      }
      if (page_ < end) {
        const std::uint64_t first = page_ - (page_ - region.first_page) % kChunkPages;
        *chunk = {&region,
                  {first, std::min<std::uint64_t>(kChunkPages, end - first)},
                  chunk_base_ + (first - region.first_page) / kChunkPages};
        page_ = chunk->pages.end();
        return true;
      }
      chunk_base_ += (region.page_count() + kChunkPages - 1) / kChunkPages;
      ++region_index_;
      page_ = end;
    }
    return false;
  }

  void Work(const Visit& visit) {
    const auto bytes = std::make_unique_for_overwrite<std::uint8_t[]>(kChunkBytes);
    std::vector<PageRun> runs;
    Chunk chunk;
    while (Claim(&chunk)) {
      finder_.PresentRuns(*chunk.region, chunk.pages, &runs);
      if (copy_ == Copy::kVisitorReads ||
          (copy_ == Copy::kVisitorCopies && chunk.region->host != nullptr)) {
        visit(chunk, runs, nullptr);
        continue;
      }
      for (const PageRun& run : runs) {
        Status status =
            memory_.CopyOut(run, bytes.get() + (run.first - chunk.pages.first) * kPageBytes);
        if (!status.ok()) {
          const std::lock_guard lock(mutex_);
          error_ = std::move(status.error());
          return;
        }
      }
      visit(chunk, runs, bytes.get());
    }
  }

  const GuestMemory& memory_;
  const Copy copy_;
  const std::function<bool()> cancelled_;
  const PresenceFinder finder_;
  std::mutex mutex_;
  std::size_t region_index_ = 0;
  std::uint64_t page_ = 0;
  std::uint64_t chunk_base_ = 0;
  std::optional<Error> error_;
};

}  // namespace chkpt

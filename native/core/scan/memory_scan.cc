#include "core/scan/memory_scan.h"

#include <algorithm>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "core/base/bytes.h"
#include "core/base/xxh3.h"
#include "core/memory/presence.h"
#include "core/scan/page_kernels.h"

namespace chkpt {
namespace {

struct Chunk {
  const Region* region = nullptr;
  PageRun pages;
  std::uint64_t index = 0;  // of all chunks of the memory
};

// Calls `visit(chunk, runs, bytes)` for every chunk with something present; `bytes` holds the
// chunk's pages in place (runs only are filled in) and belongs to the thread. With kVisitorCopies
// it is null for mapped regions: the visitor reads each page once, by itself.
class ChunkWalk {
 public:
  using Visit = std::function<void(const Chunk&, const std::vector<PageRun>&, std::uint8_t* bytes)>;

  enum class Copy : std::uint8_t { kWholeChunk, kVisitorCopies };

  ChunkWalk(const GuestMemory& memory, Copy copy, const std::atomic<bool>& cancelled)
      : memory_(memory), copy_(copy), cancelled_(cancelled) {}

  Status Run(unsigned threads, const Visit& visit) {
    std::vector<std::thread> workers;
    for (unsigned i = 1; i < threads; ++i) workers.emplace_back([&] { Work(visit); });
    Work(visit);
    for (std::thread& worker : workers) worker.join();
    if (cancelled_) return Error{.code = ErrorCode::kAborted, .message = "scan cancelled"};
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
        if (cancelled_) return false;
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
      if (copy_ == Copy::kVisitorCopies && chunk.region->host != nullptr) {
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
  const std::atomic<bool>& cancelled_;
  const PresenceFinder finder_;
  std::mutex mutex_;
  std::size_t region_index_ = 0;
  std::uint64_t page_ = 0;
  std::uint64_t chunk_base_ = 0;
  std::optional<Error> error_;
};

}  // namespace

Result<ScanTotals> ScanMemory(const GuestMemory& memory, unsigned threads,
                              const std::atomic<bool>& cancelled) {
  const PageKernels& kernels = BestPageKernels();
  std::atomic<std::uint64_t> present{0}, zero{0}, fill{0};
  const auto visit = [&](const Chunk& chunk, const std::vector<PageRun>& runs,
                         std::uint8_t* bytes) {
    std::uint64_t word = 0;
    std::uint64_t counts[3] = {};
    alignas(64) std::uint8_t copy[kPageBytes];
    const std::uint8_t* source =
        bytes != nullptr
            ? bytes
            : chunk.region->host + (chunk.pages.first - chunk.region->first_page) * kPageBytes;
    for (const PageRun& run : runs) {
      present += run.count;
      for (std::uint64_t page = run.first; page < run.end(); ++page) {
        const std::uint8_t* from = source + (page - chunk.pages.first) * kPageBytes;
        const PageClass page_class = bytes != nullptr ? kernels.classify(from, &word)
                                                      : kernels.copy_classify(from, copy, &word);
        ++counts[static_cast<std::size_t>(page_class)];
      }
    }
    zero += counts[static_cast<std::size_t>(PageClass::kZero)];
    fill += counts[static_cast<std::size_t>(PageClass::kFill)];
  };
  Status status = ChunkWalk(memory, ChunkWalk::Copy::kVisitorCopies, cancelled).Run(threads, visit);
  if (!status.ok()) return status.error();
  return ScanTotals{.pages = memory.page_count(),
                    .present = present,
                    .zero = memory.page_count() - present + zero,
                    .fill = fill};
}

Result<std::uint64_t> CountPresent(const GuestMemory& memory, const std::atomic<bool>& cancelled) {
  const PresenceFinder finder;
  std::uint64_t present = 0;
  std::vector<PageRun> runs;
  for (const Region& region : memory.regions()) {
    // Pieces, so that cancelling never waits long and the list of runs stays short.
    constexpr std::uint64_t kPiecePages = (std::uint64_t{1} << 30) / kPageBytes;
    for (std::uint64_t page = region.first_page; page < region.pages().end();) {
      if (cancelled) return Error{.code = ErrorCode::kAborted, .message = "scan cancelled"};
      const std::uint64_t count = std::min(kPiecePages, region.pages().end() - page);
      finder.PresentRuns(region, {page, count}, &runs);
      for (const PageRun& run : runs) present += run.count;
      page += count;
    }
  }
  return present;
}

Result<std::uint64_t> DigestMemory(const GuestMemory& memory, unsigned threads,
                                   const std::atomic<bool>& cancelled) {
  // Digest of a chunk: XXH3 of {chunk index, XXH3 of its pages}; 0 when all its pages are zero. The
  // sum over chunks does not depend on the order, and an untouched chunk costs nothing.
  const PageKernels& kernels = BestPageKernels();
  std::atomic<std::uint64_t> sum{0};
  const auto visit = [&](const Chunk& chunk, const std::vector<PageRun>& runs,
                         std::uint8_t* bytes) {
    std::uint64_t page = chunk.pages.first;
    for (const PageRun& run : runs) {
      std::fill_n(bytes + (page - chunk.pages.first) * kPageBytes, (run.first - page) * kPageBytes,
                  std::uint8_t{0});
      page = run.end();
    }
    std::fill_n(bytes + (page - chunk.pages.first) * kPageBytes,
                (chunk.pages.end() - page) * kPageBytes, std::uint8_t{0});
    if (kernels.count_zero(bytes, chunk.pages.count) == chunk.pages.count) return;
    std::uint8_t bound[16];
    Store<std::uint64_t>(bound, chunk.index);
    Store<std::uint64_t>(bound + 8, XXH3_64bits(bytes, chunk.pages.count * kPageBytes));
    sum += XXH3_64bits(bound, sizeof bound);
  };
  Status status = ChunkWalk(memory, ChunkWalk::Copy::kWholeChunk, cancelled).Run(threads, visit);
  if (!status.ok()) return status.error();
  std::vector<std::uint8_t> table(8 + 16 * memory.regions().size());
  Store<std::uint64_t>(table.data(), sum);
  std::uint8_t* entry = table.data() + 8;
  for (const Region& region : memory.regions()) {
    Store<std::uint64_t>(entry, region.base);
    Store<std::uint64_t>(entry + 8, region.bytes);
    entry += 16;
  }
  return std::uint64_t{XXH3_64bits(table.data(), table.size())};
}

}  // namespace chkpt

#include "core/scan/memory_scan.h"

#include <algorithm>
#include <vector>

#include "core/base/bytes.h"
#include "core/base/xxh3.h"
#include "core/memory/presence.h"
#include "core/scan/chunk_walk.h"
#include "core/scan/page_kernels.h"

namespace chkpt {

Result<ScanTotals> ScanMemory(const GuestMemory& memory, unsigned threads,
                              const std::atomic<bool>& cancelled) {
  const PageKernels& kernels = BestPageKernels();
  std::atomic<std::uint64_t> present{0}, zero{0}, fill{0};
  const auto visit = [&](const Chunk& chunk, const std::vector<PageRun>& runs,
                         std::uint8_t* bytes) {
    std::uint64_t word = 0;
    std::uint64_t counts[3] = {};
    const std::uint8_t* source =
        bytes != nullptr
            ? bytes
            : chunk.region->host + (chunk.pages.first - chunk.region->first_page) * kPageBytes;
    for (const PageRun& run : runs) {
      present += run.count;
      for (std::uint64_t page = run.first; page < run.end(); ++page) {
        const std::uint8_t* from = source + (page - chunk.pages.first) * kPageBytes;
        ++counts[static_cast<std::size_t>(kernels.classify(from, &word))];
      }
    }
    zero += counts[static_cast<std::size_t>(PageClass::kZero)];
    fill += counts[static_cast<std::size_t>(PageClass::kFill)];
  };
  Status status = ChunkWalk(memory, ChunkWalk::Copy::kVisitorCopies, [&] {
                    return cancelled.load();
                  }).Run(threads, visit);
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
  Status status = ChunkWalk(memory, ChunkWalk::Copy::kWholeChunk, [&] {
                    return cancelled.load();
                  }).Run(threads, visit);
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

Status TouchMemory(const GuestMemory& memory, std::uint64_t address, std::uint64_t bytes) {
  for (std::uint64_t at = address - address % kPageBytes; at < address + bytes; at += kPageBytes) {
    std::uint8_t byte = 0;
    Status read = memory.Read(at, {&byte, 1});
    if (!read.ok()) return read;
  }
  return Ok();
}

}  // namespace chkpt

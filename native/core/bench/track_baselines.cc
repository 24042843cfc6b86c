#include "core/bench/track_baselines.h"

#include <unistd.h>

#include <chrono>
#include <random>
#include <vector>

#include "core/memory/guest_copy.h"
#include "core/memory/pagemap.h"

namespace chkpt {
namespace {

double SecondsSince(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

// Order matters and no run may be left out, so that a wrong one changes the sum.
std::uint64_t AddRun(std::uint64_t sum, PageRun run) {
  return sum * 31 + run.first * 7 + run.count;
}

}  // namespace

void DirtyPages(const GuestMemory& memory, unsigned per_mille, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  for (const Region& region : memory.regions()) {
    const std::uint64_t count = region.page_count() * per_mille / 1000;
    for (std::uint64_t i = 0; i < count; ++i) {
      const std::uint64_t page = per_mille == 1000 ? i : random() % region.page_count();
      CopyGuest(region.host + page * kPageBytes, reinterpret_cast<const std::uint8_t*>(&seed),
                sizeof seed);
    }
  }
}

Result<Measured> MeasureBareScan(const GuestMemory& memory) {
  const int fd = OpenPagemap();
  if (fd < 0) return Error{.code = ErrorCode::kUnsupported, .message = "no pagemap"};
  std::vector<PagemapRange> found(4096);
  Measured measured;
  const auto begin = std::chrono::steady_clock::now();
  for (const Region& region : memory.regions()) {
    std::uint64_t at = reinterpret_cast<std::uintptr_t>(region.host);
    const std::uint64_t end = at + region.bytes;
    while (at < end) {
      const auto walk = ScanPagemap(fd,
                                    {.flags = kPagemapProtect | kPagemapOnlyAsync,
                                     .required = kPageIsWritten,
                                     .returned = kPageIsWritten},
                                    at, end, found);
      if (!walk || walk->end <= at) {
        ::close(fd);
        return Error{.code = ErrorCode::kUnsupported,
                     .message = "no PAGEMAP_SCAN over this memory"};
      }
      for (std::size_t i = 0; i < walk->count; ++i) {
        measured.result += (found[i].end - found[i].start) / kPageBytes;
      }
      at = walk->end;
    }
    measured.bytes += region.bytes;
  }
  measured.seconds = SecondsSince(begin);
  ::close(fd);
  return measured;
}

Measured MeasureBitLoop(const DirtyBitmap& set) {
  Measured measured = {.bytes = set.page_count() / 8};
  const auto begin = std::chrono::steady_clock::now();
  PageRun run;
  for (std::uint64_t page = 0; page < set.page_count(); ++page) {
    if (set.IsMarked(page)) {
      if (run.count == 0) run.first = page;
      ++run.count;
    } else if (run.count > 0) {
      measured.result = AddRun(measured.result, run);
      run.count = 0;
    }
  }
  if (run.count > 0) measured.result = AddRun(measured.result, run);
  measured.seconds = SecondsSince(begin);
  return measured;
}

Measured MeasureRuns(const DirtyBitmap& set) {
  std::vector<PageRun> runs(4096);
  Measured measured = {.bytes = set.page_count() / 8};
  const auto begin = std::chrono::steady_clock::now();
  std::uint64_t from = 0;
  for (std::size_t count = runs.size(); count == runs.size();) {
    count = set.Runs(from, runs);
    for (std::size_t i = 0; i < count; ++i) measured.result = AddRun(measured.result, runs[i]);
    if (count > 0) from = runs[count - 1].end();
  }
  measured.seconds = SecondsSince(begin);
  return measured;
}

}  // namespace chkpt

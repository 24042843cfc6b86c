// The oracle of dirty trackers: threads write and madvise at random while pages are harvested and
// copied into a shadow, as a migration does. When they have stopped and a last harvest was copied,
// memory and shadow are equal, or a page was lost.
#pragma once

#include <sys/mman.h>

#include <atomic>
#include <cstdint>
#include <cstring>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include "core/memory/guest_copy.h"
#include "core/memory/guest_memory.h"
#include "core/tracking/dirty_tracker.h"

namespace chkpt {

// A load that no optimizer leaves out, and no sanitizer takes for a race.
#if defined(__SANITIZE_THREAD__)
__attribute__((no_sanitize("thread"), noinline))
#endif
inline void
ReadGuest(const std::uint8_t* address) {
  static_cast<void>(*static_cast<const volatile std::uint8_t*>(address));
}

struct OracleOptions {
  std::uint64_t writes = 1'000'000;
  std::uint64_t batch_writes = 500'000;  // between two stops
  unsigned writers = 2;
  unsigned harvests = 2;  // while one batch runs
  bool advise = true;
  // The first copy of everything is made while the threads write, as a migration's first round.
  bool copies_running = true;
  std::uint64_t seed = 1;
  // Told pages whose number is a multiple of it are taken for untold: a tracker that loses pages,
  // which the oracle has to notice. 0: none.
  std::uint64_t lose_every = 0;
};

struct OracleReport {
  std::uint64_t writes = 0;
  std::uint64_t advices = 0;
  std::uint64_t stops = 0;
  std::uint64_t harvests = 0;
  std::uint64_t told_pages = 0;
  std::uint64_t missed_pages = 0;
  bool failed = false;  // a harvest gave an error
};

class TrackerOracle {
 public:
  TrackerOracle(DirtyTracker* tracker, const OracleOptions& options)
      : tracker_(tracker), memory_(*tracker->memory()), options_(options) {}

  OracleReport Run() {
    shadow_.resize(static_cast<std::size_t>(memory_.byte_count()));
    report_.failed = !tracker_->Arm(Never).ok();
    if (!options_.copies_running) CopyAll();
    while (report_.writes < options_.writes && !report_.failed) {
      Batch();
      report_.writes += options_.batch_writes;
    }
    report_.advices = advices_;
    return report_;
  }

 private:
  static bool Never() { return false; }
  std::uint8_t* Shadow(std::uint64_t page) { return shadow_.data() + page * kPageBytes; }

  void Batch() {
    std::atomic<unsigned> running{options_.writers};
    std::atomic<std::uint64_t> done{0};
    std::vector<std::thread> threads;
    for (unsigned i = 0; i < options_.writers; ++i) {
      threads.emplace_back([this, i, &running, &done] {
        WriteSome(options_.seed + report_.stops * options_.writers + i, &done);
        --running;
      });
    }
    if (report_.stops == 0 && options_.copies_running) CopyAll();
    for (unsigned i = 1; i <= options_.harvests; ++i) {
      // Spread over the batch, by writes and not by time.
      while (running > 0 && done < options_.batch_writes * i / (options_.harvests + 1)) {
        std::this_thread::yield();
      }
      HarvestIntoShadow();
    }
    for (std::thread& thread : threads) thread.join();
    HarvestIntoShadow();
    ++report_.stops;
    for (const Region& region : memory_.regions()) {
      for (std::uint64_t page = region.first_page; page < region.pages().end(); ++page) {
        const std::uint8_t* content = region.host + (page - region.first_page) * kPageBytes;
        if (std::memcmp(content, Shadow(page), kPageBytes) != 0) {
          ++report_.missed_pages;
          std::memcpy(Shadow(page), content, kPageBytes);
        }
      }
    }
  }

  void CopyAll() {
    for (const Region& region : memory_.regions()) {
      for (std::uint64_t page = region.first_page; page < region.pages().end(); ++page) {
        if (!memory_.CopyOut({page, 1}, Shadow(page)).ok()) report_.failed = true;
      }
    }
  }

  void HarvestIntoShadow() {
    DirtyBitmap set(memory_.page_count());
    report_.failed = report_.failed || !tracker_->Harvest(&set, Never).ok();
    ++report_.harvests;
    std::vector<PageRun> runs(static_cast<std::size_t>(memory_.page_count()));
    runs.resize(set.Runs(0, runs));
    for (const PageRun& run : runs) {
      report_.told_pages += run.count;
      for (std::uint64_t page = run.first; page < run.end(); ++page) {
        if (options_.lose_every != 0 && page % options_.lose_every == 0) continue;
        if (!memory_.CopyOut({page, 1}, Shadow(page)).ok()) report_.failed = true;
      }
    }
  }

  // Writes of 1 to 64 bytes, half of them in a few hot pages, and now and then advice.
  void WriteSome(std::uint64_t seed, std::atomic<std::uint64_t>* done) {
    std::mt19937_64 random(seed);
    std::uint8_t bytes[64];
    const std::uint64_t count = options_.batch_writes / options_.writers;
    constexpr std::uint64_t kStep = 1024;
    for (std::uint64_t i = 0; i < count; ++i) {
      const std::uint64_t value = random();
      const std::uint64_t pages = memory_.page_count();
      const std::uint64_t page = value % 2 == 0 ? (value >> 8) % pages : (value >> 8) % 64 % pages;
      const Region& region = memory_.regions()[memory_.RegionOfPage(page)];
      const std::size_t length = 1 + (value >> 2) % sizeof bytes;
      const std::uint64_t offset = (value >> 40) % (kPageBytes - length);
      std::memcpy(bytes, &value, sizeof value);
      CopyGuest(region.host + (page - region.first_page) * kPageBytes + offset, bytes, length);
      if (i % kStep != 0) continue;
      *done += kStep;
      if (options_.advise && i % (16 * kStep) == 0) Advise(random());
    }
  }

  void Advise(std::uint64_t value) {
    const Region& region = memory_.regions()[(value >> 4) % memory_.regions().size()];
    const std::uint64_t unit = region.backing == Backing::kHugetlb ? kChunkPages : 1;
    const std::uint64_t units = region.page_count() / unit;
    const std::uint64_t first = (value >> 16) % units;
    const std::uint64_t count = std::min(units - first, 1 + (value >> 48) % 700 / unit);
    std::uint8_t* start = region.host + first * unit * kPageBytes;
    const std::size_t bytes = static_cast<std::size_t>(count * unit * kPageBytes);
    ++advices_;
    switch (value % 6) {
      case 0: ::madvise(start, bytes, MADV_DONTNEED); break;
      case 1:
        if (region.backing == Backing::kMemfd) ::madvise(start, bytes, MADV_REMOVE);
        break;
      case 2: ::madvise(start, bytes, MADV_HUGEPAGE); break;
      case 3: ::madvise(start, bytes, MADV_NOHUGEPAGE); break;
      case 4:
        if (region.backing != Backing::kAttached) {
          const bool zeroed = memory_.Zero({region.first_page + first * unit, count * unit}).ok();
          if (!zeroed) report_.failed = true;
        }
        break;
      // What was dropped is read, so that it comes back.
      case 5:
        for (std::size_t at = 0; at < bytes; at += kPageBytes) ReadGuest(start + at);
        break;
    }
  }

  DirtyTracker* const tracker_;
  GuestMemory& memory_;
  const OracleOptions options_;
  OracleReport report_;
  std::atomic<std::uint64_t> advices_{0};
  std::vector<std::uint8_t> shadow_;
};

}  // namespace chkpt

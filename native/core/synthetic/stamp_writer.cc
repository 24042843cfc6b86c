#include "core/synthetic/stamp_writer.h"

#include <algorithm>
#include <chrono>

#include "core/base/check.h"
#include "core/memory/presence.h"
#include "core/synthetic/page_random.h"

namespace chkpt {
namespace {

using Clock = std::chrono::steady_clock;
using Seconds = std::chrono::duration<double>;

// Pages between two looks at the pause flag: some 100 microseconds.
constexpr std::uint64_t kBatchPagesMax = 64;
constexpr double kBatchesPerSecond = 500;
// A thread that is later than this does not catch up: a burst is not the rate that was asked for.
constexpr Seconds kLatenessMax{0.1};

// How fast one thread goes.
struct Pace {
  std::uint64_t batch_pages = kBatchPagesMax;
  Clock::duration interval{};  // from batch to batch; zero: no waiting
};

Pace PaceOf(const StampOptions& options) {
  Pace pace;
  if (options.pages_per_second == 0) return pace;
  const double rate =
      static_cast<double>(options.pages_per_second) / static_cast<double>(options.threads);
  pace.batch_pages = std::clamp<std::uint64_t>(
      static_cast<std::uint64_t>(std::min(rate / kBatchesPerSecond, 1e6)), 1, kBatchPagesMax);
  pace.interval = std::chrono::duration_cast<Clock::duration>(
      Seconds(static_cast<double>(pace.batch_pages) / rate));
  return pace;
}

PageRun WholeWhenEmpty(PageRun pages, const GuestMemory& memory) {
  return pages.count == 0 ? PageRun{0, memory.page_count()} : pages;
}

}  // namespace

class StampWriter::Target {
 public:
  Target(PageRun share, WritePattern pattern, std::uint64_t seed)
      : share_(share),
        hot_count_(std::max<std::uint64_t>(1, share.count / 10)),
        pattern_(pattern),
        random_(seed) {}

  std::uint64_t NextPage() {
    switch (pattern_) {
      case WritePattern::kSequential: return share_.first + cursor_++ % share_.count;
      case WritePattern::kRandom: return share_.first + random_.Next() % share_.count;
      case WritePattern::kHotspot: break;
    }
    const std::uint64_t count = random_.Below(10) != 0 ? hot_count_ : share_.count;
    return share_.first + random_.Next() % count;
  }

 private:
  const PageRun share_;
  const std::uint64_t hot_count_;
  const WritePattern pattern_;
  PageRandom random_;
  std::uint64_t cursor_ = 0;
};

StampWriter::StampWriter(std::shared_ptr<GuestMemory> memory, StampOptions options)
    : memory_(std::move(memory)), options_(options), stamps_(StampPages::Get()) {
  const PageRun pages = WholeWhenEmpty(options_.pages, *memory_);
  CHKPT_CHECK(options_.threads > 0);
  CHKPT_CHECK(pages.end() <= memory_->page_count());
  for (const Region& region : memory_->regions()) {
    CHKPT_CHECK(region.host != nullptr && region.writable);
  }
}

StampWriter::~StampWriter() { Stop(); }

void StampWriter::Start() {
  const std::lock_guard lock(mutex_);
  CHKPT_CHECK(threads_.empty() && !stopping_);
  memory_->MarkUsed();
  alive_ = options_.threads;
  for (unsigned i = 0; i < options_.threads; ++i) threads_.emplace_back([this, i] { Run(i); });
}

void StampWriter::Resume() {
  const std::lock_guard lock(mutex_);
  paused_ = false;
  changed_.notify_all();
}

void StampWriter::Pause() {
  std::unique_lock lock(mutex_);
  paused_ = true;
  changed_.notify_all();
  changed_.wait(lock, [this] { return running_ == 0 || !paused_; });
}

void StampWriter::Stop() {
  std::vector<std::thread> threads;
  {
    std::unique_lock lock(mutex_);
    stopping_ = true;
    changed_.notify_all();
    changed_.wait(lock, [this] { return alive_ == 0; });
    threads.swap(threads_);  // one of several callers joins
  }
  for (std::thread& thread : threads) thread.join();
}

PageRun StampWriter::ShareOf(unsigned index) const {
  const PageRun pages = WholeWhenEmpty(options_.pages, *memory_);
  const std::uint64_t size = pages.count / options_.threads;
  const std::uint64_t extra = pages.count % options_.threads;  // to the first threads, one each
  const std::uint64_t first = index * size + std::min<std::uint64_t>(index, extra);
  return {pages.first + first, size + (index < extra ? 1 : 0)};
}

void StampWriter::Run(unsigned index) {
  const PageRun share = ShareOf(index);
  const Pace pace = PaceOf(options_);
  Target target(share, options_.pattern, MixWords(options_.seed, index));

  std::unique_lock lock(mutex_);
  while (true) {
    // More threads than pages: those without a share only wait for the end.
    changed_.wait(lock, [&] { return stopping_ || (!paused_ && share.count != 0); });
    if (stopping_) break;
    ++running_;
    Clock::time_point due = Clock::now();
    while (!paused_ && !stopping_) {
      lock.unlock();
      WriteBatch(pace.batch_pages, &target);
      const Clock::time_point now = Clock::now();
      due = now - due > kLatenessMax ? now : due + pace.interval;
      lock.lock();
      if (due > now) changed_.wait_until(lock, due, [this] { return paused_ || stopping_; });
    }
    --running_;
    changed_.notify_all();
  }
  --alive_;
  changed_.notify_all();
}

void StampWriter::WriteBatch(std::uint64_t page_count, Target* target) {
  const std::uint64_t before = counter_.fetch_add(page_count, std::memory_order_relaxed);
  for (std::uint64_t i = 1; i <= page_count; ++i) {
    const std::uint64_t page = target->NextPage();
    const Region& region = memory_->regions()[memory_->RegionOfPage(page)];
    std::uint8_t* const host = region.host + (page - region.first_page) * kPageBytes;
    stamps_.Write(page, before + i, reinterpret_cast<std::uint64_t*>(host));
  }
  pages_written_.fetch_add(page_count, std::memory_order_relaxed);
}

StampCheck CheckStamps(const GuestMemory& memory, PageRun pages) {
  const PageRun whole = WholeWhenEmpty(pages, memory);
  const StampPages& stamps = StampPages::Get();
  const PresenceFinder finder;
  StampCheck check;
  std::vector<PageRun> runs;
  alignas(64) std::uint64_t words[kBlockPages * kPageWords];

  const auto check_block = [&](PageRun block) {
    const bool readable = memory.CopyOut(block, reinterpret_cast<std::uint8_t*>(words)).ok();
    for (std::uint64_t i = 0; i < block.count; ++i) {
      std::uint64_t counter = 0;
      const StampState state = readable
                                   ? stamps.Check(block.first + i, words + i * kPageWords, &counter)
                                   : StampState::kDamaged;
      if (state == StampState::kNone) continue;
      if (state == StampState::kValid) {
        ++check.stamped;
        check.highest_counter = std::max(check.highest_counter, counter);
      } else if (check.damaged++ == 0) {
        check.first_damaged = block.first + i;
      }
    }
  };
  for (const Region& region : memory.regions()) {
    const std::uint64_t first = std::max(whole.first, region.first_page);
    const std::uint64_t end = std::min(whole.end(), region.pages().end());
    if (first >= end) continue;
    finder.PresentRuns(region, {first, end - first}, &runs);
    for (const PageRun& run : runs) {
      for (std::uint64_t page = run.first; page < run.end(); page += kBlockPages) {
        check_block({page, std::min<std::uint64_t>(kBlockPages, run.end() - page)});
      }
    }
  }
  return check;
}

}  // namespace chkpt

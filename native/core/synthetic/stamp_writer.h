// StampWriter: threads that dirty guest memory at a set rate and pattern, as a busy guest does,
// with pages that can be checked (stamp_page.h): a torn, lost or misplaced page is noticed when the
// writers are paused.
//
// Every thread stamps pages of its own share of the page run, so that no page is written by two
// threads. Counters are unique: the n-th stamp of all threads together carries n.
//
// Thread safety: every member may be called from any thread. Pause returns when no writer writes
// any more, Stop when all threads have ended.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "core/memory/guest_memory.h"
#include "core/synthetic/stamp_page.h"

namespace chkpt {

enum class WritePattern : std::uint8_t {
  kSequential,
  kRandom,
  kHotspot,  // 90 % of writes to 10 % of pages
};

struct StampOptions {
  unsigned threads = 1;
  std::uint64_t pages_per_second = 0;  // of all threads together; 0: as fast as possible
  WritePattern pattern = WritePattern::kRandom;
  std::uint64_t seed = 1;
  PageRun pages = {};  // which pages to write; whole memory when count is 0
};

struct StampCheck {
  std::uint64_t stamped = 0;        // pages with a valid stamp
  std::uint64_t damaged = 0;        // pages with the magic but a wrong number, body or checksum
  std::uint64_t first_damaged = 0;  // page number; means nothing when damaged is 0
  std::uint64_t highest_counter = 0;
};

class StampWriter {
 public:
  // REQUIRES: options.pages lies in the memory; every region is mapped and writable.
  StampWriter(std::shared_ptr<GuestMemory> memory, StampOptions options);
  ~StampWriter();  // stops
  StampWriter(const StampWriter&) = delete;
  StampWriter& operator=(const StampWriter&) = delete;

  // Starts the threads, paused. REQUIRES: not started before.
  void Start();
  void Resume();
  // Returns when every stamp that was begun is complete. A Resume meanwhile ends the wait too.
  void Pause();
  void Stop();

  std::uint64_t pages_written() const { return pages_written_.load(std::memory_order_relaxed); }
  // The counter of the last stamp: state that a checkpoint of a synthetic machine has to carry.
  // Exact while paused.
  std::uint64_t counter() const { return counter_.load(std::memory_order_relaxed); }
  // REQUIRES: paused.
  void set_counter(std::uint64_t value) { counter_.store(value, std::memory_order_relaxed); }

 private:
  class Target;  // chooses the pages of one thread

  void Run(unsigned index);
  void WriteBatch(std::uint64_t page_count, Target* target);
  PageRun ShareOf(unsigned index) const;

  const std::shared_ptr<GuestMemory> memory_;
  const StampOptions options_;
  const StampPages& stamps_;
  std::atomic<std::uint64_t> pages_written_{0};
  std::atomic<std::uint64_t> counter_{0};

  std::mutex mutex_;                 // guards what follows
  std::condition_variable changed_;  // any of it
  bool paused_ = true;
  bool stopping_ = false;
  unsigned running_ = 0;  // threads that may be writing
  unsigned alive_ = 0;    // threads that have not ended
  std::vector<std::thread> threads_;
};

// Checks every present page of `pages` that carries the magic; of the whole memory when its count
// is 0. A page that cannot be read counts as damaged. REQUIRES: nobody writes.
StampCheck CheckStamps(const GuestMemory& memory, PageRun pages);

}  // namespace chkpt

// StampWriter: threads that dirty guest memory at a set rate and pattern, as a busy guest does,
// with pages that can be checked. A stamped page holds {magic, page number, counter} at its start,
// a body derived from them in a few words spread over the page, and a checksum, all written so that
// a torn page is noticed when the writers were paused.
//
// Thread safety: Start, Pause, Resume, Stop from one controlling thread. Pause returns when no
// writer writes any more.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "core/memory/guest_memory.h"

namespace chkpt {

enum class WritePattern : std::uint8_t {
  kSequential,
  kRandom,
  kHotspot
};  // hotspot: 90 % of writes to 10 % of pages

struct StampOptions {
  unsigned threads = 1;
  std::uint64_t pages_per_second = 0;  // of all threads together; 0: as fast as possible
  WritePattern pattern = WritePattern::kRandom;
  std::uint64_t seed = 1;
  PageRun pages;  // which pages to write; whole memory when count is 0
};

struct StampCheck {
  std::uint64_t stamped = 0;  // pages with a valid stamp
  std::uint64_t damaged = 0;  // pages with the magic but a wrong number, body or checksum
  std::uint64_t first_damaged = 0;
  std::uint64_t highest_counter = 0;
};

class StampWriter {
 public:
  StampWriter(std::shared_ptr<GuestMemory> memory, StampOptions options);
  ~StampWriter();  // stops
  StampWriter(const StampWriter&) = delete;
  StampWriter& operator=(const StampWriter&) = delete;

  // Starts paused. REQUIRES: every region has a host mapping.
  void Start();
  void Resume();
  void Pause();
  void Stop();
  std::uint64_t pages_written() const { return pages_written_.load(std::memory_order_relaxed); }
  // Where each thread's counter is: state that a checkpoint of a synthetic machine has to carry.
  std::uint64_t counter() const { return counter_.load(std::memory_order_relaxed); }
  void set_counter(std::uint64_t value) { counter_.store(value, std::memory_order_relaxed); }

 private:
  void Run(unsigned index);

  const std::shared_ptr<GuestMemory> memory_;
  const StampOptions options_;
  std::atomic<std::uint64_t> pages_written_{0};
  std::atomic<std::uint64_t> counter_{0};
  std::mutex mutex_;
  std::condition_variable changed_;
  bool paused_ = true;
  bool stopping_ = false;
  unsigned running_ = 0;
  std::vector<std::thread> threads_;
};

// Checks every present page of `memory` that carries the magic. REQUIRES: nobody writes.
StampCheck CheckStamps(const GuestMemory& memory, PageRun pages);

}  // namespace chkpt

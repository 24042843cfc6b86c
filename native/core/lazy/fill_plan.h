// FillPlan: what the background fill brings next, and how fast: first the blocks of a recorded
// working set in their order, then everything else in page order.
//
// Thread safety: all of it from any thread.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <mutex>
#include <vector>

#include "core/lazy/block_map.h"

namespace chkpt {

class FillPlan {
 public:
  using Clock = std::chrono::steady_clock;

  // Blocks of `first` that do not exist are left out. `bytes_per_second` 0: as fast as possible.
  FillPlan(const BlockLayout& layout, std::vector<std::uint32_t> first,
           std::uint64_t bytes_per_second);

  // The next blocks, at most `kChunkBlocks`: a piece of the working set, or a 2 MiB stretch of one
  // region. Empty: that was all.
  std::vector<std::uint64_t> Next();
  // Whether the blocks that Next() gives now are of the working set.
  bool replaying() const { return next_listed_.load(std::memory_order_relaxed) < first_.size(); }

  // Books bytes that were brought; until when the fill has to wait for it.
  Clock::time_point Book(std::uint64_t bytes);

 private:
  const BlockLayout& layout_;
  std::vector<std::uint32_t> first_;
  const std::uint64_t bytes_per_second_;
  std::mutex mutex_;
  std::atomic<std::size_t> next_listed_{0};
  std::uint64_t next_block_ = 0;
  Clock::time_point paid_until_{};
};

}  // namespace chkpt

// BlockQueue: blocks that somebody waits for, on their way to threads that may take long over each.
//
// Thread safety: all of it from any thread.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>
#include <optional>

namespace chkpt {

class BlockQueue {
 public:
  void Push(std::uint64_t block) {
    const std::lock_guard lock(mutex_);
    blocks_.push_back(block);
    changed_.notify_one();
  }
  // Waits for the next one; nothing after End.
  std::optional<std::uint64_t> Pop() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return ended_ || !blocks_.empty(); });
    if (ended_) return std::nullopt;
    const std::uint64_t block = blocks_.front();
    blocks_.pop_front();
    return block;
  }
  void End() {
    const std::lock_guard lock(mutex_);
    ended_ = true;
    changed_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::uint64_t> blocks_;
  bool ended_ = false;
};

}  // namespace chkpt

// The threads of one pipeline: started as there is work for them, waited for without blocking.
//
// Thread safety: Start, and Join before destruction, by the owner; the rest from any thread.
#pragma once

#include <chrono>
#include <functional>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "core/base/check.h"

namespace chkpt {

// How often a caller who leaves all to the threads of a pipeline hears what they did.
inline constexpr std::chrono::milliseconds kTellEvery{20};

class WorkerThreads {
 public:
  // `notify` is called from the last thread after an AllDone that was false.
  explicit WorkerThreads(std::function<void()> notify) : notify_(std::move(notify)) {}
  ~WorkerThreads() { Join(); }
  WorkerThreads(const WorkerThreads&) = delete;
  WorkerThreads& operator=(const WorkerThreads&) = delete;

  void Start(std::function<void()> work) {
    {
      const std::lock_guard lock(mutex_);
      ++running_;
    }
    const std::lock_guard lock(join_mutex_);
    threads_.emplace_back([this, run = std::move(work)] {
      run();
      Leave();
    });
  }

  std::size_t count() const {
    const std::lock_guard lock(join_mutex_);
    return threads_.size();
  }

  // No thread does anything any more: Join returns at once.
  bool AllDone() {
    const std::lock_guard lock(mutex_);
    if (running_ != 0) done_wanted_ = true;
    return running_ == 0;
  }

  // Called twice: returns at once.
  void Join() {
    const std::lock_guard lock(join_mutex_);
    for (std::thread& thread : threads_) {
      if (thread.joinable()) thread.join();
    }
  }

 private:
  void Leave() {
    bool news = false;
    {
      const std::lock_guard lock(mutex_);
      news = --running_ == 0 && done_wanted_;
    }
    if (news) notify_();
  }

  const std::function<void()> notify_;
  std::mutex mutex_;
  unsigned running_ = 0;
  bool done_wanted_ = false;
  mutable std::mutex join_mutex_;
  std::vector<std::thread> threads_;
};

}  // namespace chkpt

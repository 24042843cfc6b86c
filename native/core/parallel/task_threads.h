// A thread for each task that runs; the thread of a task that is done serves the next one, because
// starting one costs its starter more than a short task takes.
//
// Ownership: the threads end with this object, or at Stop, after the tasks they run. So there are
// never more of them than tasks have run at the same time.
//
// Thread safety: Run from any thread; Stop and destruction by the owner, after the last Run.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <future>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

namespace chkpt {

class TaskThreads {
 public:
  TaskThreads() = default;
  ~TaskThreads() { Stop(); }
  TaskThreads(const TaskThreads&) = delete;
  TaskThreads& operator=(const TaskThreads&) = delete;

  // Runs `work` at once. The result is ready when `work` has returned.
  std::future<void> Run(std::function<void()> work) {
    std::packaged_task<void()> task(std::move(work));
    std::future<void> done = task.get_future();
    const std::lock_guard lock(mutex_);
    if (idle_ > handed_.size()) {
      handed_.push_back(std::move(task));
      task_handed_.notify_one();
    } else {
      threads_.emplace_back([this, first = std::move(task)]() mutable { Serve(std::move(first)); });
    }
    return done;
  }

  // Waits for all tasks. Called twice: returns at once.
  void Stop() {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
      task_handed_.notify_all();
    }
    for (std::thread& thread : threads_) thread.join();
    threads_.clear();
  }

  std::size_t thread_count() const {
    const std::lock_guard lock(mutex_);
    return threads_.size();
  }

 private:
  void Serve(std::packaged_task<void()> task) {
    for (;;) {
      task();
      task = {};  // what it holds goes now, not with the next one
      std::unique_lock lock(mutex_);
      ++idle_;
      task_handed_.wait(lock, [this] { return !handed_.empty() || stopping_; });
      --idle_;
      if (handed_.empty()) return;
      task = std::move(handed_.front());
      handed_.pop_front();
    }
  }

  mutable std::mutex mutex_;
  std::condition_variable task_handed_;
  std::deque<std::packaged_task<void()>> handed_;  // each for one idle thread
  std::size_t idle_ = 0;
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace chkpt

// SecondThread: work that is done beside the caller's own.
#pragma once

#include <pthread.h>

#include <functional>

namespace chkpt {

// Does work beside the caller, or, where the system has no thread to give, after it: a guest that
// stands still must not pay for that with its process, as it would with std::thread.
class SecondThread {
 public:
  // `work` outlives Finish.
  explicit SecondThread(const std::function<void()>& work)
      : work_(work), started_(::pthread_create(&thread_, nullptr, &Run, this) == 0) {}
  SecondThread(const SecondThread&) = delete;
  SecondThread& operator=(const SecondThread&) = delete;

  // Once, before it goes.
  void Finish() {
    if (started_) {
      ::pthread_join(thread_, nullptr);
    } else {
      work_();
    }
  }

 private:
  static void* Run(void* self) {
    static_cast<SecondThread*>(self)->work_();
    return nullptr;
  }

  const std::function<void()>& work_;
  pthread_t thread_{};
  const bool started_;
};

}  // namespace chkpt

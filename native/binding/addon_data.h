// State of one environment (main thread or worker thread). Nothing is global.
//
// Destruction order at teardown, all in one clean-up hook: every pollable lets go of threads that
// wait for JavaScript, since others are going to be joined that wait for those; every one cancels
// and joins its threads, those that fetch missing pages last; then those of tasks end and the
// mailbox closes. Wrapped objects are
// finalised by Node later and find nothing left to do.
#pragma once

#include <napi.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>

#include "binding/buffer_views.h"
#include "binding/mailbox.h"
#include "core/memory/buffer_pool.h"
#include "core/parallel/task_threads.h"

namespace chkpt::binding {

// Something with native threads that may have news for JavaScript.
class Pollable {
 public:
  virtual ~Pollable() = default;
  // On the JavaScript thread, after a post of its key. May destroy the object.
  virtual void OnNews(Napi::Env env) = 0;
  // Before the teardown of any: whoever waits for JavaScript, or for what it brings, is let go.
  virtual void LetGo() {}
  // Its threads bring what threads of others wait for: it is torn down after those.
  virtual bool ServesOthers() const { return false; }
  // Cancels and joins its threads. The environment goes away: no JavaScript may be called.
  virtual void Teardown() = 0;
};

class AddonData {
 public:
  static void Install(Napi::Env env);
  static AddonData& Of(Napi::Env env);

  std::uint64_t Register(Pollable* pollable);
  void Unregister(std::uint64_t key);
  // For native threads: posts `key`, whatever became of the environment.
  std::function<void()> NotifierOf(std::uint64_t key) const;

  Mailbox& mailbox() { return *mailbox_; }
  // Buffers of the pipelines of this environment, and what JavaScript has seen of them.
  const std::shared_ptr<BufferPool>& buffers() const { return buffers_; }
  BufferViews& views() { return views_; }
  TaskThreads& threads() { return threads_; }
  Napi::FunctionReference memory_constructor;
  Napi::FunctionReference page_set_constructor;
  Napi::FunctionReference save_constructor;
  Napi::FunctionReference load_constructor;
  Napi::FunctionReference lazy_constructor;
  Napi::FunctionReference missing_constructor;
  Napi::FunctionReference stamp_constructor;
  Napi::FunctionReference tracker_constructor;
  Napi::FunctionReference snapshot_constructor;

 private:
  void OnNews(Napi::Env env, std::uint64_t key);
  void Teardown();

  std::shared_ptr<Mailbox> mailbox_;
  // Shared with pipelines: the last one to go frees what lies idle.
  const std::shared_ptr<BufferPool> buffers_ = std::make_shared<BufferPool>();
  BufferViews views_;
  TaskThreads threads_;
  std::map<std::uint64_t, Pollable*> pollables_;
  std::uint64_t next_key_ = 1;
};

}  // namespace chkpt::binding

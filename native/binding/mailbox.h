// Mailbox: how native threads wake the JavaScript thread. Threads post a key; on the JavaScript
// thread the owner of the key looks for news. Posting is safe at any moment, also after the
// environment is gone: a thread-safe function must not be called after teardown (a use-after-free
// in Node 20), so a lock and a flag of our own stand before it.
//
// Thread safety: Post from any thread. Everything else on the JavaScript thread.
#pragma once

#include <napi.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <set>

namespace chkpt::binding {

class Mailbox {
 public:
  using Handler = std::function<void(Napi::Env, std::uint64_t key)>;

  static std::shared_ptr<Mailbox> Open(Napi::Env env, Handler handler);
  ~Mailbox() = default;
  Mailbox(const Mailbox&) = delete;
  Mailbox& operator=(const Mailbox&) = delete;

  void Post(std::uint64_t key);
  // After it returns nothing is posted any more.
  void Close();

  // Keeps the event loop alive while somebody waits for news.
  void AddWaiter(Napi::Env env);
  void RemoveWaiter(Napi::Env env);

 private:
  explicit Mailbox(Handler handler) : handler_(std::move(handler)) {}
  static void CallJs(napi_env env, napi_value callback, void* context, void* data);

  const Handler handler_;
  std::mutex mutex_;
  napi_threadsafe_function function_ = nullptr;  // null: closed
  std::set<std::uint64_t> keys_;
  std::uint64_t waiters_ = 0;
};

}  // namespace chkpt::binding

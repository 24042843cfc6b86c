// One computation on a thread that it has for itself, as a promise. An operation is two functions:
// `compute` off the JavaScript thread, `resolve` on it. Never libuv's pool: its four threads belong
// to fs and dns.
#pragma once

#include <napi.h>

#include <atomic>
#include <functional>
#include <future>
#include <memory>
#include <optional>
#include <utility>

#include "binding/addon_data.h"
#include "binding/convert.h"
#include "binding/promise.h"
#include "core/base/result.h"

namespace chkpt::binding {

template <typename T>
class Task final : public Pollable {
 public:
  using Compute = std::function<Result<T>(const std::atomic<bool>& cancelled)>;
  using Resolve = std::function<Napi::Value(Napi::Env, const T&)>;

  static Napi::Value Run(Napi::Env env, Compute compute, Resolve resolve) {
    auto* task = new Task(env, std::move(compute), std::move(resolve));
    const Napi::Value promise = task->promise_.value();
    task->Start(env);
    return promise;
  }

  void OnNews(Napi::Env env) override {
    if (!done_) return;
    ended_.wait();
    AddonData& data = AddonData::Of(env);
    data.Unregister(key_);
    data.mailbox().RemoveWaiter(env);
    if (result_->ok()) {
      promise_.Resolve(resolve_(env, result_->value()));
    } else {
      promise_.Reject(ToJs(env, result_->error()));
    }
    delete this;
  }

  void Teardown() override {
    cancelled_ = true;
    ended_.wait();
    delete this;
  }

 private:
  Task(Napi::Env env, Compute compute, Resolve resolve)
      : promise_(env), compute_(std::move(compute)), resolve_(std::move(resolve)) {}

  void Start(Napi::Env env) {
    AddonData& data = AddonData::Of(env);
    key_ = data.Register(this);
    data.mailbox().AddWaiter(env);
    ended_ = data.threads().Run([this, notify = data.NotifierOf(key_)] {
      result_.emplace(compute_(cancelled_));
      done_ = true;
      notify();
    });
  }

  const Promise promise_;
  const Compute compute_;
  const Resolve resolve_;
  std::uint64_t key_ = 0;
  std::atomic<bool> cancelled_{false};
  std::atomic<bool> done_{false};
  std::optional<Result<T>> result_;
  std::future<void> ended_;
};

}  // namespace chkpt::binding

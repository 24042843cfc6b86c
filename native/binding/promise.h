// A promise for JavaScript. Napi::Promise::Deferred leaves its members as they were, which is
// anything, when no promise can be made: in a worker that is being terminated that may be so from
// one call to the next, without an exception.
#pragma once

#include <napi.h>

namespace chkpt::binding {

class Promise {
 public:
  explicit Promise(Napi::Env env) : env_(env) {
    if (napi_create_promise(env, &deferred_, &promise_) == napi_ok) return;
    deferred_ = nullptr;
    promise_ = nullptr;
  }

  // Empty in an environment that is about to end. During the call that made it.
  Napi::Value value() const { return {env_, promise_}; }
  // Nothing happens in an environment that is about to end: nobody waits any more.
  void Resolve(const Napi::Value& value) const {
    if (deferred_ != nullptr) napi_resolve_deferred(env_, deferred_, value);
  }
  void Reject(const Napi::Value& error) const {
    if (deferred_ != nullptr) napi_reject_deferred(env_, deferred_, error);
  }

 private:
  napi_env env_;
  napi_deferred deferred_ = nullptr;
  napi_value promise_ = nullptr;
};

}  // namespace chkpt::binding

#include "binding/mailbox.h"

#include "core/base/check.h"

namespace chkpt::binding {

std::shared_ptr<Mailbox> Mailbox::Open(Napi::Env env, Handler handler) {
  std::shared_ptr<Mailbox> mailbox(new Mailbox(std::move(handler)));
  // The function's context is a shared_ptr of its own, freed with it: a call that is already queued
  // finds the mailbox.
  auto* context = new std::shared_ptr<Mailbox>(mailbox);
  const auto finalize = [](napi_env, void*, void* hint) {
    delete static_cast<std::shared_ptr<Mailbox>*>(hint);
  };
  napi_threadsafe_function function = nullptr;
  const napi_status status =
      napi_create_threadsafe_function(env, nullptr, nullptr, Napi::String::New(env, "chkpt"), 0, 1,
                                      context, finalize, context, CallJs, &function);
  CHKPT_CHECK(status == napi_ok);
  napi_unref_threadsafe_function(env, function);
  mailbox->function_ = function;
  return mailbox;
}

void Mailbox::Post(std::uint64_t key) {
  const std::lock_guard lock(mutex_);
  if (function_ == nullptr) return;
  const bool first = keys_.empty();
  keys_.insert(key);
  if (first) napi_call_threadsafe_function(function_, nullptr, napi_tsfn_nonblocking);
}

void Mailbox::Close() {
  const std::lock_guard lock(mutex_);
  if (function_ == nullptr) return;
  keys_.clear();
  napi_release_threadsafe_function(function_, napi_tsfn_abort);
  function_ = nullptr;
}

void Mailbox::AddWaiter(Napi::Env env) {
  if (waiters_++ == 0 && function_ != nullptr) napi_ref_threadsafe_function(env, function_);
}

void Mailbox::RemoveWaiter(Napi::Env env) {
  CHKPT_CHECK(waiters_ > 0);
  if (--waiters_ == 0 && function_ != nullptr) napi_unref_threadsafe_function(env, function_);
}

void Mailbox::CallJs(napi_env env, napi_value, void* context, void*) {
  if (env == nullptr) return;  // teardown
  const std::shared_ptr<Mailbox> mailbox = *static_cast<std::shared_ptr<Mailbox>*>(context);
  std::set<std::uint64_t> keys;
  {
    const std::lock_guard lock(mailbox->mutex_);
    keys.swap(mailbox->keys_);
  }
  for (const std::uint64_t key : keys) mailbox->handler_(Napi::Env(env), key);
}

}  // namespace chkpt::binding

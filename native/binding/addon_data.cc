#include "binding/addon_data.h"

#include <vector>

#include "core/base/check.h"

namespace chkpt::binding {

void AddonData::Install(Napi::Env env) {
  auto* data = new AddonData();
  data->mailbox_ =
      Mailbox::Open(env, [data](Napi::Env e, std::uint64_t key) { data->OnNews(e, key); });
  env.SetInstanceData<AddonData>(data);
  // After the thread-safe function exists: hooks run last in, first out, so ours runs before its
  // own.
  const napi_status status = napi_add_env_cleanup_hook(
      env, [](void* argument) { static_cast<AddonData*>(argument)->Teardown(); }, data);
  CHKPT_CHECK(status == napi_ok);
}

AddonData& AddonData::Of(Napi::Env env) { return *env.GetInstanceData<AddonData>(); }

std::uint64_t AddonData::Register(Pollable* pollable) {
  pollables_.emplace(next_key_, pollable);
  return next_key_++;
}

void AddonData::Unregister(std::uint64_t key) { pollables_.erase(key); }

std::function<void()> AddonData::NotifierOf(std::uint64_t key) const {
  return [mailbox = mailbox_, key] { mailbox->Post(key); };
}

void AddonData::OnNews(Napi::Env env, std::uint64_t key) {
  const auto found = pollables_.find(key);
  if (found != pollables_.end()) found->second->OnNews(env);
}

void AddonData::Teardown() {
  for (const auto& [key, pollable] : pollables_) pollable->LetGo();
  // A task deletes itself.
  std::vector<Pollable*> servers;
  for (const auto& [key, pollable] : pollables_) {
    if (pollable->ServesOthers()) {
      servers.push_back(pollable);
    } else {
      pollable->Teardown();
    }
  }
  for (Pollable* server : servers) server->Teardown();
  pollables_.clear();
  threads_.Stop();
  mailbox_->Close();
}

}  // namespace chkpt::binding

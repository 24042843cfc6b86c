#include "binding/copy_wrap.h"

#include <utility>

#include "binding/convert.h"
#include "binding/memory_wrap.h"
#include "binding/task.h"

namespace chkpt::binding {

void CopyWrap::Define(Napi::Env env, Napi::Object exports) {
  const Napi::Function constructor = DefineClass(env, "MemoryCopy",
                                                 {
                                                     InstanceMethod<&CopyWrap::Update>("update"),
                                                     InstanceMethod<&CopyWrap::Cancel>("cancel"),
                                                     InstanceMethod<&CopyWrap::Close>("close"),
                                                 });
  exports.Set("MemoryCopy", constructor);
}

CopyWrap::CopyWrap(const Napi::CallbackInfo& info) : Napi::ObjectWrap<CopyWrap>(info) {
  std::shared_ptr<GuestMemory> target = MemoryWrap::MemoryOf(info[0]);
  if (target == nullptr) return;
  for (const Region& region : target->regions()) {
    if (region.host == nullptr || !region.fresh) {
      ThrowType(info.Env(), "fresh memory of this process expected");
      return;
    }
  }
  work_ = std::make_shared<Work>(std::move(target));
}

Napi::Value CopyWrap::Update(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const std::shared_ptr<GuestMemory> source = MemoryWrap::MemoryOf(info[0]);
  if (source == nullptr) return {};
  const auto threads = ToUint64(info[1]);
  if (!threads || *threads < 1 || *threads > 64) return ThrowType(env, "1 to 64 threads expected");
  if (work_ == nullptr || work_->busy.exchange(true)) {
    return ThrowType(env, "the copy is closed or busy");
  }
  return Task<Nothing>::Run(
      env,
      [work = work_, source, count = static_cast<unsigned>(*threads)](
          const std::atomic<bool>& torn_down) -> Result<Nothing> {
        const auto cancelled = [&] { return torn_down.load() || work->cancelled.load(); };
        Status status = work->copy.Update(*source, count, cancelled);
        work->busy = false;
        return status;
      },
      [](Napi::Env e, const Nothing&) { return e.Undefined(); });
}

Napi::Value CopyWrap::Cancel(const Napi::CallbackInfo& info) {
  if (work_ != nullptr) work_->cancelled = true;
  return info.Env().Undefined();
}

Napi::Value CopyWrap::Close(const Napi::CallbackInfo& info) {
  if (work_ != nullptr) work_->cancelled = true;
  work_.reset();
  return info.Env().Undefined();
}

}  // namespace chkpt::binding

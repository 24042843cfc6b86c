// MemoryCopy for JavaScript.
//
//   new MemoryCopy(target)   update(source, threads): Promise<void>, one at a time · cancel()
//   close(): lets go of the target, which an update under way still holds
#pragma once

#include <napi.h>

#include <atomic>
#include <memory>

#include "core/scan/memory_copy.h"

namespace chkpt::binding {

class CopyWrap : public Napi::ObjectWrap<CopyWrap> {
 public:
  static void Define(Napi::Env env, Napi::Object exports);
  explicit CopyWrap(const Napi::CallbackInfo& info);

 private:
  Napi::Value Update(const Napi::CallbackInfo& info);
  Napi::Value Cancel(const Napi::CallbackInfo& info);
  Napi::Value Close(const Napi::CallbackInfo& info);

  // What an update works with, also when JavaScript has dropped this object.
  struct Work {
    explicit Work(std::shared_ptr<GuestMemory> target) : copy(std::move(target)) {}
    MemoryCopy copy;
    std::atomic<bool> cancelled{false};
    std::atomic<bool> busy{false};
  };
  std::shared_ptr<Work> work_;  // null: closed
};

}  // namespace chkpt::binding

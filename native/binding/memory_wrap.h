// GuestMemory for JavaScript. Reading and writing copies; no view of guest memory is ever handed
// out.
#pragma once

#include <napi.h>

#include <memory>
#include <vector>

#include "core/memory/guest_memory.h"

namespace chkpt::binding {

class MemoryWrap : public Napi::ObjectWrap<MemoryWrap> {
 public:
  static void Define(Napi::Env env, Napi::Object exports);
  explicit MemoryWrap(const Napi::CallbackInfo& info);

  // The memory behind a JavaScript object; null and a pending exception when it is none, closed, or
  // its attached buffers were detached.
  static std::shared_ptr<GuestMemory> MemoryOf(const Napi::Value& value);
  // A JavaScript object for `memory`; empty, with its error thrown, when there is none.
  static Napi::Value Wrap(Napi::Env env, Result<std::shared_ptr<GuestMemory>> memory);

 private:
  static Napi::Value Allocate(const Napi::CallbackInfo& info);
  static Napi::Value OpenFiles(const Napi::CallbackInfo& info);
  static Napi::Value Attach(const Napi::CallbackInfo& info);
  static Napi::Value Describe(const Napi::CallbackInfo& info);

  Napi::Value Read(const Napi::CallbackInfo& info);
  Napi::Value Write(const Napi::CallbackInfo& info);
  Napi::Value EncodeRun(const Napi::CallbackInfo& info);
  Napi::Value Scan(const Napi::CallbackInfo& info);
  Napi::Value Digest(const Napi::CallbackInfo& info);
  Napi::Value Presence(const Napi::CallbackInfo& info);
  Napi::Value Touch(const Napi::CallbackInfo& info);
  Napi::Value FillGuestLike(const Napi::CallbackInfo& info);
  Napi::Value CheckStamps(const Napi::CallbackInfo& info);
  Napi::Value SharesBytesWith(const Napi::CallbackInfo& info);
  Napi::Value ResetClone(const Napi::CallbackInfo& info);
  Napi::Value Close(const Napi::CallbackInfo& info);

  struct Attached {
    Napi::ObjectReference view;
    const void* data = nullptr;
    std::size_t bytes = 0;
  };
  bool StillAttached() const;
  // Null and a pending exception when closed or detached.
  std::shared_ptr<GuestMemory> Open(Napi::Env env) const;

  std::shared_ptr<GuestMemory> memory_;
  std::vector<Attached> attached_;
};

}  // namespace chkpt::binding

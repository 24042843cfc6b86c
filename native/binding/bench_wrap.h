// The baselines of core/bench for bench/. All of them return promises of {seconds, bytes, result}.
#pragma once

#include <napi.h>

#include <memory>

#include "core/bench/baselines.h"

namespace chkpt::binding {

class BlocksWrap : public Napi::ObjectWrap<BlocksWrap> {
 public:
  static void Define(Napi::Env env, Napi::Object exports);
  explicit BlocksWrap(const Napi::CallbackInfo& info);

 private:
  Napi::Value Add(const Napi::CallbackInfo& info);
  Napi::Value Compress(const Napi::CallbackInfo& info);
  Napi::Value Decode(const Napi::CallbackInfo& info);

  const std::shared_ptr<StoredBlocks> blocks_;
};

void DefineBaselines(Napi::Env env, Napi::Object exports);

}  // namespace chkpt::binding

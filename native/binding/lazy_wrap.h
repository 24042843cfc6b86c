// LazyLoader for JavaScript.
//
//   new LazyLoader(memory, {layers, handlerThreads, fillThreads, fillBytesPerSecond, fillDelayMs,
//                           replay, poison})
//   layers: [{uuid, epoch, hasParent, endOffset, groups, extents}], newest first
//   extents: [{bytes, descriptor, position} | {bytes, view}]; views are kept and must not change
//   wait(stage): Promise<void>, one at a time; rejects with what went wrong
//   arm() · abort() · release() · hasFailed(): boolean · counts() · workingSet(): Uint8Array ·
//   digests(): Uint8Array · close(): Promise<void>
//
// The thread that makes it is the one that must not be held by damaged pages.
#pragma once

#include <napi.h>

#include <vector>

#include "binding/pipeline_wrap.h"
#include "core/lazy/lazy_loader.h"

namespace chkpt::binding {

class LazyWrap : public PipelineWrap<LazyWrap, LazyLoader> {
 public:
  static void Define(Napi::Env env, Napi::Object exports);
  explicit LazyWrap(const Napi::CallbackInfo& info);

 private:
  Napi::Value WaitFor(const Napi::CallbackInfo& info);
  Napi::Value Arm(const Napi::CallbackInfo& info);
  Napi::Value Abort(const Napi::CallbackInfo& info);
  Napi::Value Release(const Napi::CallbackInfo& info);
  Napi::Value HasFailed(const Napi::CallbackInfo& info);
  Napi::Value Counts(const Napi::CallbackInfo& info);
  Napi::Value WorkingSet(const Napi::CallbackInfo& info);
  Napi::Value Digests(const Napi::CallbackInfo& info);
  Napi::Value Close(const Napi::CallbackInfo& info);
  bool TrySettle(Napi::Env env) override;

  LazyLoader::Stage wanted_ = LazyLoader::Stage::kResident;
  std::vector<Napi::ObjectReference> pins_;  // what native threads read from
};

}  // namespace chkpt::binding

// LoadPipeline for JavaScript: page-aligned read buffers in, a promise of the end out.
//
//   new LoadPipeline(memory, {uuid, epoch, sequence, offset, threads, bufferCount})
//   acquire(): Promise<{buffer, view}>       one at a time; rejects when the load failed
//   push(buffer, bytes): {digests, ended, leftover}   · giveBack(buffer)
//   finish(): Promise<totals>   · settle(): Promise<void>, rejects with the first damage   ·
//   close(): Promise<void>
#pragma once

#include <napi.h>

#include <optional>
#include <vector>

#include "binding/pipeline_wrap.h"
#include "core/parallel/load_pipeline.h"

namespace chkpt::binding {

class LoadWrap : public PipelineWrap<LoadWrap, LoadPipeline> {
 public:
  static void Define(Napi::Env env, Napi::Object exports);
  explicit LoadWrap(const Napi::CallbackInfo& info);

 private:
  Napi::Value Acquire(const Napi::CallbackInfo& info);
  Napi::Value Feed(const Napi::CallbackInfo& info);
  Napi::Value Fed(const Napi::CallbackInfo& info);
  bool SettleFed(Napi::Env env);
  Napi::Value Push(const Napi::CallbackInfo& info);
  Napi::Value GiveBack(const Napi::CallbackInfo& info);
  Napi::Value Finish(const Napi::CallbackInfo& info);
  Napi::Value Settle(const Napi::CallbackInfo& info);
  Napi::Value Close(const Napi::CallbackInfo& info);

  enum class Waiting { kNothing, kBuffer, kFed, kEnd };
  Napi::Value WaitFor(Napi::Env env, Waiting waiting);
  bool TrySettle(Napi::Env env) override;
  bool SettleBuffer(Napi::Env env);
  Napi::Value BufferToJs(Napi::Env env, std::size_t buffer);
  std::optional<std::size_t> TakenBuffer(const Napi::Value& value);

  Waiting waiting_ = Waiting::kNothing;
  bool feeding_ = false;     // buffers are a thread's
  std::vector<bool> taken_;  // by buffer index
};

}  // namespace chkpt::binding

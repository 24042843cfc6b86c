// SavePipeline for JavaScript: slabs as promises.
//
//   new SavePipeline(memory, {uuid, epoch, sequence, offset, codec, acceleration, dedup, threads,
//                             slabCount})
//   next(): Promise<{pieces, digests, groups, pages} | undefined>   all slabs that are ready
//   release()                                                       those of the last next()
//   totals() · close(): Promise<void>
#pragma once

#include <napi.h>

#include <vector>

#include "binding/pipeline_wrap.h"
#include "core/parallel/save_pipeline.h"

namespace chkpt::binding {

class SaveWrap : public PipelineWrap<SaveWrap, SavePipeline> {
 public:
  static void Define(Napi::Env env, Napi::Object exports);
  explicit SaveWrap(const Napi::CallbackInfo& info);

 private:
  Napi::Value Next(const Napi::CallbackInfo& info);
  Napi::Value Release(const Napi::CallbackInfo& info);
  Napi::Value Close(const Napi::CallbackInfo& info);
  Napi::Value Totals(const Napi::CallbackInfo& info);
  Napi::Value SlabsToJs(Napi::Env env);
  static Napi::Value WrittenToJs(Napi::Env env, const SavePipeline::Written& written);
  // False, with an exception pending, where that is none.
  static bool TakeOutput(Napi::Env env, const Napi::Value& value, SaveOptions* options);
  bool TrySettle(Napi::Env env) override;

  std::vector<const Slab*> taken_;  // with JavaScript
};

}  // namespace chkpt::binding

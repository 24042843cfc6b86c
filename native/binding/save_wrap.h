// SavePipeline for JavaScript: slabs as promises.
//
//   new SavePipeline(memory, {uuid, epoch, sequence, offset, codec, acceleration, dedup, threads,
//   slabCount}) next(): Promise<{slab, view, begin, bytes, digests, groups} | undefined>     one at
//   a time release(slab) · totals() · close(): Promise<void>
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
  Napi::Value SlabToJs(Napi::Env env, const Slab& slab);
  bool TrySettle(Napi::Env env) override;

  std::vector<const Slab*> taken_;  // by slab index; null when not with JavaScript
};

}  // namespace chkpt::binding

// SavePipeline for JavaScript: slabs as promises.
//
//   new SavePipeline(memory, {uuid, epoch, sequence, offset, codec, acceleration, dedup, threads,
//   slabCount}) next(): Promise<{slab, view, begin, bytes, digests, groups} | undefined>     one at
//   a time release(slab) · totals() · close(): Promise<void>
#pragma once

#include <napi.h>

#include <memory>
#include <optional>
#include <vector>

#include "binding/addon_data.h"
#include "core/parallel/save_pipeline.h"

namespace chkpt::binding {

class SaveWrap : public Napi::ObjectWrap<SaveWrap>, public Pollable {
 public:
  static void Define(Napi::Env env, Napi::Object exports);
  explicit SaveWrap(const Napi::CallbackInfo& info);
  ~SaveWrap() override;

  void OnNews(Napi::Env env) override;
  void Teardown() override;

 private:
  Napi::Value Next(const Napi::CallbackInfo& info);
  Napi::Value Release(const Napi::CallbackInfo& info);
  Napi::Value Totals(const Napi::CallbackInfo& info);
  Napi::Value Close(const Napi::CallbackInfo& info);
  Napi::Value SlabToJs(Napi::Env env, const Slab& slab);
  bool Settle(Napi::Env env);

  // Shared with the thread that joins it on close.
  std::shared_ptr<SavePipeline> pipeline_;
  std::uint64_t key_ = 0;
  AddonData* data_ = nullptr;  // null after teardown
  std::optional<Napi::Promise::Deferred> pending_;
  std::vector<const Slab*> taken_;                   // by slab index; null when not with JavaScript
  std::vector<Napi::Reference<Napi::Value>> views_;  // one view per slab, made once
};

}  // namespace chkpt::binding

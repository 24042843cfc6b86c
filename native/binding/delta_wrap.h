// DeltaCache for JavaScript.
//
//   new DeltaCache(pageCount, versionCount)    forget(set) · counts(): {deltas, unchanged,
//   versions}
#pragma once

#include <napi.h>

#include <memory>

#include "core/parallel/delta_cache.h"

namespace chkpt::binding {

class DeltaWrap : public Napi::ObjectWrap<DeltaWrap> {
 public:
  static void Define(Napi::Env env, Napi::Object exports);
  explicit DeltaWrap(const Napi::CallbackInfo& info);

  // Null where `value` is no DeltaCache.
  static std::shared_ptr<DeltaCache> Of(const Napi::Value& value);

 private:
  Napi::Value Forget(const Napi::CallbackInfo& info);
  Napi::Value Counts(const Napi::CallbackInfo& info);

  std::shared_ptr<DeltaCache> cache_;
};

}  // namespace chkpt::binding

// Records of a sealed stream (src/store/seal), encrypted off the JavaScript thread.
//   new RecordSealer(algorithm, key, recordBytes)
//   writeTo(descriptor, position): boolean; false: there is no descriptor to spare
//   stayInMemory()
//   seal(firstRecord, pieces, out, offset): Promise<number>, any number at a time
// The constructor throws kUnsupported where Node's OpenSSL is not found. `pieces`: whole records,
// one behind the other. `out`: each record, its tag behind it; behind `writeTo` it is also written,
// `offset` bytes behind the position. The result is the errno of a write that failed, or 0.
#pragma once

#include <napi.h>

#include <memory>

#include "core/parallel/slab_output.h"

namespace chkpt::binding {

class SealWrap final : public Napi::ObjectWrap<SealWrap> {
 public:
  static void Define(Napi::Env env, Napi::Object exports);
  explicit SealWrap(const Napi::CallbackInfo& info);

 private:
  struct Settings;

  Napi::Value WriteTo(const Napi::CallbackInfo& info);
  void StayInMemory(const Napi::CallbackInfo& info);
  Napi::Value Seal(const Napi::CallbackInfo& info);

  std::shared_ptr<const Settings> settings_;
  std::shared_ptr<const SlabOutput> output_;  // null: what is sealed stays in memory
};

}  // namespace chkpt::binding

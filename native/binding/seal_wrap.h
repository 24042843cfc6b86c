// Records of a sealed stream (src/store/seal), encrypted off the JavaScript thread.
//   new RecordSealer(algorithm, key, recordBytes)    throws kUnsupported where Node's OpenSSL is
//   not found seal(firstRecord, pieces, out): Promise<void>, any number at a time
//     `pieces`: whole records, one behind the other. `out`: each record, its tag behind it.
#pragma once

#include <napi.h>

#include <memory>

namespace chkpt::binding {

class SealWrap final : public Napi::ObjectWrap<SealWrap> {
 public:
  static void Define(Napi::Env env, Napi::Object exports);
  explicit SealWrap(const Napi::CallbackInfo& info);

 private:
  struct Settings;

  Napi::Value Seal(const Napi::CallbackInfo& info);

  std::shared_ptr<const Settings> settings_;
};

}  // namespace chkpt::binding

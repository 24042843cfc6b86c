// AskedSource for JavaScript: bytes that native threads want from a store that only JavaScript can
// read.
//
//   new BlockRequests(byteCount)   of the stream
//   next(): Promise<Float64Array | undefined>: (id, offset, bytes) of each request, as they come;
//           undefined: closed; one call at a time
//   answer(id, bytes): all that was asked for, or less: the stream ends there. They are copied.
//   refuse(id): it could not be read
//   close(): Promise<void>: requests under way, and all later ones, end with CHKPT_ABORTED
#pragma once

#include <napi.h>

#include <memory>
#include <utility>

#include "binding/pipeline_wrap.h"
#include "core/lazy/asked_source.h"

namespace chkpt::binding {

// What reads from it keeps the source, too.
class RequestsWork {
 public:
  explicit RequestsWork(std::shared_ptr<AskedSource> source) : source_(std::move(source)) {}

  const std::shared_ptr<AskedSource>& source() const { return source_; }
  void Cancel() { source_->Cancel(); }
  bool AllDone() { return true; }
  void Join() {}

 private:
  const std::shared_ptr<AskedSource> source_;
};

class RequestsWrap : public PipelineWrap<RequestsWrap, RequestsWork> {
 public:
  static void Define(Napi::Env env, Napi::Object exports);
  explicit RequestsWrap(const Napi::CallbackInfo& info);

  // Null when `value` is none that is open.
  static std::shared_ptr<BlockSource> SourceOf(const Napi::Value& value);

 private:
  Napi::Value Next(const Napi::CallbackInfo& info);
  Napi::Value Answer(const Napi::CallbackInfo& info);
  Napi::Value Refuse(const Napi::CallbackInfo& info);
  Napi::Value Close(const Napi::CallbackInfo& info);
  bool TrySettle(Napi::Env env) override;
};

}  // namespace chkpt::binding

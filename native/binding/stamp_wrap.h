// StampWriter for JavaScript: the threads of a synthetic guest.
//
//   new StampWriter(memory, {threads, pagesPerSecond, pattern, seed, firstPage, pageCount})
//   resume() · pause(): Promise<void> · stop(): Promise<void> · pagesWritten() · counter(): bigint
//   · setCounter(bigint)
#pragma once

#include <napi.h>

#include <memory>

#include "binding/addon_data.h"
#include "core/synthetic/stamp_writer.h"

namespace chkpt::binding {

class StampWrap : public Napi::ObjectWrap<StampWrap>, public Pollable {
 public:
  static void Define(Napi::Env env, Napi::Object exports);
  explicit StampWrap(const Napi::CallbackInfo& info);
  ~StampWrap() override;

  void OnNews(Napi::Env) override {}
  void Teardown() override;

 private:
  Napi::Value Resume(const Napi::CallbackInfo& info);
  Napi::Value Pause(const Napi::CallbackInfo& info);
  Napi::Value Stop(const Napi::CallbackInfo& info);
  Napi::Value PagesWritten(const Napi::CallbackInfo& info);
  Napi::Value Counter(const Napi::CallbackInfo& info);
  Napi::Value SetCounter(const Napi::CallbackInfo& info);

  std::shared_ptr<StampWriter> writer_;
  std::uint64_t key_ = 0;
  AddonData* data_ = nullptr;
};

}  // namespace chkpt::binding

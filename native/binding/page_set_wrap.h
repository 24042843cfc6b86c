// PageSet for JavaScript: a DirtyBitmap that JavaScript and native threads share.
//
//   new PageSet(pageCount)   count() · markRun(first, count) · merge(other) · take(): PageSet
//   clearRun(first, count) · subtract(other) · runAround(page, first, count): [first, count]
//   runs(from, limit): Float64Array of first, count, first, count, …
//   bits(): Uint8Array · mergeBits(bits)
//
// Everything is synchronous: words are walked, 8 MiB of memory in microseconds.
#pragma once

#include <napi.h>

#include <memory>
#include <optional>

#include "core/bitmap/dirty_bitmap.h"

namespace chkpt::binding {

class PageSetWrap : public Napi::ObjectWrap<PageSetWrap> {
 public:
  static void Define(Napi::Env env, Napi::Object exports);
  explicit PageSetWrap(const Napi::CallbackInfo& info);
  void Finalize(Napi::BasicEnv env) override;

  // The set behind a JavaScript object; null and a pending exception when it is none.
  static std::shared_ptr<DirtyBitmap> SetOf(const Napi::Value& value);
  // A JavaScript object for `set`.
  static Napi::Value Wrap(Napi::Env env, std::shared_ptr<DirtyBitmap> set);

 private:
  Napi::Value Count(const Napi::CallbackInfo& info);
  Napi::Value MarkRun(const Napi::CallbackInfo& info);
  Napi::Value Merge(const Napi::CallbackInfo& info);
  Napi::Value Take(const Napi::CallbackInfo& info);
  Napi::Value TakeFirst(const Napi::CallbackInfo& info);
  Napi::Value RunAround(const Napi::CallbackInfo& info);
  Napi::Value ClearRun(const Napi::CallbackInfo& info);
  Napi::Value Subtract(const Napi::CallbackInfo& info);
  Napi::Value Runs(const Napi::CallbackInfo& info);
  Napi::Value Bits(const Napi::CallbackInfo& info);
  Napi::Value MergeBits(const Napi::CallbackInfo& info);
  // Arguments; nothing, with a pending exception, where they are none.
  std::optional<PageRun> RunOf(const Napi::CallbackInfo& info) const;
  std::shared_ptr<DirtyBitmap> OtherOf(const Napi::Value& value) const;

  std::shared_ptr<DirtyBitmap> set_;
  std::int64_t told_bytes_ = 0;  // what V8 was told that this object keeps
};

}  // namespace chkpt::binding

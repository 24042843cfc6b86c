// ChainLoad and PageDigests for JavaScript.
//
//   new ChainLoad(pageCount)    advance() · deferred(): false, or true: then a load with `resolve`
//   is due · leaveAlone(set): before the first load
//   new PageDigests(pageCount, key?: PageDigests)    forget(set) · differing(other, set):
//   Promise<void>
#pragma once

#include <napi.h>

#include <memory>

#include "core/parallel/chain_load.h"
#include "core/parallel/page_resolver.h"
#include "core/scan/page_digests.h"

namespace chkpt::binding {

class ChainWrap : public Napi::ObjectWrap<ChainWrap> {
 public:
  static void Define(Napi::Env env, Napi::Object exports);
  explicit ChainWrap(const Napi::CallbackInfo& info);

  // Null where `value` is no ChainLoad.
  static ChainWrap* Of(const Napi::Value& value);
  const std::shared_ptr<ChainLoad>& chain() const { return chain_; }
  // Null: nothing was put off.
  const std::shared_ptr<const PageResolver>& resolver() const { return resolver_; }

 private:
  Napi::Value Advance(const Napi::CallbackInfo& info);
  Napi::Value Deferred(const Napi::CallbackInfo& info);
  Napi::Value LeaveAlone(const Napi::CallbackInfo& info);

  std::shared_ptr<ChainLoad> chain_;
  std::shared_ptr<const PageResolver> resolver_;
};

class DigestsWrap : public Napi::ObjectWrap<DigestsWrap> {
 public:
  static void Define(Napi::Env env, Napi::Object exports);
  explicit DigestsWrap(const Napi::CallbackInfo& info);

  // Null where `value` is no PageDigests.
  static std::shared_ptr<PageDigests> Of(const Napi::Value& value);

 private:
  Napi::Value Forget(const Napi::CallbackInfo& info);
  Napi::Value Differing(const Napi::CallbackInfo& info);

  std::shared_ptr<PageDigests> digests_;
};

}  // namespace chkpt::binding

#include "binding/delta_wrap.h"

#include <utility>

#include "binding/convert.h"
#include "binding/page_set_wrap.h"
#include "core/base/units.h"

namespace chkpt::binding {
namespace {

constexpr napi_type_tag kDeltaTag = {0x2f61c8d0b7e3954a, 0xe80b53d41c7a962f};

}  // namespace

void DeltaWrap::Define(Napi::Env env, Napi::Object exports) {
  exports.Set("DeltaCache", DefineClass(env, "DeltaCache",
                                        {
                                            InstanceMethod<&DeltaWrap::Forget>("forget"),
                                            InstanceMethod<&DeltaWrap::Counts>("counts"),
                                        }));
}

DeltaWrap::DeltaWrap(const Napi::CallbackInfo& info) : Napi::ObjectWrap<DeltaWrap>(info) {
  const Napi::Env env = info.Env();
  const auto pages = ToUint64(info[0]);
  const auto versions = ToUint64(info[1]);
  if (!pages || *pages < 1 || *pages > kMemoryBytesMax / kPageBytes || !versions || *versions < 1 ||
      *versions > DeltaCache::kVersionsMax) {
    ThrowType(env, "numbers of pages expected");
    return;
  }
  auto cache = DeltaCache::Create(*pages, *versions);
  if (!cache.ok()) {
    Throw(env, cache.error());
    return;
  }
  cache_ = std::move(cache.value());
  info.This().As<Napi::Object>().TypeTag(&kDeltaTag);
}

std::shared_ptr<DeltaCache> DeltaWrap::Of(const Napi::Value& value) {
  const DeltaWrap* const wrap = UnwrapTagged<DeltaWrap>(value, kDeltaTag);
  return wrap == nullptr ? nullptr : wrap->cache_;
}

Napi::Value DeltaWrap::Forget(const Napi::CallbackInfo& info) {
  const std::shared_ptr<DirtyBitmap> set = PageSetWrap::SetOf(info[0]);
  if (set == nullptr) return {};
  if (cache_ == nullptr || set->page_count() != cache_->page_count()) {
    return ThrowType(info.Env(), "pages of another memory");
  }
  cache_->Forget(*set);
  return info.Env().Undefined();
}

Napi::Value DeltaWrap::Counts(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (cache_ == nullptr) return ThrowType(env, "no delta cache");
  const DeltaCache::Counts counts = cache_->counts();
  Napi::Object object = Napi::Object::New(env);
  object.Set("deltas", Number(env, counts.deltas));
  object.Set("unchanged", Number(env, counts.unchanged));
  object.Set("versions", Number(env, counts.versions));
  return object;
}

}  // namespace chkpt::binding

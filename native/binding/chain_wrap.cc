#include "binding/chain_wrap.h"

#include <utility>
#include <vector>

#include "binding/convert.h"
#include "binding/page_set_wrap.h"
#include "binding/task.h"
#include "core/base/units.h"
#include "core/bitmap/dirty_bitmap.h"

namespace chkpt::binding {
namespace {

constexpr napi_type_tag kChainTag = {0x5b7e90d2c4a1f836, 0xa93d17e6b0284cf5};
constexpr napi_type_tag kDigestsTag = {0x93c2e7a8510bd64f, 0x6de84f1b7a29c035};

// Empty, with an exception pending, where `value` is none.
std::optional<std::uint64_t> ToPageCount(const Napi::Value& value) {
  const auto pages = ToUint64(value);
  if (pages && *pages >= 1 && *pages <= kMemoryBytesMax / kPageBytes) return pages;
  ThrowType(value.Env(), "a number of pages expected");
  return std::nullopt;
}

}  // namespace

void ChainWrap::Define(Napi::Env env, Napi::Object exports) {
  exports.Set("ChainLoad", DefineClass(env, "ChainLoad",
                                       {
                                           InstanceMethod<&ChainWrap::Advance>("advance"),
                                           InstanceMethod<&ChainWrap::Deferred>("deferred"),
                                           InstanceMethod<&ChainWrap::LeaveAlone>("leaveAlone"),
                                       }));
}

ChainWrap::ChainWrap(const Napi::CallbackInfo& info) : Napi::ObjectWrap<ChainWrap>(info) {
  const auto pages = ToPageCount(info[0]);
  if (!pages) return;
  chain_ = std::make_shared<ChainLoad>(*pages);
  info.This().As<Napi::Object>().TypeTag(&kChainTag);
}

ChainWrap* ChainWrap::Of(const Napi::Value& value) {
  return UnwrapTagged<ChainWrap>(value, kChainTag);
}

Napi::Value ChainWrap::Advance(const Napi::CallbackInfo& info) {
  if (chain_ == nullptr) return ThrowType(info.Env(), "no chain");
  chain_->Advance();
  resolver_ = nullptr;
  return info.Env().Undefined();
}

Napi::Value ChainWrap::Deferred(const Napi::CallbackInfo& info) {
  if (chain_ == nullptr) return ThrowType(info.Env(), "no chain");
  // What a second read puts off: nothing.
  auto resolver = std::make_shared<PageResolver>(chain_->TakeDeferred());
  const bool any = !resolver->empty();
  if (any) resolver_ = std::move(resolver);
  return Napi::Boolean::New(info.Env(), any);
}

Napi::Value ChainWrap::LeaveAlone(const Napi::CallbackInfo& info) {
  const std::shared_ptr<DirtyBitmap> set = PageSetWrap::SetOf(info[0]);
  if (set == nullptr) return {};
  if (chain_ == nullptr || set->page_count() != chain_->page_count()) {
    return ThrowType(info.Env(), "pages of the same memory expected");
  }
  std::vector<std::uint64_t> words(set->word_count());
  set->Copy(words);
  for (std::uint64_t page = 0;;) {
    const std::uint64_t first = FirstMarked(words, page, set->page_count());
    if (first == set->page_count()) return info.Env().Undefined();
    page = FirstClear(words, first, set->page_count());
    chain_->LeaveAlone({first, page - first});
  }
}

void DigestsWrap::Define(Napi::Env env, Napi::Object exports) {
  exports.Set("PageDigests", DefineClass(env, "PageDigests",
                                         {
                                             InstanceMethod<&DigestsWrap::Forget>("forget"),
                                             InstanceMethod<&DigestsWrap::Differing>("differing"),
                                         }));
}

DigestsWrap::DigestsWrap(const Napi::CallbackInfo& info) : Napi::ObjectWrap<DigestsWrap>(info) {
  const auto pages = ToPageCount(info[0]);
  if (!pages) return;
  const std::shared_ptr<PageDigests> key = Of(info[1]);
  if (key != nullptr && key->page_count() != *pages) {
    ThrowType(info.Env(), "digests of another memory");
    return;
  }
  auto digests = key != nullptr ? key->Share() : PageDigests::Create(*pages);
  if (!digests.ok()) {
    Throw(info.Env(), digests.error());
    return;
  }
  digests_ = std::move(digests.value());
  info.This().As<Napi::Object>().TypeTag(&kDigestsTag);
}

std::shared_ptr<PageDigests> DigestsWrap::Of(const Napi::Value& value) {
  const DigestsWrap* const wrap = UnwrapTagged<DigestsWrap>(value, kDigestsTag);
  return wrap == nullptr ? nullptr : wrap->digests_;
}

Napi::Value DigestsWrap::Forget(const Napi::CallbackInfo& info) {
  const std::shared_ptr<DirtyBitmap> set = PageSetWrap::SetOf(info[0]);
  if (set == nullptr) return {};
  if (digests_ != nullptr) digests_->Forget(*set);
  return info.Env().Undefined();
}

Napi::Value DigestsWrap::Differing(const Napi::CallbackInfo& info) {
  const std::shared_ptr<PageDigests> other = Of(info[0]);
  const std::shared_ptr<DirtyBitmap> set = PageSetWrap::SetOf(info[1]);
  if (set == nullptr) return {};
  if (digests_ == nullptr || other == nullptr || other->page_count() != digests_->page_count() ||
      set->page_count() != digests_->page_count()) {
    return ThrowType(info.Env(), "digests of the same pages expected");
  }
  return Task<Nothing>::Run(
      info.Env(),
      [mine = digests_, other, set](const std::atomic<bool>&) -> Result<Nothing> {
        mine->Differing(*other, set.get());
        return Ok();
      },
      [](Napi::Env e, const Nothing&) { return e.Undefined(); });
}

}  // namespace chkpt::binding

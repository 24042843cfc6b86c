#include "binding/page_set_wrap.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "binding/addon_data.h"
#include "binding/convert.h"

namespace chkpt::binding {
namespace {

constexpr std::uint64_t kPageCountMax = kMemoryBytesMax / kPageBytes;
constexpr std::uint64_t kRunsAtOnceMax = 1u << 20;  // 16 MiB of result
constexpr napi_type_tag kPageSetTag = {0x6e0b41d27f934c88, 0x91d5c2a8e3704bf6};

using SetPointer = std::shared_ptr<DirtyBitmap>;

}  // namespace

void PageSetWrap::Define(Napi::Env env, Napi::Object exports) {
  const Napi::Function constructor =
      DefineClass(env, "PageSet",
                  {
                      InstanceMethod<&PageSetWrap::Count>("count"),
                      InstanceMethod<&PageSetWrap::MarkRun>("markRun"),
                      InstanceMethod<&PageSetWrap::Merge>("merge"),
                      InstanceMethod<&PageSetWrap::Take>("take"),
                      InstanceMethod<&PageSetWrap::TakeFirst>("takeFirst"),
                      InstanceMethod<&PageSetWrap::Runs>("runs"),
                  });
  AddonData::Of(env).page_set_constructor = Napi::Persistent(constructor);
  exports.Set("PageSet", constructor);
}

PageSetWrap::PageSetWrap(const Napi::CallbackInfo& info) : Napi::ObjectWrap<PageSetWrap>(info) {
  if (info.Length() == 1 && info[0].IsExternal()) {
    set_ = *info[0].As<Napi::External<SetPointer>>().Data();
  } else {
    const auto page_count = ToUint64(info[0]);
    if (!page_count || *page_count == 0 || *page_count > kPageCountMax) {
      ThrowType(info.Env(), "a number of pages expected");
      return;
    }
    set_ = std::make_shared<DirtyBitmap>(*page_count);
  }
  info.This().As<Napi::Object>().TypeTag(&kPageSetTag);
  told_bytes_ = static_cast<std::int64_t>(set_->word_count() * sizeof(std::uint64_t));
  Napi::MemoryManagement::AdjustExternalMemory(info.Env(), told_bytes_);
}

void PageSetWrap::Finalize(Napi::BasicEnv env) {
  Napi::MemoryManagement::AdjustExternalMemory(env, -told_bytes_);
}

std::shared_ptr<DirtyBitmap> PageSetWrap::SetOf(const Napi::Value& value) {
  if (!value.IsObject() || !value.As<Napi::Object>().CheckTypeTag(&kPageSetTag)) {
    ThrowType(value.Env(), "not a native page set");
    return nullptr;
  }
  return Napi::ObjectWrap<PageSetWrap>::Unwrap(value.As<Napi::Object>())->set_;
}

Napi::Value PageSetWrap::Wrap(Napi::Env env, SetPointer set) {
  return AddonData::Of(env).page_set_constructor.New({Napi::External<SetPointer>::New(env, &set)});
}

Napi::Value PageSetWrap::Count(const Napi::CallbackInfo& info) {
  return Number(info.Env(), set_->CountMarked());
}

// markRun(first, count)
Napi::Value PageSetWrap::MarkRun(const Napi::CallbackInfo& info) {
  const auto first = ToUint64(info[0]);
  const auto count = ToUint64(info[1]);
  if (!first || !count || *first > set_->page_count() || *count > set_->page_count() - *first) {
    return ThrowType(info.Env(), "a run of pages of the set expected");
  }
  set_->MarkRun({*first, *count});
  return info.Env().Undefined();
}

// merge(other): adds its pages; `other` keeps them
Napi::Value PageSetWrap::Merge(const Napi::CallbackInfo& info) {
  const SetPointer other = SetOf(info[0]);
  if (other == nullptr) return {};
  if (other->page_count() != set_->page_count()) {
    return ThrowType(info.Env(), "a set of as many pages expected");
  }
  if (other != set_) other->MergeTo(set_.get());
  return info.Env().Undefined();
}

// take(): PageSet
Napi::Value PageSetWrap::Take(const Napi::CallbackInfo& info) {
  auto taken = std::make_shared<DirtyBitmap>(set_->page_count());
  set_->MoveTo(taken.get());
  return Wrap(info.Env(), std::move(taken));
}

// takeFirst(pages): PageSet
Napi::Value PageSetWrap::TakeFirst(const Napi::CallbackInfo& info) {
  const auto pages = ToUint64(info[0]);
  if (!pages || *pages == 0) return ThrowType(info.Env(), "a number of pages expected");
  auto taken = std::make_shared<DirtyBitmap>(set_->page_count());
  set_->MoveFirst(*pages, taken.get());
  return Wrap(info.Env(), std::move(taken));
}

// runs(from, limit): Float64Array
Napi::Value PageSetWrap::Runs(const Napi::CallbackInfo& info) {
  const auto from = ToUint64(info[0]);
  const auto limit = ToUint64(info[1]);
  if (!from || !limit || *limit < 1 || *limit > kRunsAtOnceMax) {
    return ThrowType(info.Env(), "a page and a number of runs expected");
  }
  std::vector<PageRun> runs(std::min(*limit, set_->page_count()));
  runs.resize(set_->Runs(*from, runs));
  Napi::Float64Array packed = Napi::Float64Array::New(info.Env(), runs.size() * 2);
  double* next = packed.Data();
  for (const PageRun& run : runs) {
    *next++ = static_cast<double>(run.first);
    *next++ = static_cast<double>(run.count);
  }
  return packed;
}

}  // namespace chkpt::binding

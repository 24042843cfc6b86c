#include "binding/page_set_wrap.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "binding/addon_data.h"
#include "binding/convert.h"
#include "core/base/bytes.h"

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
                      InstanceMethod<&PageSetWrap::RunAround>("runAround"),
                      InstanceMethod<&PageSetWrap::ClearRun>("clearRun"),
                      InstanceMethod<&PageSetWrap::Subtract>("subtract"),
                      InstanceMethod<&PageSetWrap::Runs>("runs"),
                      InstanceMethod<&PageSetWrap::Bits>("bits"),
                      InstanceMethod<&PageSetWrap::MergeBits>("mergeBits"),
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
  const PageSetWrap* const wrap = UnwrapTagged<PageSetWrap>(value, kPageSetTag);
  if (wrap != nullptr) return wrap->set_;
  ThrowType(value.Env(), "not a native page set");
  return nullptr;
}

Napi::Value PageSetWrap::Wrap(Napi::Env env, SetPointer set) {
  return AddonData::Of(env).page_set_constructor.New({Napi::External<SetPointer>::New(env, &set)});
}

Napi::Value PageSetWrap::Count(const Napi::CallbackInfo& info) {
  return Number(info.Env(), set_->CountMarked());
}

std::optional<PageRun> PageSetWrap::RunOf(const Napi::CallbackInfo& info) const {
  const auto first = ToUint64(info[0]);
  const auto count = ToUint64(info[1]);
  if (!first || !count || *first > set_->page_count() || *count > set_->page_count() - *first) {
    ThrowType(info.Env(), "a run of pages of the set expected");
    return std::nullopt;
  }
  return PageRun{*first, *count};
}

// markRun(first, count)
Napi::Value PageSetWrap::MarkRun(const Napi::CallbackInfo& info) {
  if (const auto run = RunOf(info)) set_->MarkRun(*run);
  return info.Env().Undefined();
}

SetPointer PageSetWrap::OtherOf(const Napi::Value& value) const {
  SetPointer other = SetOf(value);
  if (other == nullptr || other->page_count() == set_->page_count()) return other;
  ThrowType(value.Env(), "a set of as many pages expected");
  return nullptr;
}

// clearRun(first, count)
Napi::Value PageSetWrap::ClearRun(const Napi::CallbackInfo& info) {
  if (const auto run = RunOf(info)) set_->ClearRun(*run);
  return info.Env().Undefined();
}

// runAround(page, first, count): [first, count] of the run with the page inside of those; undefined
// where the page is not in the set
Napi::Value PageSetWrap::RunAround(const Napi::CallbackInfo& info) {
  const auto page = ToUint64(info[0]);
  const auto first = ToUint64(info[1]);
  const auto count = ToUint64(info[2]);
  if (!page || !first || !count || *first > set_->page_count() ||
      *count > set_->page_count() - *first || *page < *first || *page - *first >= *count) {
    return ThrowType(info.Env(), "a page of a run of the set expected");
  }
  if (!set_->IsMarked(*page)) return info.Env().Undefined();
  std::uint64_t begin = *page;
  std::uint64_t end = *page + 1;
  while (begin > *first && set_->IsMarked(begin - 1)) --begin;
  while (end < *first + *count && set_->IsMarked(end)) ++end;
  Napi::Array run = Napi::Array::New(info.Env(), 2);
  run.Set(0U, Number(info.Env(), begin));
  run.Set(1U, Number(info.Env(), end - begin));
  return run;
}

// merge(other): adds its pages; `other` keeps them
Napi::Value PageSetWrap::Merge(const Napi::CallbackInfo& info) {
  const SetPointer other = OtherOf(info[0]);
  if (other != nullptr && other != set_) other->MergeTo(set_.get());
  return info.Env().Undefined();
}

// subtract(other): takes its pages out
Napi::Value PageSetWrap::Subtract(const Napi::CallbackInfo& info) {
  const SetPointer other = OtherOf(info[0]);
  if (other != nullptr && other != set_) set_->Subtract(*other);
  return info.Env().Undefined();
}

// bits(): Uint8Array, one bit a page, u64 words little-endian
Napi::Value PageSetWrap::Bits(const Napi::CallbackInfo& info) {
  std::vector<std::uint64_t> words(set_->word_count());
  set_->Copy(words);
  return DigestsToJs(info.Env(), words);
}

// mergeBits(bits): adds them; those behind the last page are ignored
Napi::Value PageSetWrap::MergeBits(const Napi::CallbackInfo& info) {
  const auto bytes = ToBytes(info[0]);
  if (!bytes || bytes->size() != 8 * set_->word_count()) {
    return ThrowType(info.Env(), "the bits of as many pages expected");
  }
  std::vector<std::uint64_t> words(set_->word_count());
  for (std::size_t i = 0; i < words.size(); ++i) {
    words[i] = Load<std::uint64_t>(bytes->data() + 8 * i);
  }
  set_->Merge(words);
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
  std::vector<double> numbers;
  numbers.reserve(runs.size() * 2);
  for (const PageRun& run : runs) {
    numbers.push_back(static_cast<double>(run.first));
    numbers.push_back(static_cast<double>(run.count));
  }
  return CopyToJs<double>(info.Env(), numbers);
}

}  // namespace chkpt::binding

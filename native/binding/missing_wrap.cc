#include "binding/missing_wrap.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "binding/convert.h"
#include "binding/memory_wrap.h"
#include "binding/page_set_wrap.h"

namespace chkpt::binding {
namespace {

constexpr napi_type_tag kMissingTag = {0x3f7c1a90d25e4b68, 0xa4e81b06c9d7523f};

}  // namespace

void MissingWrap::Define(Napi::Env env, Napi::Object exports) {
  const Napi::Function constructor =
      DefineClass(env, "MissingPages",
                  {
                      InstanceMethod<&MissingWrap::Started>("started"),
                      InstanceMethod<&MissingWrap::Wanted>("wanted"),
                      InstanceMethod<&MissingWrap::Check>("check"),
                      InstanceMethod<&MissingWrap::Place>("place"),
                      InstanceMethod<&MissingWrap::Left>("left"),
                      InstanceMethod<&MissingWrap::Faults>("faults"),
                      InstanceMethod<&MissingWrap::Waits>("waits"),
                      InstanceMethod<&MissingWrap::WantAgain>("wantAgain"),
                      InstanceMethod<&MissingWrap::Abort>("abort"),
                      InstanceMethod<&MissingWrap::Release>("release"),
                      InstanceMethod<&MissingWrap::Close>("close"),
                  });
  AddonData::Of(env).missing_constructor = Napi::Persistent(constructor);
  exports.Set("MissingPages", constructor);
}

MissingWrap::MissingWrap(const Napi::CallbackInfo& info) : PipelineWrap(info) {
  const Napi::Env env = info.Env();
  std::shared_ptr<GuestMemory> memory = MemoryWrap::MemoryOf(info[0]);
  if (memory == nullptr) return;
  const std::shared_ptr<DirtyBitmap> missing = PageSetWrap::SetOf(info[1]);
  if (missing == nullptr) return;
  if (missing->page_count() != memory->page_count()) {
    ThrowType(env, "a set of pages of the memory expected");
    return;
  }
  info.This().As<Napi::Object>().TypeTag(&kMissingTag);
  StartPipeline(env, [&](auto notify, auto) -> Result<std::unique_ptr<MissingWork>> {
    const auto thread = static_cast<std::uint32_t>(::syscall(SYS_gettid));
    auto pages = MissingPages::Start(std::move(memory), *missing, thread, std::move(notify));
    if (!pages.ok()) return pages.error();
    return std::make_unique<MissingWork>(std::move(pages.value()));
  });
}

std::shared_ptr<PagePlacer> MissingWrap::Of(const Napi::Value& value) {
  if (value.IsUndefined()) return nullptr;
  MissingWrap* const wrap = UnwrapTagged<MissingWrap>(value, kMissingTag);
  if (wrap == nullptr || wrap->pipeline() == nullptr) {
    ThrowType(value.Env(), "missing pages that are not closed expected");
    return nullptr;
  }
  return wrap->pipeline()->pages();
}

bool MissingWrap::TrySettle(Napi::Env env) {
  MissingPages& pages = *pipeline()->pages();
  if (auto error = pages.error()) return Reject(ToJs(env, *error));
  if (pages.is_cancelled()) {
    return Reject(ToJs(env, {.code = ErrorCode::kClosed, .message = "the pages were closed"}));
  }
  if (for_start_) return pages.started() && Resolve(env.Undefined());
  if (pages.left() == 0) return Resolve(env.Undefined());
  const std::vector<std::uint64_t> wanted = pages.TakeWanted();
  if (wanted.empty()) return false;
  const std::vector<double> numbers(wanted.begin(), wanted.end());
  return Resolve(CopyToJs<double>(env, numbers));
}

Napi::Value MissingWrap::Started(const Napi::CallbackInfo& info) {
  if (pipeline() == nullptr || busy()) return ThrowType(info.Env(), "pages are closed or busy");
  for_start_ = true;
  return Wait(info.Env());
}

Napi::Value MissingWrap::Wanted(const Napi::CallbackInfo& info) {
  if (pipeline() == nullptr || busy()) return ThrowType(info.Env(), "pages are closed or busy");
  for_start_ = false;
  return Wait(info.Env());
}

Napi::Value MissingWrap::Check(const Napi::CallbackInfo& info) {
  if (pipeline() == nullptr) return info.Env().Undefined();
  if (auto error = pipeline()->pages()->error()) Throw(info.Env(), *error);
  return info.Env().Undefined();
}

Napi::Value MissingWrap::Place(const Napi::CallbackInfo& info) {
  const auto bytes = ToBytes(info[0]);
  if (pipeline() == nullptr || !bytes) return ThrowType(info.Env(), "bytes of pages expected");
  Status placed = pipeline()->pages()->PlaceRun(*bytes);
  if (!placed.ok()) Throw(info.Env(), placed.error());
  return info.Env().Undefined();
}

Napi::Value MissingWrap::Left(const Napi::CallbackInfo& info) {
  if (pipeline() == nullptr) return ThrowType(info.Env(), "pages are closed");
  return Number(info.Env(), pipeline()->pages()->left());
}

Napi::Value MissingWrap::Faults(const Napi::CallbackInfo& info) {
  if (pipeline() == nullptr) return ThrowType(info.Env(), "pages are closed");
  return Number(info.Env(), pipeline()->pages()->fault_count());
}

Napi::Value MissingWrap::Waits(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (pipeline() == nullptr) return ThrowType(env, "pages are closed");
  const std::vector<std::uint32_t> waits = pipeline()->pages()->waits();
  return CopyToJs<std::uint32_t>(env, waits);
}

Napi::Value MissingWrap::WantAgain(const Napi::CallbackInfo& info) {
  if (pipeline() != nullptr) pipeline()->pages()->WantAgain();
  return info.Env().Undefined();
}

Napi::Value MissingWrap::Abort(const Napi::CallbackInfo& info) {
  if (pipeline() != nullptr) {
    pipeline()->pages()->Fail({.code = ErrorCode::kAborted, .message = "waiting was given up"});
  }
  return info.Env().Undefined();
}

Napi::Value MissingWrap::Release(const Napi::CallbackInfo& info) {
  if (pipeline() != nullptr) pipeline()->pages()->Release();
  return info.Env().Undefined();
}

// Nobody will bring what is missing.
void MissingWrap::LetGo() {
  if (pipeline() == nullptr) return;
  pipeline()->pages()->Fail(
      {.code = ErrorCode::kClosed, .message = "the environment that fetches pages has ended"});
  pipeline()->pages()->Release();
}

Napi::Value MissingWrap::Close(const Napi::CallbackInfo& info) { return ClosePipeline(info.Env()); }

}  // namespace chkpt::binding

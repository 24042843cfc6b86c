#include "binding/lazy_wrap.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <utility>

#include "binding/convert.h"
#include "binding/layer_convert.h"
#include "binding/memory_wrap.h"
#include "core/base/bytes.h"

namespace chkpt::binding {
namespace {

std::vector<std::uint32_t> ToBlocks(std::span<const std::uint8_t> bytes) {
  std::vector<std::uint32_t> blocks(bytes.size() / 4);
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    blocks[i] = Load<std::uint32_t>(bytes.data() + 4 * i);
  }
  return blocks;
}

}  // namespace

void LazyWrap::Define(Napi::Env env, Napi::Object exports) {
  const Napi::Function constructor =
      DefineClass(env, "LazyLoader",
                  {
                      InstanceMethod<&LazyWrap::WaitFor>("wait"),
                      InstanceMethod<&LazyWrap::Arm>("arm"),
                      InstanceMethod<&LazyWrap::Abort>("abort"),
                      InstanceMethod<&LazyWrap::Release>("release"),
                      InstanceMethod<&LazyWrap::HasFailed>("hasFailed"),
                      InstanceMethod<&LazyWrap::IsHere>("isHere"),
                      InstanceMethod<&LazyWrap::Want>("want"),
                      InstanceMethod<&LazyWrap::Counts>("counts"),
                      InstanceMethod<&LazyWrap::WorkingSet>("workingSet"),
                      InstanceMethod<&LazyWrap::Digests>("digests"),
                      InstanceMethod<&LazyWrap::Clone>("clone"),
                      InstanceMethod<&LazyWrap::HoldClone>("holdClone"),
                      InstanceMethod<&LazyWrap::ReleaseClone>("releaseClone"),
                      InstanceMethod<&LazyWrap::Close>("close"),
                  });
  AddonData::Of(env).lazy_constructor = Napi::Persistent(constructor);
  exports.Set("LazyLoader", constructor);
  exports.Set("SharedImage", constructor);
}

LazyWrap::LazyWrap(const Napi::CallbackInfo& info) : PipelineWrap(info) {
  const Napi::Env env = info.Env();
  const auto regions = ToRegions(info[0]);
  std::shared_ptr<GuestMemory> memory = regions ? nullptr : MemoryWrap::MemoryOf(info[0]);
  if (!regions && memory == nullptr) return;
  if (!info[1].IsObject() || !info[1].As<Napi::Object>().Get("layers").IsArray()) {
    ThrowType(env, "options with layers expected");
    return;
  }
  const Napi::Object object = info[1].As<Napi::Object>();
  const Napi::Array array = object.Get("layers").As<Napi::Array>();
  const auto handlers = ToUint64(object.Get("handlerThreads"));
  const auto fillers = ToUint64(object.Get("fillThreads"));
  const auto rate = ToUint64(object.Get("fillBytesPerSecond"));
  const auto delay = ToUint64(object.Get("fillDelayMs"));
  const auto replay = ToBytes(object.Get("replay"));
  if (array.Length() == 0 || !handlers || *handlers < 1 || *handlers > 64 || !fillers ||
      *fillers < 1 || *fillers > 64 || !rate || !delay || *delay > 1'000'000'000 || !replay) {
    ThrowType(env, "lazy load options are not valid");
    return;
  }
  std::vector<LazyLayer> layers;
  for (std::uint32_t i = 0; i < array.Length(); ++i) {
    std::optional<LazyLayer> layer = ToLayer(array.Get(i), &pins_);
    if (!layer) return;
    layers.push_back(std::move(*layer));
  }
  LazyOptions options{.handler_threads = static_cast<unsigned>(*handlers),
                      .fill_threads = static_cast<unsigned>(*fillers),
                      .fill_bytes_per_second = *rate,
                      .fill_delay_ms = *delay,
                      .replay = ToBlocks(*replay),
                      .poison = ToBool(object.Get("poison")),
                      .owner_thread = static_cast<std::uint32_t>(::syscall(SYS_gettid))};
  StartPipeline(env, [&](auto notify, auto) -> Result<std::unique_ptr<LazyWork>> {
    if (regions) {
      auto image =
          SharedImage::Start(*regions, std::move(layers), std::move(options), std::move(notify));
      if (!image.ok()) return image.error();
      return std::make_unique<LazyWork>(std::move(image.value()));
    }
    auto loader = LazyLoader::Start(std::move(memory), std::move(layers), std::move(options),
                                    std::move(notify));
    if (!loader.ok()) return loader.error();
    return std::make_unique<LazyWork>(std::move(loader.value()));
  });
}

bool LazyWrap::TrySettle(Napi::Env env) {
  const LazyLoader::Stage stage = pipeline()->loader().stage();
  if (stage == LazyLoader::Stage::kFailed) return Reject(ToJs(env, pipeline()->loader().error()));
  if (stage >= wanted_) return Resolve(env.Undefined());
  if (!pipeline()->loader().is_cancelled()) return false;
  return Reject(ToJs(env, {.code = ErrorCode::kClosed, .message = "the lazy load was closed"}));
}

// wait(stage: 1 prepared | 3 serving | 4 resident)
Napi::Value LazyWrap::WaitFor(const Napi::CallbackInfo& info) {
  const auto stage = ToUint64(info[0]);
  if (pipeline() == nullptr || busy()) return ThrowType(info.Env(), "loader is closed or busy");
  if (!stage || *stage > static_cast<std::uint64_t>(LazyLoader::Stage::kResident)) {
    return ThrowType(info.Env(), "a stage expected");
  }
  wanted_ = static_cast<LazyLoader::Stage>(*stage);
  return Wait(info.Env());
}

Napi::Value LazyWrap::Arm(const Napi::CallbackInfo& info) {
  if (pipeline() != nullptr) pipeline()->loader().Arm();
  return info.Env().Undefined();
}

Napi::Value LazyWrap::Abort(const Napi::CallbackInfo& info) {
  if (pipeline() != nullptr) {
    pipeline()->loader().Fail({.code = ErrorCode::kAborted, .message = "lazy load aborted"});
  }
  return info.Env().Undefined();
}

Napi::Value LazyWrap::Release(const Napi::CallbackInfo& info) {
  if (pipeline() != nullptr && pipeline()->loader().stage() == LazyLoader::Stage::kFailed) {
    pipeline()->loader().Release();
  }
  return info.Env().Undefined();
}

Napi::Value LazyWrap::HasFailed(const Napi::CallbackInfo& info) {
  const bool failed =
      pipeline() != nullptr && pipeline()->loader().stage() == LazyLoader::Stage::kFailed;
  return Napi::Boolean::New(info.Env(), failed);
}

void LazyWrap::LetGo() {
  if (pipeline() != nullptr && pipeline()->image() == nullptr) pipeline()->loader().LetGo();
}

// isHere(address, bytes): boolean
Napi::Value LazyWrap::IsHere(const Napi::CallbackInfo& info) {
  const auto address = ToUint64(info[0]);
  const auto bytes = ToUint64(info[1]);
  if (!address || !bytes) return ThrowType(info.Env(), "an address and bytes expected");
  const bool is_here = pipeline() == nullptr || pipeline()->loader().IsHere(*address, *bytes);
  return Napi::Boolean::New(info.Env(), is_here);
}

// want(address, bytes)
Napi::Value LazyWrap::Want(const Napi::CallbackInfo& info) {
  const auto address = ToUint64(info[0]);
  const auto bytes = ToUint64(info[1]);
  if (!address || !bytes) return ThrowType(info.Env(), "an address and bytes expected");
  if (pipeline() != nullptr) pipeline()->loader().Want(*address, *bytes);
  return info.Env().Undefined();
}

Napi::Value LazyWrap::Counts(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (pipeline() == nullptr) return ThrowType(env, "loader is closed");
  const LazyLoader::Counts counts = pipeline()->loader().counts();
  Napi::Object object = Napi::Object::New(env);
  object.Set("blocks", Number(env, counts.blocks));
  object.Set("missing", Number(env, counts.missing));
  object.Set("faults", Number(env, counts.faults));
  object.Set("faultBlocks", Number(env, counts.fault_blocks));
  return object;
}

Napi::Value LazyWrap::WorkingSet(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (pipeline() == nullptr) return ThrowType(env, "loader is closed");
  const std::vector<std::uint32_t> blocks = pipeline()->loader().WorkingSet();
  std::vector<std::uint8_t> bytes(4 * blocks.size());
  for (std::size_t i = 0; i < blocks.size(); ++i) Store(bytes.data() + 4 * i, blocks[i]);
  return CopyToJs<std::uint8_t>(env, bytes);
}

Napi::Value LazyWrap::Digests(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (pipeline() == nullptr || pipeline()->loader().stage() != LazyLoader::Stage::kResident) {
    return ThrowType(env, "the load is not complete");
  }
  return DigestsToJs(env, pipeline()->loader().digests());
}

// clone(): NativeMemory
Napi::Value LazyWrap::Clone(const Napi::CallbackInfo& info) {
  SharedImage* const image = pipeline() == nullptr ? nullptr : pipeline()->image();
  if (image == nullptr) return ThrowType(info.Env(), "not a shared image, or it is closed");
  return MemoryWrap::Wrap(info.Env(),
                          image->Clone(static_cast<std::uint32_t>(::syscall(SYS_gettid))));
}

// holdClone(memory)
Napi::Value LazyWrap::HoldClone(const Napi::CallbackInfo& info) {
  const std::shared_ptr<GuestMemory> memory = MemoryWrap::MemoryOf(info[0]);
  if (memory == nullptr) return {};
  if (pipeline() != nullptr && pipeline()->image() != nullptr) pipeline()->image()->Hold(*memory);
  return info.Env().Undefined();
}

// releaseClone(memory)
Napi::Value LazyWrap::ReleaseClone(const Napi::CallbackInfo& info) {
  const std::shared_ptr<GuestMemory> memory = MemoryWrap::MemoryOf(info[0]);
  if (memory == nullptr) return {};
  if (pipeline() != nullptr && pipeline()->image() != nullptr) {
    pipeline()->image()->Release(*memory);
  }
  return info.Env().Undefined();
}

Napi::Value LazyWrap::Close(const Napi::CallbackInfo& info) { return ClosePipeline(info.Env()); }

}  // namespace chkpt::binding

#include "binding/lazy_wrap.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <utility>

#include "binding/convert.h"
#include "binding/memory_wrap.h"
#include "core/base/bytes.h"

namespace chkpt::binding {
namespace {

const Error kBadExtent = {.code = ErrorCode::kFormat, .message = "extents of a store expected"};

std::optional<std::vector<IndexGroup>> ToGroups(const Napi::Value& value) {
  if (!value.IsArray()) return std::nullopt;
  const Napi::Array array = value.As<Napi::Array>();
  std::vector<IndexGroup> groups;
  for (std::uint32_t i = 0; i < array.Length(); ++i) {
    const Napi::Value item = array.Get(i);
    if (!item.IsObject()) return std::nullopt;
    const Napi::Object object = item.As<Napi::Object>();
    const auto first_page = ToUint64(object.Get("firstPage"));
    const auto page_count = ToUint64(object.Get("pageCount"));
    const auto offset = ToUint64(object.Get("offset"));
    if (!first_page || !page_count || !offset) return std::nullopt;
    groups.push_back({*first_page, *page_count, *offset});
  }
  return groups;
}

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
                      InstanceMethod<&LazyWrap::Counts>("counts"),
                      InstanceMethod<&LazyWrap::WorkingSet>("workingSet"),
                      InstanceMethod<&LazyWrap::Digests>("digests"),
                      InstanceMethod<&LazyWrap::Close>("close"),
                  });
  AddonData::Of(env).lazy_constructor = Napi::Persistent(constructor);
  exports.Set("LazyLoader", constructor);
}

LazyWrap::LazyWrap(const Napi::CallbackInfo& info) : PipelineWrap(info) {
  const Napi::Env env = info.Env();
  std::shared_ptr<GuestMemory> memory = MemoryWrap::MemoryOf(info[0]);
  if (memory == nullptr) return;
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
    std::optional<LazyLayer> layer = ToLayer(array.Get(i));
    if (!layer) return;
    layers.push_back(std::move(*layer));
  }
  LazyOptions options{.handler_threads = static_cast<unsigned>(*handlers),
                      .fill_threads = static_cast<unsigned>(*fillers),
                      .fill_bytes_per_second = *rate,
                      .fill_delay_ms = *delay,
                      .replay = ToBlocks(*replay),
                      .poison = object.Get("poison").ToBoolean().Value(),
                      .owner_thread = static_cast<std::uint32_t>(::syscall(SYS_gettid))};
  StartPipeline(env, [&](auto notify, auto) {
    return LazyLoader::Start(std::move(memory), std::move(layers), std::move(options),
                             std::move(notify));
  });
}

std::optional<LazyLayer> LazyWrap::ToLayer(const Napi::Value& value) {
  const Napi::Env env = value.Env();
  if (!value.IsObject()) {
    ThrowType(env, "a layer expected");
    return std::nullopt;
  }
  const Napi::Object object = value.As<Napi::Object>();
  const auto uuid = ToBytes(object.Get("uuid"));
  const auto epoch = ToUint64(object.Get("epoch"));
  const auto end = ToUint64(object.Get("endOffset"));
  auto groups = ToGroups(object.Get("groups"));
  if (!uuid || uuid->size() != 16 || !epoch || !end || !groups) {
    ThrowType(env, "a layer is not valid");
    return std::nullopt;
  }
  auto source = ToSource(object.Get("extents"));
  if (!source.ok()) {
    Throw(env, source.error());
    return std::nullopt;
  }
  LazyLayer layer;
  layer.source = std::move(source.value());
  std::copy(uuid->begin(), uuid->end(), layer.uuid.begin());
  layer.epoch = *epoch;
  layer.has_parent = object.Get("hasParent").ToBoolean().Value();
  layer.groups = std::move(*groups);
  layer.end_offset = *end;
  return layer;
}

Result<std::unique_ptr<ExtentSource>> LazyWrap::ToSource(const Napi::Value& value) {
  if (!value.IsArray()) return kBadExtent;
  const Napi::Array array = value.As<Napi::Array>();
  std::vector<ExtentSource::Extent> extents;
  for (std::uint32_t i = 0; i < array.Length(); ++i) {
    const Napi::Value item = array.Get(i);
    if (!item.IsObject()) return kBadExtent;
    const Napi::Object object = item.As<Napi::Object>();
    const auto bytes = ToUint64(object.Get("bytes"));
    if (!bytes) return kBadExtent;
    const auto view = ToBytes(object.Get("view"));
    if (view) {
      if (view->size() < *bytes) return kBadExtent;
      extents.push_back({.bytes = *bytes, .memory = view->data()});
      pins_.push_back(Napi::Persistent(object.Get("view").As<Napi::Object>()));
      continue;
    }
    const auto descriptor = ToUint64(object.Get("descriptor"));
    const auto position = ToUint64(object.Get("position"));
    if (!descriptor || *descriptor > 0x7fffffff || !position) return kBadExtent;
    extents.push_back(
        {.bytes = *bytes, .fd = static_cast<int>(*descriptor), .fd_offset = *position});
  }
  return ExtentSource::Open(extents);
}

bool LazyWrap::TrySettle(Napi::Env env) {
  const LazyLoader::Stage stage = pipeline()->stage();
  if (stage == LazyLoader::Stage::kFailed) return Reject(ToJs(env, pipeline()->error()));
  if (stage >= wanted_) return Resolve(env.Undefined());
  if (!pipeline()->is_cancelled()) return false;
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
  if (pipeline() != nullptr) pipeline()->Arm();
  return info.Env().Undefined();
}

Napi::Value LazyWrap::Abort(const Napi::CallbackInfo& info) {
  if (pipeline() != nullptr) {
    pipeline()->Fail({.code = ErrorCode::kAborted, .message = "lazy load aborted"});
  }
  return info.Env().Undefined();
}

Napi::Value LazyWrap::Release(const Napi::CallbackInfo& info) {
  if (pipeline() != nullptr && pipeline()->stage() == LazyLoader::Stage::kFailed) {
    pipeline()->Release();
  }
  return info.Env().Undefined();
}

Napi::Value LazyWrap::HasFailed(const Napi::CallbackInfo& info) {
  const bool failed = pipeline() != nullptr && pipeline()->stage() == LazyLoader::Stage::kFailed;
  return Napi::Boolean::New(info.Env(), failed);
}

Napi::Value LazyWrap::Counts(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (pipeline() == nullptr) return ThrowType(env, "loader is closed");
  const LazyLoader::Counts counts = pipeline()->counts();
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
  const std::vector<std::uint32_t> blocks = pipeline()->WorkingSet();
  Napi::Uint8Array bytes = Napi::Uint8Array::New(env, 4 * blocks.size());
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    Store<std::uint32_t>(bytes.Data() + 4 * i, blocks[i]);
  }
  return bytes;
}

Napi::Value LazyWrap::Digests(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (pipeline() == nullptr || pipeline()->stage() != LazyLoader::Stage::kResident) {
    return ThrowType(env, "the load is not complete");
  }
  return DigestsToJs(env, pipeline()->digests());
}

Napi::Value LazyWrap::Close(const Napi::CallbackInfo& info) { return ClosePipeline(info.Env()); }

}  // namespace chkpt::binding

#include "binding/save_wrap.h"

#include <utility>

#include "binding/convert.h"
#include "binding/memory_wrap.h"

namespace chkpt::binding {

void SaveWrap::Define(Napi::Env env, Napi::Object exports) {
  const Napi::Function constructor = DefineClass(env, "SavePipeline",
                                                 {
                                                     InstanceMethod<&SaveWrap::Next>("next"),
                                                     InstanceMethod<&SaveWrap::Release>("release"),
                                                     InstanceMethod<&SaveWrap::Totals>("totals"),
                                                     InstanceMethod<&SaveWrap::Close>("close"),
                                                 });
  AddonData::Of(env).save_constructor = Napi::Persistent(constructor);
  exports.Set("SavePipeline", constructor);
}

SaveWrap::SaveWrap(const Napi::CallbackInfo& info) : PipelineWrap(info) {
  const Napi::Env env = info.Env();
  const std::shared_ptr<GuestMemory> memory = MemoryWrap::MemoryOf(info[0]);
  if (memory == nullptr) return;
  if (!info[1].IsObject()) {
    ThrowType(env, "options expected");
    return;
  }
  const Napi::Object object = info[1].As<Napi::Object>();
  const auto position = ToPosition(object);
  const auto codec = ToUint64(object.Get("codec"));
  const auto acceleration = ToUint64(object.Get("acceleration"));
  const auto threads = ToUint64(object.Get("threads"));
  const auto slab_count = ToUint64(object.Get("slabCount"));
  if (!position || !codec || *codec > 1 || !acceleration || *acceleration < 1 ||
      *acceleration > 65537 || !threads || *threads < 1 || *threads > 64 || !slab_count ||
      *slab_count > 256) {
    ThrowType(env, "save options are not valid");
    return;
  }
  SaveOptions options{.position = *position,
                      .encode = {.codec = static_cast<BlockCodec>(*codec),
                                 .acceleration = static_cast<int>(*acceleration),
                                 .dedup = object.Get("dedup").ToBoolean().Value()},
                      .threads = static_cast<unsigned>(*threads),
                      .slab_count = static_cast<unsigned>(*slab_count)};
  StartPipeline(env, [&](auto notify, auto buffers) {
    options.buffers = std::move(buffers);
    return SavePipeline::Start(memory, options, std::move(notify));
  });
  if (pipeline() != nullptr) taken_.resize(pipeline()->slab_count());
}

Napi::Value SaveWrap::Next(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (pipeline() == nullptr || busy()) return ThrowType(env, "pipeline is closed or busy");
  return Wait(env);
}

bool SaveWrap::TrySettle(Napi::Env env) {
  const SavePipeline::Polled polled = pipeline()->Poll();
  switch (polled.state) {
    case SavePipeline::State::kPending: return false;
    case SavePipeline::State::kSlab: {
      const Napi::Value slab = SlabToJs(env, *polled.slab);
      return slab.IsEmpty() ? Reject(env.GetAndClearPendingException().Value()) : Resolve(slab);
    }
    case SavePipeline::State::kFinished: return Resolve(env.Undefined());
    case SavePipeline::State::kFailed: return Reject(ToJs(env, polled.error));
  }
  return false;
}

Napi::Value SaveWrap::SlabToJs(Napi::Env env, const Slab& slab) {
  const Napi::Value view = ViewOf(env, slab.index, slab.buffer, 0, kSlabBytes);
  if (view.IsEmpty()) return view;
  taken_[slab.index] = &slab;
  Napi::Object object = Napi::Object::New(env);
  object.Set("slab", Number(env, slab.index));
  object.Set("view", view);
  object.Set("begin", Number(env, slab.begin));
  object.Set("bytes", Number(env, slab.bytes));
  object.Set("digests", DigestsToJs(env, slab.digests));
  object.Set("groups", GroupsToJs(env, slab.groups));
  object.Set("pages", Number(env, slab.pages));
  return object;
}

Napi::Value SaveWrap::Release(const Napi::CallbackInfo& info) {
  const auto index = ToUint64(info[0]);
  if (!index || *index >= taken_.size() || taken_[*index] == nullptr) {
    return ThrowType(info.Env(), "not a slab that was taken");
  }
  const Slab* slab = std::exchange(taken_[*index], nullptr);
  // After close the slab is gone; what JavaScript still had of it is not used again.
  if (pipeline() == nullptr) return info.Env().Undefined();
  CheckView(*index, *slab->buffer);
  pipeline()->Release(slab);
  return info.Env().Undefined();
}

Napi::Value SaveWrap::Totals(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (pipeline() == nullptr) return ThrowType(env, "pipeline is closed");
  return TotalsToJs(env, pipeline()->totals());
}

Napi::Value SaveWrap::Close(const Napi::CallbackInfo& info) { return ClosePipeline(info.Env()); }

}  // namespace chkpt::binding

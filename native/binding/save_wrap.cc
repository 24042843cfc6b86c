#include "binding/save_wrap.h"

#include <climits>
#include <utility>

#include "binding/chain_wrap.h"
#include "binding/convert.h"
#include "binding/delta_wrap.h"
#include "binding/guard_wrap.h"
#include "binding/memory_wrap.h"
#include "binding/page_set_wrap.h"

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
                                 .dedup = ToBool(object.Get("dedup"))},
                      .threads = static_cast<unsigned>(*threads),
                      .slab_count = static_cast<unsigned>(*slab_count)};
  if (!object.Get("changed").IsUndefined()) {
    options.changed = PageSetWrap::SetOf(object.Get("changed"));
    if (options.changed == nullptr) return;
  }
  if (!object.Get("scrubbed").IsUndefined()) {
    options.scrubbed = PageSetWrap::SetOf(object.Get("scrubbed"));
    if (options.scrubbed == nullptr) return;
  }
  options.guard = GuardWrap::Of(object.Get("snapshot"));
  if (env.IsExceptionPending()) return;
  options.digests = DigestsWrap::Of(object.Get("pageDigests"));
  options.deltas = DeltaWrap::Of(object.Get("deltas"));
  if (!object.Get("output").IsUndefined() && !TakeOutput(env, object.Get("output"), &options))
    return;
  StartPipeline(env, [&](auto notify, auto buffers) {
    options.buffers = std::move(buffers);
    return SavePipeline::Start(memory, options, std::move(notify));
  });
}

bool SaveWrap::TakeOutput(Napi::Env env, const Napi::Value& value, SaveOptions* options) {
  constexpr std::uint64_t kNone = ~std::uint64_t{0};
  if (!value.IsObject()) {
    ThrowType(env, "the output of a save is an object");
    return false;
  }
  const Napi::Object object = value.As<Napi::Object>();
  if (object.Get("descriptor").IsUndefined()) {
    options->output = SlabOutput::Discard();
    return true;
  }
  const std::uint64_t file = ToUint64(object.Get("descriptor")).value_or(kNone);
  const std::uint64_t position = ToUint64(object.Get("position")).value_or(kNone);
  if (file > INT_MAX || position == kNone) {
    ThrowType(env, "the output of a save is not valid");
    return false;
  }
  // Without a descriptor to spare slabs go through JavaScript.
  auto output = SlabOutput::Open(static_cast<int>(file), position);
  if (output.ok()) options->output = std::move(output.value());
  return true;
}

Napi::Value SaveWrap::Next(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (pipeline() == nullptr || busy()) return ThrowType(env, "pipeline is closed or busy");
  if (!taken_.empty()) return ThrowType(env, "slabs are not released");
  return Wait(env);
}

bool SaveWrap::TrySettle(Napi::Env env) {
  SavePipeline::Polled polled = pipeline()->Poll();
  switch (polled.state) {
    case SavePipeline::State::kPending: return false;
    case SavePipeline::State::kSlabs: {
      taken_ = std::move(polled.slabs);
      const Napi::Value slabs = SlabsToJs(env);
      return slabs.IsEmpty() ? Reject(env.GetAndClearPendingException().Value()) : Resolve(slabs);
    }
    case SavePipeline::State::kWritten: return Resolve(WrittenToJs(env, polled.written));
    case SavePipeline::State::kFinished: return Resolve(env.Undefined());
    case SavePipeline::State::kFailed: {
      const Napi::Value error = ToJs(env, polled.error);
      if (polled.output_failed) error.As<Napi::Object>().Set("ofOutput", true);
      return Reject(error);
    }
  }
  return false;
}

Napi::Value SaveWrap::SlabsToJs(Napi::Env env) {
  Napi::Array pieces = Napi::Array::New(env, taken_.size());
  std::vector<std::uint64_t> digests;
  std::vector<IndexGroup> groups;
  for (std::uint32_t i = 0; i < taken_.size(); ++i) {
    const Slab& slab = *taken_[i];
    const Napi::Value piece = ViewOf(env, slab.index, slab.buffer, slab.begin, slab.bytes);
    if (piece.IsEmpty()) return piece;
    pieces.Set(i, piece);
    digests.insert(digests.end(), slab.digests.begin(), slab.digests.end());
    groups.insert(groups.end(), slab.groups.begin(), slab.groups.end());
  }
  Napi::Object object = Napi::Object::New(env);
  object.Set("pieces", pieces);
  object.Set("digests", DigestsToJs(env, digests));
  object.Set("groups", GroupsToJs(env, groups));
  object.Set("pages", Number(env, taken_.back()->pages));
  return object;
}

Napi::Value SaveWrap::WrittenToJs(Napi::Env env, const SavePipeline::Written& written) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("pieces", Napi::Array::New(env));
  object.Set("written", Number(env, written.bytes));
  object.Set("digests", DigestsToJs(env, written.digests));
  object.Set("groups", GroupsToJs(env, written.groups));
  object.Set("pages", Number(env, written.pages));
  return object;
}

Napi::Value SaveWrap::Release(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (taken_.empty()) return ThrowType(env, "no slabs were taken");
  const std::vector<const Slab*> taken = std::exchange(taken_, {});
  // After close the slabs are gone; what JavaScript still had of them is not used again.
  if (pipeline() == nullptr) return env.Undefined();
  for (const Slab* slab : taken) CheckView(slab->index, *slab->buffer);
  pipeline()->Release(taken);
  return env.Undefined();
}

Napi::Value SaveWrap::Totals(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (pipeline() == nullptr) return ThrowType(env, "pipeline is closed");
  return TotalsToJs(env, pipeline()->totals());
}

Napi::Value SaveWrap::Close(const Napi::CallbackInfo& info) { return ClosePipeline(info.Env()); }

}  // namespace chkpt::binding

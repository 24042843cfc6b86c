#include "binding/save_wrap.h"

#include "binding/convert.h"
#include "binding/memory_wrap.h"
#include "binding/pipeline_join.h"

namespace chkpt::binding {

Napi::Value SlabView(Napi::Env env, const std::shared_ptr<SlabMemory>& memory, std::size_t slab) {
  auto* keep = new std::shared_ptr<SlabMemory>(memory);
  napi_value buffer = nullptr;
  const napi_status status = napi_create_external_arraybuffer(
      env, memory->slab(slab), memory->slab_bytes(),
      [](napi_env, void*, void* hint) { delete static_cast<std::shared_ptr<SlabMemory>*>(hint); },
      keep, &buffer);
  if (status != napi_ok) {
    delete keep;
    Throw(env, {.code = ErrorCode::kUnsupported,
                .message = "this runtime does not allow external buffers"});
    return {};
  }
  return Napi::Uint8Array::New(env, memory->slab_bytes(), Napi::ArrayBuffer(env, buffer), 0);
}

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

SaveWrap::SaveWrap(const Napi::CallbackInfo& info) : Napi::ObjectWrap<SaveWrap>(info) {
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
  data_ = &AddonData::Of(env);
  key_ = data_->Register(this);
  const SaveOptions options{.position = *position,
                            .encode = {.codec = static_cast<BlockCodec>(*codec),
                                       .acceleration = static_cast<int>(*acceleration),
                                       .dedup = object.Get("dedup").ToBoolean().Value()},
                            .threads = static_cast<unsigned>(*threads),
                            .slab_count = static_cast<unsigned>(*slab_count)};
  auto pipeline = SavePipeline::Start(memory, options, data_->NotifierOf(key_));
  if (!pipeline.ok()) {
    Throw(env, pipeline.error());
    return;
  }
  pipeline_ = std::move(pipeline.value());
  taken_.resize(pipeline_->slab_memory()->slab_count());
  views_.resize(taken_.size());
}

SaveWrap::~SaveWrap() {
  if (data_ != nullptr) data_->Unregister(key_);
}

void SaveWrap::Teardown() {
  if (pipeline_ != nullptr) {
    pipeline_->Cancel();
    pipeline_->Join();
  }
  data_ = nullptr;
}

Napi::Value SaveWrap::Next(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (pipeline_ == nullptr || pending_) return ThrowType(env, "pipeline is closed or busy");
  pending_.emplace(Napi::Promise::Deferred::New(env));
  const Napi::Value promise = pending_->Promise();
  if (!Settle(env)) {
    Ref();
    data_->mailbox().AddWaiter(env);
  }
  return promise;
}

void SaveWrap::OnNews(Napi::Env env) {
  if (!pending_ || pipeline_ == nullptr) return;
  if (!Settle(env)) return;
  data_->mailbox().RemoveWaiter(env);
  Unref();
}

// Settles the pending promise when there is news.
bool SaveWrap::Settle(Napi::Env env) {
  const SavePipeline::Polled polled = pipeline_->Poll();
  switch (polled.state) {
    case SavePipeline::State::kPending: return false;
    case SavePipeline::State::kSlab: {
      const Napi::Value slab = SlabToJs(env, *polled.slab);
      if (slab.IsEmpty()) {
        pending_->Reject(env.GetAndClearPendingException().Value());
      } else {
        pending_->Resolve(slab);
      }
      break;
    }
    case SavePipeline::State::kFinished: pending_->Resolve(env.Undefined()); break;
    case SavePipeline::State::kFailed: pending_->Reject(ToJs(env, polled.error)); break;
  }
  pending_.reset();
  return true;
}

Napi::Value SaveWrap::SlabToJs(Napi::Env env, const Slab& slab) {
  if (views_[slab.index].IsEmpty()) {
    const Napi::Value view = SlabView(env, pipeline_->slab_memory(), slab.index);
    if (view.IsEmpty()) return view;
    views_[slab.index] = Napi::Reference<Napi::Value>::New(view, 1);
  }
  taken_[slab.index] = &slab;
  Napi::Object object = Napi::Object::New(env);
  object.Set("slab", Number(env, slab.index));
  object.Set("view", views_[slab.index].Value());
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
  if (pipeline_ != nullptr) pipeline_->Release(taken_[*index]);
  taken_[*index] = nullptr;
  return info.Env().Undefined();
}

Napi::Value SaveWrap::Totals(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (pipeline_ == nullptr) return ThrowType(env, "pipeline is closed");
  const SaveTotals totals = pipeline_->totals();
  Napi::Object object = Napi::Object::New(env);
  object.Set("pages", Number(env, totals.pages));
  object.Set("zeroPages", Number(env, totals.zero_pages));
  object.Set("fillPages", Number(env, totals.fill_pages));
  object.Set("storedPages", Number(env, totals.stored_pages));
  object.Set("samePages", Number(env, totals.same_pages));
  object.Set("encodedBytes", Number(env, totals.encoded_bytes));
  return object;
}

Napi::Value SaveWrap::Close(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (pending_) {
    pipeline_->Cancel();
    if (Settle(env)) {
      data_->mailbox().RemoveWaiter(env);
      Unref();
    }
  }
  views_.clear();
  return JoinPipeline<SavePipeline>(env, std::exchange(pipeline_, nullptr));
}

}  // namespace chkpt::binding

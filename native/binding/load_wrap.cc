#include "binding/load_wrap.h"

#include <cstring>

#include "binding/convert.h"
#include "binding/memory_wrap.h"
#include "binding/pipeline_join.h"

namespace chkpt::binding {
namespace {

Napi::Value TotalsToJs(Napi::Env env, const LoadTotals& totals,
                       const std::vector<IndexGroup>& groups) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("pages", Number(env, totals.pages));
  object.Set("zeroPages", Number(env, totals.zero_pages));
  object.Set("fillPages", Number(env, totals.fill_pages));
  object.Set("storedPages", Number(env, totals.stored_pages));
  object.Set("samePages", Number(env, totals.same_pages));
  object.Set("encodedBytes", Number(env, totals.encoded_bytes));
  object.Set("groups", GroupsToJs(env, groups));
  return object;
}

}  // namespace

void LoadWrap::Define(Napi::Env env, Napi::Object exports) {
  const Napi::Function constructor =
      DefineClass(env, "LoadPipeline",
                  {
                      InstanceMethod<&LoadWrap::Acquire>("acquire"),
                      InstanceMethod<&LoadWrap::Push>("push"),
                      InstanceMethod<&LoadWrap::GiveBack>("giveBack"),
                      InstanceMethod<&LoadWrap::Finish>("finish"),
                      InstanceMethod<&LoadWrap::Settle>("settle"),
                      InstanceMethod<&LoadWrap::Close>("close"),
                  });
  AddonData::Of(env).load_constructor = Napi::Persistent(constructor);
  exports.Set("LoadPipeline", constructor);
}

LoadWrap::LoadWrap(const Napi::CallbackInfo& info) : Napi::ObjectWrap<LoadWrap>(info) {
  const Napi::Env env = info.Env();
  const std::shared_ptr<GuestMemory> memory = MemoryWrap::MemoryOf(info[0]);
  if (memory == nullptr) return;
  if (!info[1].IsObject()) {
    ThrowType(env, "options expected");
    return;
  }
  const Napi::Object object = info[1].As<Napi::Object>();
  const auto position = ToPosition(object);
  const auto threads = ToUint64(object.Get("threads"));
  const auto buffer_count = ToUint64(object.Get("bufferCount"));
  if (!position || !threads || *threads < 1 || *threads > 64 || !buffer_count ||
      *buffer_count > 256) {
    ThrowType(env, "load options are not valid");
    return;
  }
  data_ = &AddonData::Of(env);
  key_ = data_->Register(this);
  auto pipeline = LoadPipeline::Start(memory,
                                      {.position = *position,
                                       .threads = static_cast<unsigned>(*threads),
                                       .buffer_count = static_cast<unsigned>(*buffer_count)},
                                      data_->NotifierOf(key_));
  if (!pipeline.ok()) {
    Throw(env, pipeline.error());
    return;
  }
  pipeline_ = std::move(pipeline.value());
  taken_.resize(pipeline_->slab_memory()->slab_count());
  views_.resize(taken_.size());
}

LoadWrap::~LoadWrap() {
  if (data_ != nullptr) data_->Unregister(key_);
}

void LoadWrap::Teardown() {
  if (pipeline_ != nullptr) {
    pipeline_->Cancel();
    pipeline_->Join();
  }
  data_ = nullptr;
}

Napi::Value LoadWrap::Wait(Napi::Env env, Waiting waiting) {
  if (pipeline_ == nullptr || pending_) return ThrowType(env, "pipeline is closed or busy");
  waiting_ = waiting;
  pending_.emplace(Napi::Promise::Deferred::New(env));
  const Napi::Value promise = pending_->Promise();
  if (!TrySettle(env)) {
    Ref();
    data_->mailbox().AddWaiter(env);
  }
  return promise;
}

void LoadWrap::OnNews(Napi::Env env) {
  if (!pending_ || pipeline_ == nullptr) return;
  if (!TrySettle(env)) return;
  data_->mailbox().RemoveWaiter(env);
  Unref();
}

bool LoadWrap::TrySettle(Napi::Env env) {
  const LoadPipeline::Polled polled = pipeline_->Poll();
  if (polled.state == LoadPipeline::State::kFailed) {
    pending_->Reject(ToJs(env, polled.error));
  } else if (waiting_ == Waiting::kBuffer) {
    const std::optional<std::size_t> buffer = pipeline_->TakeBuffer();
    if (!buffer) return false;
    const Napi::Value taken = BufferToJs(env, *buffer);
    if (taken.IsEmpty()) {
      pipeline_->Return(*buffer);
      pending_->Reject(env.GetAndClearPendingException().Value());
    } else {
      pending_->Resolve(taken);
    }
  } else {
    if (polled.state != LoadPipeline::State::kFinished) return false;
    pending_->Resolve(TotalsToJs(env, pipeline_->totals(), pipeline_->groups()));
  }
  pending_.reset();
  return true;
}

Napi::Value LoadWrap::BufferToJs(Napi::Env env, std::size_t buffer) {
  if (views_[buffer].IsEmpty()) {
    const Napi::Value slab = SlabView(env, pipeline_->slab_memory(), buffer);
    if (slab.IsEmpty()) return slab;
    const Napi::Uint8Array read_area = Napi::Uint8Array::New(
        env, LoadPipeline::kReadBytes, slab.As<Napi::Uint8Array>().ArrayBuffer(),
        LoadPipeline::kHeadroomBytes);
    views_[buffer] = Napi::Reference<Napi::Value>::New(read_area, 1);
  }
  taken_[buffer] = true;
  Napi::Object object = Napi::Object::New(env);
  object.Set("buffer", Number(env, buffer));
  object.Set("view", views_[buffer].Value());
  return object;
}

std::optional<std::size_t> LoadWrap::TakenBuffer(const Napi::Value& value) const {
  const auto index = ToUint64(value);
  if (pipeline_ == nullptr || !index || *index >= taken_.size() || !taken_[*index]) {
    return std::nullopt;
  }
  return *index;
}

Napi::Value LoadWrap::Acquire(const Napi::CallbackInfo& info) {
  return Wait(info.Env(), Waiting::kBuffer);
}

Napi::Value LoadWrap::Push(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto buffer = TakenBuffer(info[0]);
  const auto bytes = ToUint64(info[1]);
  if (!buffer || !bytes || *bytes > LoadPipeline::kReadBytes) {
    return ThrowType(env, "a buffer that was taken and its bytes expected");
  }
  taken_[*buffer] = false;
  Result<LoadPipeline::Pushed> result = pipeline_->Push(*buffer, *bytes);
  if (!result.ok()) {
    Throw(env, result.error());
    return {};
  }
  const LoadPipeline::Pushed& pushed = result.value();
  Napi::Object object = Napi::Object::New(env);
  object.Set("digests", DigestsToJs(env, pushed.digests));
  object.Set("pages", Number(env, pipeline_->next_page()));
  object.Set("ended", Napi::Boolean::New(env, pushed.ended));
  if (pushed.ended) {
    Napi::Uint8Array leftover = Napi::Uint8Array::New(env, pushed.leftover_bytes);
    if (pushed.leftover_bytes != 0) {
      std::memcpy(leftover.Data(), pushed.leftover, pushed.leftover_bytes);
    }
    object.Set("leftover", leftover);
  }
  return object;
}

Napi::Value LoadWrap::GiveBack(const Napi::CallbackInfo& info) {
  const auto buffer = TakenBuffer(info[0]);
  if (!buffer) return ThrowType(info.Env(), "a buffer that was taken expected");
  taken_[*buffer] = false;
  pipeline_->Return(*buffer);
  return info.Env().Undefined();
}

Napi::Value LoadWrap::Finish(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (pipeline_ == nullptr) return ThrowType(env, "pipeline is closed");
  Status status = pipeline_->PushEnd();
  if (!status.ok()) {
    Throw(env, status.error());
    return {};
  }
  return Wait(env, Waiting::kEnd);
}

Napi::Value LoadWrap::Settle(const Napi::CallbackInfo& info) {
  if (pipeline_ == nullptr) return ThrowType(info.Env(), "pipeline is closed");
  pipeline_->StopInput();
  return Wait(info.Env(), Waiting::kEnd);
}

Napi::Value LoadWrap::Close(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (pending_) {
    pipeline_->Cancel();
    if (TrySettle(env)) {
      data_->mailbox().RemoveWaiter(env);
      Unref();
    }
  }
  views_.clear();
  return JoinPipeline<LoadPipeline>(env, std::exchange(pipeline_, nullptr));
}

}  // namespace chkpt::binding

#include "binding/load_wrap.h"

#include <algorithm>
#include <climits>
#include <cstring>
#include <utility>

#include "binding/chain_wrap.h"
#include "binding/convert.h"
#include "binding/memory_wrap.h"
#include "binding/missing_wrap.h"
#include "binding/pool_wrap.h"

namespace chkpt::binding {

void LoadWrap::Define(Napi::Env env, Napi::Object exports) {
  const Napi::Function constructor =
      DefineClass(env, "LoadPipeline",
                  {
                      InstanceMethod<&LoadWrap::Acquire>("acquire"),
                      InstanceMethod<&LoadWrap::Feed>("feed"),
                      InstanceMethod<&LoadWrap::Fed>("fed"),
                      InstanceMethod<&LoadWrap::Push>("push"),
                      InstanceMethod<&LoadWrap::GiveBack>("giveBack"),
                      InstanceMethod<&LoadWrap::Finish>("finish"),
                      InstanceMethod<&LoadWrap::Settle>("settle"),
                      InstanceMethod<&LoadWrap::Close>("close"),
                  });
  AddonData::Of(env).load_constructor = Napi::Persistent(constructor);
  exports.Set("LoadPipeline", constructor);
}

LoadWrap::LoadWrap(const Napi::CallbackInfo& info) : PipelineWrap(info) {
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
  const auto read_bytes = ToUint64(object.Get("readBytes"));
  if (!read_bytes || !position || !threads || *threads < 1 || *threads > 64 || !buffer_count ||
      *buffer_count > 256) {
    ThrowType(env, "load options are not valid");
    return;
  }
  LoadOptions options{.position = *position,
                      .threads = static_cast<unsigned>(*threads),
                      .buffer_count = static_cast<unsigned>(*buffer_count),
                      .read_bytes = static_cast<std::size_t>(*read_bytes)};
  if (const ChainWrap* chain = ChainWrap::Of(object.Get("chain"))) {
    options.chain = chain->chain();
    if (ToBool(object.Get("resolve"))) options.resolver = chain->resolver();
  }
  options.digests = DigestsWrap::Of(object.Get("pageDigests"));
  options.placer = MissingWrap::Of(object.Get("placer"));
  if (env.IsExceptionPending()) return;
  options.deltas = ToBool(object.Get("deltas"));
  StartPipeline(env, [&](auto notify, auto buffers) {
    options.buffers = std::move(buffers);
    return LoadPipeline::Start(memory, options, std::move(notify));
  });
  if (pipeline() != nullptr) taken_.resize(pipeline()->buffer_count());
}

Napi::Value LoadWrap::WaitFor(Napi::Env env, Waiting waiting) {
  const bool is_its_turn = feeding_ == (waiting == Waiting::kFed);
  if (pipeline() == nullptr || busy() || !is_its_turn) {
    return ThrowType(env, "pipeline is closed or busy");
  }
  waiting_ = waiting;
  return Wait(env);
}

bool LoadWrap::TrySettle(Napi::Env env) {
  if (waiting_ == Waiting::kFed) return SettleFed(env);
  const LoadPipeline::Polled polled = pipeline()->Poll();
  if (polled.state == LoadPipeline::State::kFailed) return Reject(ToJs(env, polled.error));
  if (waiting_ == Waiting::kBuffer) return SettleBuffer(env);
  if (polled.state != LoadPipeline::State::kFinished) return false;
  const Napi::Object totals = TotalsToJs(env, pipeline()->totals());
  totals.Set("groups", GroupsToJs(env, pipeline()->groups()));
  return Resolve(totals);
}

// Damage that workers find is told when the caller asks for the next buffer, or the end.
bool LoadWrap::SettleFed(Napi::Env env) {
  views().Trim();
  std::optional<LoadPipeline::Fed> fed = pipeline()->PollFed();
  if (!fed && pipeline()->cancelled()) {
    return Reject(ToJs(env, {.code = ErrorCode::kAborted, .message = "load cancelled"}));
  }
  if (!fed) return false;
  feeding_ = !fed->over;
  Napi::Object object = Napi::Object::New(env);
  object.Set("digests", DigestsToJs(env, fed->digests));
  object.Set("bytes", Number(env, fed->bytes));
  object.Set("pages", Number(env, fed->pages));
  object.Set("over", Napi::Boolean::New(env, fed->over));
  object.Set("ended", Napi::Boolean::New(env, fed->ended));
  if (fed->ended) object.Set("leftover", CopyToJs<std::uint8_t>(env, fed->leftover));
  if (fed->error) object.Set("error", ToJs(env, *fed->error));
  return Resolve(object);
}

bool LoadWrap::SettleBuffer(Napi::Env env) {
  Result<std::optional<std::size_t>> buffer = pipeline()->TakeBuffer();
  if (!buffer.ok()) return Reject(ToJs(env, buffer.error()));
  if (!buffer.value()) return false;
  const Napi::Value taken = BufferToJs(env, *buffer.value());
  if (!taken.IsEmpty()) return Resolve(taken);
  pipeline()->Return(*buffer.value());
  return Reject(env.GetAndClearPendingException().Value());
}

Napi::Value LoadWrap::BufferToJs(Napi::Env env, std::size_t buffer) {
  const Napi::Value view = ViewOf(env, buffer, pipeline()->buffer(buffer),
                                  LoadPipeline::kHeadroomBytes, pipeline()->read_bytes());
  if (view.IsEmpty()) return view;
  taken_[buffer] = true;
  Napi::Object object = Napi::Object::New(env);
  object.Set("buffer", Number(env, buffer));
  object.Set("view", view);
  return object;
}

std::optional<std::size_t> LoadWrap::TakenBuffer(const Napi::Value& value) {
  const auto index = ToUint64(value);
  if (pipeline() == nullptr || feeding_ || !index || *index >= taken_.size() || !taken_[*index]) {
    return std::nullopt;
  }
  return *index;
}

Napi::Value LoadWrap::Acquire(const Napi::CallbackInfo& info) {
  return WaitFor(info.Env(), Waiting::kBuffer);
}

Napi::Value LoadWrap::Feed(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto file = ToUint64(info[0]);
  const auto position = ToUint64(info[1]);
  const auto bytes = ToUint64(info[2]);
  if (pipeline() == nullptr || busy() || feeding_) {
    return ThrowType(env, "pipeline is closed or busy");
  }
  if (auto source = PooledSourceWrap::SourceOf(info[0])) {
    if (!position || !bytes || *position > source->byte_count() ||
        *bytes > source->byte_count() - *position) {
      return ThrowType(env, "a range of the source expected");
    }
    pipeline()->Feed(
        [source](std::uint64_t at, std::span<std::uint8_t> target) {
          return source->Read(at, target).ok() ? target.size() : 0;
        },
        *position, *bytes);
    feeding_ = true;
    return env.Undefined();
  }
  if (!file || *file > INT_MAX || !position || !bytes) {
    return ThrowType(env, "a descriptor or source, a position and a number of bytes expected");
  }
  Status status = pipeline()->Feed(static_cast<int>(*file), *position, *bytes);
  if (!status.ok()) {
    Throw(env, status.error());
    return {};
  }
  feeding_ = true;
  return env.Undefined();
}

Napi::Value LoadWrap::Fed(const Napi::CallbackInfo& info) {
  return WaitFor(info.Env(), Waiting::kFed);
}

Napi::Value LoadWrap::Push(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto buffer = TakenBuffer(info[0]);
  const auto bytes = ToUint64(info[1]);
  if (!buffer || !bytes || *bytes > pipeline()->read_bytes()) {
    return ThrowType(env, "a buffer that was taken and its bytes expected");
  }
  taken_[*buffer] = false;
  CheckView(*buffer, *pipeline()->buffer(*buffer));
  Result<LoadPipeline::Pushed> result = pipeline()->Push(*buffer, *bytes);
  if (!result.ok()) {
    Throw(env, result.error());
    return {};
  }
  const LoadPipeline::Pushed& pushed = result.value();
  Napi::Object object = Napi::Object::New(env);
  object.Set("digests", DigestsToJs(env, pushed.digests));
  object.Set("pages", Number(env, pipeline()->next_page()));
  object.Set("ended", Napi::Boolean::New(env, pushed.ended));
  if (pushed.ended) {
    const std::span<const std::uint8_t> rest(pushed.leftover, pushed.leftover_bytes);
    object.Set("leftover", CopyToJs(env, rest));
  }
  return object;
}

Napi::Value LoadWrap::GiveBack(const Napi::CallbackInfo& info) {
  const auto buffer = TakenBuffer(info[0]);
  if (!buffer) return ThrowType(info.Env(), "a buffer that was taken expected");
  taken_[*buffer] = false;
  CheckView(*buffer, *pipeline()->buffer(*buffer));
  pipeline()->Return(*buffer);
  return info.Env().Undefined();
}

Napi::Value LoadWrap::Finish(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (pipeline() == nullptr || feeding_) return ThrowType(env, "pipeline is closed or busy");
  Status status = pipeline()->PushEnd();
  if (!status.ok()) {
    Throw(env, status.error());
    return {};
  }
  return WaitFor(env, Waiting::kEnd);
}

Napi::Value LoadWrap::Settle(const Napi::CallbackInfo& info) {
  if (pipeline() == nullptr || feeding_) {
    return ThrowType(info.Env(), "pipeline is closed or busy");
  }
  pipeline()->StopInput();
  return WaitFor(info.Env(), Waiting::kEnd);
}

Napi::Value LoadWrap::Close(const Napi::CallbackInfo& info) { return ClosePipeline(info.Env()); }

}  // namespace chkpt::binding

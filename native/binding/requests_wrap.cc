#include "binding/requests_wrap.h"

#include <vector>

#include "binding/convert.h"

namespace chkpt::binding {
namespace {

constexpr napi_type_tag kRequestsTag = {0x5d0b7e13a94c42f6, 0x90c3f81be2746ad5};

}  // namespace

void RequestsWrap::Define(Napi::Env env, Napi::Object exports) {
  exports.Set("BlockRequests", DefineClass(env, "BlockRequests",
                                           {
                                               InstanceMethod<&RequestsWrap::Next>("next"),
                                               InstanceMethod<&RequestsWrap::Answer>("answer"),
                                               InstanceMethod<&RequestsWrap::Refuse>("refuse"),
                                               InstanceMethod<&RequestsWrap::Close>("close"),
                                           }));
}

RequestsWrap::RequestsWrap(const Napi::CallbackInfo& info) : PipelineWrap(info) {
  const Napi::Env env = info.Env();
  const auto byte_count = ToUint64(info[0]);
  if (!byte_count) {
    ThrowType(env, "the bytes of a stream expected");
    return;
  }
  info.This().As<Napi::Object>().TypeTag(&kRequestsTag);
  StartPipeline(env, [&](auto notify, auto) -> Result<std::unique_ptr<RequestsWork>> {
    return std::make_unique<RequestsWork>(
        std::make_shared<AskedSource>(*byte_count, std::move(notify)));
  });
}

std::shared_ptr<BlockSource> RequestsWrap::SourceOf(const Napi::Value& value) {
  RequestsWrap* const wrap = UnwrapTagged<RequestsWrap>(value, kRequestsTag);
  return wrap == nullptr || wrap->pipeline() == nullptr ? nullptr : wrap->pipeline()->source();
}

bool RequestsWrap::TrySettle(Napi::Env env) {
  AskedSource& source = *pipeline()->source();
  const std::vector<AskedSource::Request> requests = source.Take();
  if (requests.empty()) return source.is_cancelled() && Resolve(env.Undefined());
  std::vector<double> numbers;
  for (const AskedSource::Request& one : requests) {
    for (const std::uint64_t number : {one.id, one.offset, one.bytes}) {
      numbers.push_back(static_cast<double>(number));
    }
  }
  return Resolve(CopyToJs<double>(env, numbers));
}

Napi::Value RequestsWrap::Next(const Napi::CallbackInfo& info) {
  if (busy()) return ThrowType(info.Env(), "one call at a time");
  if (pipeline() != nullptr) return Wait(info.Env());
  const Promise closed(info.Env());
  closed.Resolve(info.Env().Undefined());
  return closed.value();
}

Napi::Value RequestsWrap::Answer(const Napi::CallbackInfo& info) {
  const auto id = ToUint64(info[0]);
  const auto bytes = ToBytes(info[1]);
  if (!id || !bytes) return ThrowType(info.Env(), "a request and its bytes expected");
  if (pipeline() != nullptr && !pipeline()->source()->Answer(*id, *bytes)) {
    return ThrowType(info.Env(), "more bytes than were asked for");
  }
  return info.Env().Undefined();
}

Napi::Value RequestsWrap::Refuse(const Napi::CallbackInfo& info) {
  const auto id = ToUint64(info[0]);
  if (!id) return ThrowType(info.Env(), "a request expected");
  if (pipeline() != nullptr) {
    pipeline()->source()->Refuse(
        *id, {.code = ErrorCode::kIo, .message = "the store could not be read"});
  }
  return info.Env().Undefined();
}

Napi::Value RequestsWrap::Close(const Napi::CallbackInfo& info) {
  return ClosePipeline(info.Env());
}

}  // namespace chkpt::binding

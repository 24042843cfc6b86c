#include "binding/stamp_wrap.h"

#include "binding/convert.h"
#include "binding/memory_wrap.h"
#include "binding/task.h"

namespace chkpt::binding {

void StampWrap::Define(Napi::Env env, Napi::Object exports) {
  const Napi::Function constructor =
      DefineClass(env, "StampWriter",
                  {
                      InstanceMethod<&StampWrap::Resume>("resume"),
                      InstanceMethod<&StampWrap::Pause>("pause"),
                      InstanceMethod<&StampWrap::Stop>("stop"),
                      InstanceMethod<&StampWrap::PagesWritten>("pagesWritten"),
                      InstanceMethod<&StampWrap::Counter>("counter"),
                      InstanceMethod<&StampWrap::SetCounter>("setCounter"),
                  });
  AddonData::Of(env).stamp_constructor = Napi::Persistent(constructor);
  exports.Set("StampWriter", constructor);
}

StampWrap::StampWrap(const Napi::CallbackInfo& info) : Napi::ObjectWrap<StampWrap>(info) {
  const Napi::Env env = info.Env();
  std::shared_ptr<GuestMemory> memory = MemoryWrap::MemoryOf(info[0]);
  if (memory == nullptr) return;
  if (!info[1].IsObject()) {
    ThrowType(env, "options expected");
    return;
  }
  const Napi::Object object = info[1].As<Napi::Object>();
  const auto threads = ToUint64(object.Get("threads"));
  const auto rate = ToUint64(object.Get("pagesPerSecond"));
  const auto pattern = ToUint64(object.Get("pattern"));
  const auto seed = ToUint64(object.Get("seed"));
  const auto first = ToUint64(object.Get("firstPage"));
  const auto count = ToUint64(object.Get("pageCount"));
  if (!threads || *threads < 1 || *threads > 64 || !rate || !pattern || *pattern > 2 || !seed ||
      !first || !count || *first > memory->page_count() || *count > memory->page_count() - *first) {
    ThrowType(env, "stamp options are not valid");
    return;
  }
  for (const Region& region : memory->regions()) {
    if (region.host == nullptr || !region.writable) {
      ThrowType(env, "stamps need mapped memory that can be written");
      return;
    }
  }
  data_ = &AddonData::Of(env);
  key_ = data_->Register(this);
  writer_ = std::make_shared<StampWriter>(
      std::move(memory), StampOptions{.threads = static_cast<unsigned>(*threads),
                                      .pages_per_second = *rate,
                                      .pattern = static_cast<WritePattern>(*pattern),
                                      .seed = *seed,
                                      .pages = {*first, *count}});
  writer_->Start();
}

StampWrap::~StampWrap() {
  if (data_ != nullptr) data_->Unregister(key_);
}

void StampWrap::Teardown() {
  if (writer_ != nullptr) writer_->Stop();
  data_ = nullptr;
}

Napi::Value StampWrap::Resume(const Napi::CallbackInfo& info) {
  if (writer_ != nullptr) writer_->Resume();
  return info.Env().Undefined();
}

Napi::Value StampWrap::Pause(const Napi::CallbackInfo& info) {
  return Task<Nothing>::Run(
      info.Env(),
      [writer = writer_](const std::atomic<bool>&) {
        if (writer != nullptr) writer->Pause();
        return Ok();
      },
      [](Napi::Env env, const Nothing&) { return env.Undefined(); });
}

Napi::Value StampWrap::Stop(const Napi::CallbackInfo& info) {
  return Task<Nothing>::Run(
      info.Env(),
      [writer = writer_](const std::atomic<bool>&) {
        if (writer != nullptr) writer->Stop();
        return Ok();
      },
      [](Napi::Env env, const Nothing&) { return env.Undefined(); });
}

Napi::Value StampWrap::PagesWritten(const Napi::CallbackInfo& info) {
  return Number(info.Env(), writer_ == nullptr ? 0 : writer_->pages_written());
}

Napi::Value StampWrap::Counter(const Napi::CallbackInfo& info) {
  return Napi::BigInt::New(info.Env(), writer_ == nullptr ? std::uint64_t{0} : writer_->counter());
}

Napi::Value StampWrap::SetCounter(const Napi::CallbackInfo& info) {
  const auto counter = ToUint64(info[0]);
  if (!counter) return ThrowType(info.Env(), "counter expected");
  if (writer_ != nullptr) writer_->set_counter(*counter);
  return info.Env().Undefined();
}

}  // namespace chkpt::binding

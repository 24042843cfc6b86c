#include "binding/buffers.h"

#include <array>
#include <cstring>
#include <memory>

#include "binding/buffer_views.h"
#include "binding/convert.h"
#include "binding/task.h"

namespace chkpt::binding {
namespace {

constexpr std::uint64_t kBufferBytesMax = std::uint64_t{1} << 30;

// allocateBuffer(bytes): Uint8Array of zeros, page-aligned, in transparent huge pages where the
// kernel has them: their first touch costs an eighth of that of 4 KiB pages. Untouched parts take
// no memory.
Napi::Value AllocateBuffer(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto bytes = ToUint64(info[0]);
  if (!bytes || *bytes == 0 || *bytes > kBufferBytesMax) {
    return ThrowType(env, "1 byte to 1 GiB expected");
  }
  auto mapped = Buffer::Map(*bytes, true);
  if (!mapped.ok()) {
    Throw(env, mapped.error());
    return {};
  }
  const Napi::ArrayBuffer buffer = ArrayBufferOver(env, std::move(mapped.value()));
  if (buffer.IsEmpty()) return {};
  return Napi::Uint8Array::New(env, *bytes, buffer, 0);
}

// copyBytes(target, source): Promise<void>, on a thread of its own. Both have the same length;
// neither may be transferred before it resolves.
Napi::Value CopyBytes(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto target = ToBytes(info[0]);
  const auto source = ToBytes(info[1]);
  if (!target || !source || target->size() != source->size()) {
    return ThrowType(env, "two Uint8Arrays of the same length expected");
  }
  auto keep = std::make_shared<std::array<Napi::ObjectReference, 2>>();
  (*keep)[0] = Napi::Persistent(info[0].As<Napi::Object>());
  (*keep)[1] = Napi::Persistent(info[1].As<Napi::Object>());
  return Task<Nothing>::Run(
      env,
      [target = *target, source = *source](const std::atomic<bool>&) {
        if (!source.empty()) std::memmove(target.data(), source.data(), source.size());
        return Ok();
      },
      [keep](Napi::Env e, const Nothing&) { return e.Undefined(); });
}

}  // namespace

void DefineBuffers(Napi::Env env, Napi::Object exports) {
  exports.Set("allocateBuffer", Napi::Function::New<&AllocateBuffer>(env, "allocateBuffer"));
  exports.Set("copyBytes", Napi::Function::New<&CopyBytes>(env, "copyBytes"));
}

}  // namespace chkpt::binding

#include "binding/buffers.h"

#include <cstring>
#include <memory>
#include <span>
#include <vector>

#include "binding/buffer_views.h"
#include "binding/convert.h"
#include "binding/node_cipher.h"
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

// copyBytes(target, sources): Promise<void>, one source behind the other, on a thread of its own.
// The target has the length of all sources; none of them may be transferred before it resolves.
Napi::Value CopyBytes(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto target = ToBytes(info[0]);
  if (!target || !info[1].IsArray()) return ThrowType(env, "a Uint8Array and an array expected");
  const Napi::Array array = info[1].As<Napi::Array>();
  std::vector<std::span<const std::uint8_t>> sources;
  auto keep = std::make_shared<std::vector<Napi::ObjectReference>>();
  keep->push_back(Napi::Persistent(info[0].As<Napi::Object>()));
  std::size_t bytes = 0;
  for (std::uint32_t i = 0; i < array.Length(); ++i) {
    const Napi::Value item = array.Get(i);
    const auto source = ToBytes(item);
    if (!source) return ThrowType(env, "sources must be Uint8Arrays");
    sources.emplace_back(*source);
    bytes += source->size();
    keep->push_back(Napi::Persistent(item.As<Napi::Object>()));
  }
  if (bytes != target->size()) {
    return ThrowType(env, "the sources do not have the length of the target");
  }
  return Task<Nothing>::Run(
      env,
      [target = target->data(), sources](const std::atomic<bool>&) {
        std::uint8_t* to = target;
        for (const auto source : sources) {
          if (!source.empty()) std::memmove(to, source.data(), source.size());
          to += source.size();
        }
        return Ok();
      },
      [keep](Napi::Env e, const Nothing&) { return e.Undefined(); });
}

// sha256(bytes): Promise<Uint8Array>, 32 bytes, on a thread of its own and without a copy. The
// bytes may not be transferred before it resolves. Rejects with kUnsupported where Node's OpenSSL
// is not found.
Napi::Value Sha256(const Napi::CallbackInfo& info) {
  const auto bytes = ToBytes(info[0]);
  if (!bytes) return ThrowType(info.Env(), "a Uint8Array expected");
  auto keep = std::make_shared<Napi::ObjectReference>(Napi::Persistent(info[0].As<Napi::Object>()));
  return Task<Sha256Digest>::Run(
      info.Env(),
      [source = std::span<const std::uint8_t>(*bytes)](const std::atomic<bool>&) {
        const CipherUse use;
        return NodeSha256(source);
      },
      [keep](Napi::Env env, const Sha256Digest& digest) {
        return CopyToJs<std::uint8_t>(env, digest);
      });
}

}  // namespace

void DefineBuffers(Napi::Env env, Napi::Object exports) {
  exports.Set("allocateBuffer", Napi::Function::New<&AllocateBuffer>(env, "allocateBuffer"));
  exports.Set("copyBytes", Napi::Function::New<&CopyBytes>(env, "copyBytes"));
  exports.Set("sha256", Napi::Function::New<&Sha256>(env, "sha256"));
}

}  // namespace chkpt::binding

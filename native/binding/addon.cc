// The addon: what src/native/addon.ts types. Converts and delegates; no algorithms.
#include <napi.h>

#include <limits>

#include "binding/addon_data.h"
#include "binding/bench_wrap.h"
#include "binding/buffers.h"
#include "binding/chain_wrap.h"
#include "binding/convert.h"
#include "binding/copy_wrap.h"
#include "binding/delta_wrap.h"
#include "binding/fetch_wrap.h"
#include "binding/foreign_wrap.h"
#include "binding/guard_wrap.h"
#include "binding/gzip_wrap.h"
#include "binding/kvm_wrap.h"
#include "binding/lazy_wrap.h"
#include "binding/load_wrap.h"
#include "binding/memory_wrap.h"
#include "binding/missing_wrap.h"
#include "binding/page_set_wrap.h"
#include "binding/pool_wrap.h"
#include "binding/requests_wrap.h"
#include "binding/save_wrap.h"
#include "binding/seal_wrap.h"
#include "binding/stamp_wrap.h"
#include "binding/tracker_wrap.h"
#include "core/base/peer_process.h"
#include "core/base/xxh3.h"
#include "core/codec/lz4_block.h"
#include "core/codec/lz4_encoder.h"
#include "core/memory/presence.h"
#include "core/scan/page_kernels.h"

namespace chkpt::binding {
namespace {

// xxh3(bytes): bigint. Synchronous: for metadata frames.
Napi::Value Xxh3(const Napi::CallbackInfo& info) {
  const auto bytes = ToBytes(info[0]);
  if (!bytes) return ThrowType(info.Env(), "a Uint8Array expected");
  const std::uint64_t digest = XXH3_64bits(bytes->data(), bytes->size());
  return Napi::BigInt::New(info.Env(), digest);
}

// lz4Encode(bytes, acceleration): Uint8Array | undefined, undefined when it does not get smaller
Napi::Value Lz4Encode(const Napi::CallbackInfo& info) {
  const auto bytes = ToBytes(info[0]);
  const auto acceleration = ToUint64(info[1]);
  if (!bytes || bytes->size() > kBlockBytes || !acceleration || *acceleration < 1 ||
      *acceleration > 65537) {
    return ThrowType(info.Env(), "at most 64 KiB and an acceleration expected");
  }
  std::vector<std::uint8_t> target(Lz4Bound(bytes->size()));
  const std::size_t encoded =
      bytes->empty() ? 0 : EncodeLz4(*bytes, static_cast<int>(*acceleration), target.data());
  if (encoded == 0) return info.Env().Undefined();
  return CopyToJs<std::uint8_t>(info.Env(), std::span(target).first(encoded));
}

// lz4Decode(bytes, decodedBytes): Uint8Array
Napi::Value Lz4Decode(const Napi::CallbackInfo& info) {
  const auto bytes = ToBytes(info[0]);
  const auto decoded_bytes = ToUint64(info[1]);
  if (!bytes || !decoded_bytes || *decoded_bytes > kBlockBytes) {
    return ThrowType(info.Env(), "a block and at most 64 KiB expected");
  }
  std::vector<std::uint8_t> result(*decoded_bytes);
  if (!DecodeLz4(*bytes, result)) {
    Throw(info.Env(),
          {.code = ErrorCode::kDecode, .message = "block does not decode to its declared size"});
    return {};
  }
  return CopyToJs<std::uint8_t>(info.Env(), result);
}

constexpr std::uint64_t kDescriptorMax = std::numeric_limits<int>::max();

// peerProcess(descriptor): number
Napi::Value PeerOf(const Napi::CallbackInfo& info) {
  const auto descriptor = ToUint64(info[0]);
  if (!descriptor || *descriptor > kDescriptorMax) {
    return ThrowType(info.Env(), "a descriptor expected");
  }
  Result<std::uint64_t> process = PeerProcess(static_cast<int>(*descriptor));
  if (!process.ok()) {
    Throw(info.Env(), process.error());
    return {};
  }
  return Napi::Number::New(info.Env(), static_cast<double>(process.value()));
}

Napi::Value Capabilities(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Napi::Object object = Napi::Object::New(env);
  object.Set("simd", BestPageKernels().name);
  const char* methods[] = {"scan", "entries", "none"};
  object.Set("pagemap", methods[static_cast<int>(PresenceFinder().method())]);
  object.Set("lz4Version", Lz4VersionNumber());
  object.Set("xxhashVersion", XXH_VERSION_NUMBER);
  object.Set("napiVersion", NAPI_VERSION);
  return object;
}

Napi::Object Init(Napi::Env env, Napi::Object exports) {
  AddonData::Install(env);
  MemoryWrap::Define(env, exports);
  PageSetWrap::Define(env, exports);
  TrackerWrap::Define(env, exports);
  GuardWrap::Define(env, exports);
  CopyWrap::Define(env, exports);
  GzipWrap::Define(env, exports);
  ChainWrap::Define(env, exports);
  DigestsWrap::Define(env, exports);
  DeltaWrap::Define(env, exports);
  PoolWriterWrap::Define(env, exports);
  SealWrap::Define(env, exports);
  PooledSourceWrap::Define(env, exports);
  SaveWrap::Define(env, exports);
  LoadWrap::Define(env, exports);
  LazyWrap::Define(env, exports);
  MissingWrap::Define(env, exports);
  LayerWrap::Define(env, exports);
  RequestsWrap::Define(env, exports);
  FetchWrap::Define(env, exports);
  StampWrap::Define(env, exports);
  DefineForeign(env, exports);
  DefineKvm(env, exports);
  DefineBuffers(env, exports);
  DefineBaselines(env, exports);
  exports.Set("xxh3", Napi::Function::New<&Xxh3>(env, "xxh3"));
  exports.Set("lz4Encode", Napi::Function::New<&Lz4Encode>(env, "lz4Encode"));
  exports.Set("lz4Decode", Napi::Function::New<&Lz4Decode>(env, "lz4Decode"));
  exports.Set("peerProcess", Napi::Function::New<&PeerOf>(env, "peerProcess"));
  exports.Set("capabilities", Napi::Function::New<&Capabilities>(env, "capabilities"));
  return exports;
}

}  // namespace
}  // namespace chkpt::binding

static Napi::Object InitAddon(Napi::Env env, Napi::Object exports) {
  return chkpt::binding::Init(env, exports);
}

NODE_API_MODULE(chkpt, InitAddon)

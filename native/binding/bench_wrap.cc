#include "binding/bench_wrap.h"

#include <algorithm>
#include <vector>

#include "binding/convert.h"
#include "binding/memory_wrap.h"
#include "binding/page_set_wrap.h"
#include "binding/task.h"
#include "core/base/bytes.h"
#include "core/bench/fault_bench.h"
#include "core/bench/track_baselines.h"

namespace chkpt::binding {
namespace {

Napi::Value ToJs(Napi::Env env, const Measured& measured) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("seconds", Napi::Number::New(env, measured.seconds));
  object.Set("bytes", Number(env, measured.bytes));
  object.Set("result", Napi::BigInt::New(env, measured.result));
  return object;
}

Napi::Value RunMeasured(Napi::Env env, std::function<Result<Measured>()> measure) {
  return Task<Measured>::Run(
      env, [measure = std::move(measure)](const std::atomic<bool>&) { return measure(); },
      [](Napi::Env e, const Measured& measured) { return ToJs(e, measured); });
}

unsigned ToThreads(const Napi::Value& value) {
  const auto threads = ToUint64(value);
  return threads && *threads >= 1 && *threads <= 64 ? static_cast<unsigned>(*threads) : 1;
}

template <Result<Measured> (*measure)(const GuestMemory&, unsigned)>
Napi::Value OverMemory(const Napi::CallbackInfo& info) {
  const std::shared_ptr<GuestMemory> memory = MemoryWrap::MemoryOf(info[0]);
  if (memory == nullptr) return {};
  const unsigned number = ToThreads(info[1]);
  return RunMeasured(info.Env(), [memory, number] { return measure(*memory, number); });
}

Result<Measured> Read(const GuestMemory& memory, unsigned threads) {
  return MeasureRead(memory, threads);
}
Result<Measured> ZeroScan(const GuestMemory& memory, unsigned threads) {
  return MeasureZeroScan(memory, threads);
}
Result<Measured> PalaciosRecords(const GuestMemory& memory, unsigned fd) {
  return MeasurePalaciosRecords(memory, static_cast<int>(fd));
}

Napi::Value MeasurePalacios(const Napi::CallbackInfo& info) {
  const std::shared_ptr<GuestMemory> memory = MemoryWrap::MemoryOf(info[0]);
  if (memory == nullptr) return {};
  const auto fd = ToUint64(info[1]);
  if (!fd || *fd > 0x7fffffff) return ThrowType(info.Env(), "descriptor expected");
  return RunMeasured(info.Env(), [memory, fd = static_cast<unsigned>(*fd)] {
    return PalaciosRecords(*memory, fd);
  });
}

// dirty(memory, perMille, seed)
Napi::Value Dirty(const Napi::CallbackInfo& info) {
  const std::shared_ptr<GuestMemory> memory = MemoryWrap::MemoryOf(info[0]);
  if (memory == nullptr) return {};
  const auto per_mille = ToUint64(info[1]);
  const auto seed = ToUint64(info[2]);
  if (!per_mille || *per_mille > 1000 || !seed) return ThrowType(info.Env(), "0 to 1000 expected");
  return Task<Nothing>::Run(
      info.Env(),
      [memory, per_mille = static_cast<unsigned>(*per_mille),
       seed = *seed](const std::atomic<bool>&) {
        DirtyPages(*memory, per_mille, seed);
        return Ok();
      },
      [](Napi::Env e, const Nothing&) { return e.Undefined(); });
}

Napi::Value BareScan(const Napi::CallbackInfo& info) {
  const std::shared_ptr<GuestMemory> memory = MemoryWrap::MemoryOf(info[0]);
  if (memory == nullptr) return {};
  return RunMeasured(info.Env(), [memory] { return MeasureBareScan(*memory); });
}

template <Measured (*measure)(const DirtyBitmap&)>
Napi::Value OverSet(const Napi::CallbackInfo& info) {
  const std::shared_ptr<DirtyBitmap> set = PageSetWrap::SetOf(info[0]);
  if (set == nullptr) return {};
  return RunMeasured(info.Env(), [set] { return Result<Measured>(measure(*set)); });
}

Napi::Value Warm(const Napi::CallbackInfo& info) {
  const auto bytes = ToUint64(info[0]);
  if (!bytes || *bytes == 0 || *bytes > kMemoryBytesMax) {
    return ThrowType(info.Env(), "bytes expected");
  }
  return Task<Nothing>::Run(
      info.Env(), [bytes = *bytes](const std::atomic<bool>&) { return WarmMemory(bytes); },
      [](Napi::Env e, const Nothing&) { return e.Undefined(); });
}

Napi::Value TimesToJs(Napi::Env env, const std::vector<double>& times) {
  return CopyToJs<double>(env, times);
}

Napi::Value Touch(const Napi::CallbackInfo& info) {
  const std::shared_ptr<GuestMemory> memory = MemoryWrap::MemoryOf(info[0]);
  if (memory == nullptr) return {};
  const auto bytes = ToBytes(info[1]);
  if (!bytes) return ThrowType(info.Env(), "a Uint8Array expected");
  std::vector<std::uint32_t> pages(bytes->size() / 4);
  for (std::size_t i = 0; i < pages.size(); ++i) {
    pages[i] = Load<std::uint32_t>(bytes->data() + 4 * i);
  }
  return Task<std::vector<double>>::Run(
      info.Env(),
      [memory, pages = std::move(pages)](const std::atomic<bool>&) {
        return Result<std::vector<double>>(TouchPages(*memory, pages));
      },
      TimesToJs);
}

Napi::Value FaultRoundTrip(const Napi::CallbackInfo& info) {
  const auto count = ToUint64(info[0]);
  if (!count || *count == 0 || *count > 100'000) return ThrowType(info.Env(), "a count expected");
  return Task<std::vector<double>>::Run(
      info.Env(),
      [count = *count](const std::atomic<bool>&) { return MeasureFaultRoundTrip(count); },
      TimesToJs);
}

}  // namespace

void DefineBaselines(Napi::Env env, Napi::Object exports) {
  Napi::Object bench = Napi::Object::New(env);
  bench.Set("read", Napi::Function::New<&OverMemory<&Read>>(env, "read"));
  bench.Set("zeroScan", Napi::Function::New<&OverMemory<&ZeroScan>>(env, "zeroScan"));
  bench.Set("copy", Napi::Function::New<&OverMemory<&MeasureCopy>>(env, "copy"));
  bench.Set("palaciosRecords", Napi::Function::New<&MeasurePalacios>(env, "palaciosRecords"));
  bench.Set("touch", Napi::Function::New<&Touch>(env, "touch"));
  bench.Set("faultRoundTrip", Napi::Function::New<&FaultRoundTrip>(env, "faultRoundTrip"));
  bench.Set("warm", Napi::Function::New<&Warm>(env, "warm"));
  bench.Set("dirty", Napi::Function::New<&Dirty>(env, "dirty"));
  bench.Set("bareScan", Napi::Function::New<&BareScan>(env, "bareScan"));
  bench.Set("bitLoop", Napi::Function::New<&OverSet<&MeasureBitLoop>>(env, "bitLoop"));
  bench.Set("runs", Napi::Function::New<&OverSet<&MeasureRuns>>(env, "runs"));
  exports.Set("bench", bench);
  BlocksWrap::Define(env, bench);
}

void BlocksWrap::Define(Napi::Env env, Napi::Object exports) {
  exports.Set("StoredBlocks", DefineClass(env, "StoredBlocks",
                                          {
                                              InstanceMethod<&BlocksWrap::Add>("add"),
                                              InstanceMethod<&BlocksWrap::Compress>("compress"),
                                              InstanceMethod<&BlocksWrap::Decode>("decode"),
                                          }));
}

BlocksWrap::BlocksWrap(const Napi::CallbackInfo& info)
    : Napi::ObjectWrap<BlocksWrap>(info), blocks_(std::make_shared<StoredBlocks>()) {}

Napi::Value BlocksWrap::Add(const Napi::CallbackInfo& info) {
  const auto frames = ToBytes(info[0]);
  if (!frames) return ThrowType(info.Env(), "a Uint8Array expected");
  Status status = blocks_->Add(*frames);
  if (!status.ok()) Throw(info.Env(), status.error());
  return info.Env().Undefined();
}

Napi::Value BlocksWrap::Compress(const Napi::CallbackInfo& info) {
  return RunMeasured(info.Env(), [blocks = blocks_, threads = ToThreads(info[0]),
                                  acceleration = static_cast<int>(ToUint64(info[1]).value_or(1))] {
    return Result<Measured>(blocks->Compress(threads, acceleration));
  });
}

Napi::Value BlocksWrap::Decode(const Napi::CallbackInfo& info) {
  const auto layout =
      ToBool(info[1]) ? StoredBlocks::Layout::kPacked : StoredBlocks::Layout::kInPlace;
  return RunMeasured(info.Env(), [blocks = blocks_, threads = ToThreads(info[0]), layout] {
    return blocks->Decode(threads, layout);
  });
}

}  // namespace chkpt::binding

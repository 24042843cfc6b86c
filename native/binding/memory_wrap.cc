#include "binding/memory_wrap.h"

#include <algorithm>
#include <utility>

#include "binding/addon_data.h"
#include "binding/convert.h"
#include "binding/task.h"
#include "core/lazy/page_run.h"
#include "core/scan/memory_scan.h"
#include "core/synthetic/guest_like.h"
#include "core/synthetic/stamp_writer.h"

namespace chkpt::binding {
namespace {

// 64 MiB: below it a thread costs more than the system call.
constexpr std::uint64_t kThreadedClosePages = (64u << 20) / kPageBytes;

constexpr napi_type_tag kMemoryTag = {0x2d1f0c7b9a6e4f35, 0x8c3b5a7e1d9f4a26};

using MemoryPointer = std::shared_ptr<GuestMemory>;

unsigned ToThreads(const Napi::Value& value) {
  const auto threads = ToUint64(value);
  return threads && *threads >= 1 && *threads <= 64 ? static_cast<unsigned>(*threads) : 1;
}

}  // namespace

void MemoryWrap::Define(Napi::Env env, Napi::Object exports) {
  const Napi::Function constructor =
      DefineClass(env, "NativeMemory",
                  {
                      InstanceMethod<&MemoryWrap::Read>("read"),
                      InstanceMethod<&MemoryWrap::Write>("write"),
                      InstanceMethod<&MemoryWrap::EncodeRun>("encodeRun"),
                      InstanceMethod<&MemoryWrap::Scan>("scan"),
                      InstanceMethod<&MemoryWrap::Digest>("digest"),
                      InstanceMethod<&MemoryWrap::Presence>("presence"),
                      InstanceMethod<&MemoryWrap::Touch>("touch"),
                      InstanceMethod<&MemoryWrap::FillGuestLike>("fillGuestLike"),
                      InstanceMethod<&MemoryWrap::CheckStamps>("checkStamps"),
                      InstanceMethod<&MemoryWrap::SharesBytesWith>("sharesBytesWith"),
                      InstanceMethod<&MemoryWrap::ResetClone>("resetClone"),
                      InstanceMethod<&MemoryWrap::Close>("close"),
                  });
  AddonData::Of(env).memory_constructor = Napi::Persistent(constructor);
  exports.Set("allocateMemory", Napi::Function::New<&MemoryWrap::Allocate>(env, "allocateMemory"));
  exports.Set("openFileMemory", Napi::Function::New<&MemoryWrap::OpenFiles>(env, "openFileMemory"));
  exports.Set("attachMemory", Napi::Function::New<&MemoryWrap::Attach>(env, "attachMemory"));
  exports.Set("describeMemory", Napi::Function::New<&MemoryWrap::Describe>(env, "describeMemory"));
}

MemoryWrap::MemoryWrap(const Napi::CallbackInfo& info) : Napi::ObjectWrap<MemoryWrap>(info) {
  if (info.Length() == 1 && info[0].IsExternal()) {
    memory_ = *info[0].As<Napi::External<MemoryPointer>>().Data();
    info.This().As<Napi::Object>().TypeTag(&kMemoryTag);
  } else {
    ThrowType(info.Env(), "guest memory is made by its factories");
  }
}

std::shared_ptr<GuestMemory> MemoryWrap::MemoryOf(const Napi::Value& value) {
  MemoryWrap* const wrap = UnwrapTagged<MemoryWrap>(value, kMemoryTag);
  if (wrap != nullptr) return wrap->Open(value.Env());
  ThrowType(value.Env(), "not a native guest memory");
  return nullptr;
}

Napi::Value MemoryWrap::Wrap(Napi::Env env, Result<MemoryPointer> memory) {
  if (!memory.ok()) {
    Throw(env, memory.error());
    return {};
  }
  return AddonData::Of(env).memory_constructor.New(
      {Napi::External<MemoryPointer>::New(env, &memory.value())});
}

bool MemoryWrap::StillAttached() const {
  for (const Attached& attached : attached_) {
    const auto bytes = ToBytes(attached.view.Value());
    if (!bytes || bytes->data() != attached.data || bytes->size() < attached.bytes) return false;
  }
  return true;
}

std::shared_ptr<GuestMemory> MemoryWrap::Open(Napi::Env env) const {
  if (memory_ == nullptr) {
    Throw(env, {.code = ErrorCode::kClosed, .message = "guest memory is closed"});
    return nullptr;
  }
  if (!StillAttached()) {
    Throw(env, {.code = ErrorCode::kMemoryDetached, .message = "attached memory was detached"});
    return nullptr;
  }
  return memory_;
}

// allocateMemory(regions, backing: 0 anonymous | 1 memfd | 2 hugetlb, hugePages)
Napi::Value MemoryWrap::Allocate(const Napi::CallbackInfo& info) {
  const auto specs = ToRegions(info[0]);
  const auto backing = ToUint64(info[1]);
  if (!specs || !backing || *backing > 2)
    return ThrowType(info.Env(), "regions and backing expected");
  return Wrap(info.Env(), GuestMemory::Allocate(*specs, {.backing = static_cast<Backing>(*backing),
                                                         .huge_pages = ToBool(info[2])}));
}

// openFileMemory(regions, fds, offsets, mode: 0 map | 1 file | 2 fresh file, writable)
Napi::Value MemoryWrap::OpenFiles(const Napi::CallbackInfo& info) {
  const auto specs = ToRegions(info[0]);
  const auto mode = ToUint64(info[3]);
  if (!specs || !info[1].IsArray() || !info[2].IsArray() || !mode || *mode > 2) {
    return ThrowType(info.Env(), "regions, descriptors, offsets and mode expected");
  }
  std::vector<GuestMemory::FileSpec> files;
  for (std::uint32_t i = 0; i < specs->size(); ++i) {
    const auto fd = ToUint64(info[1].As<Napi::Array>().Get(i));
    const auto offset = ToUint64(info[2].As<Napi::Array>().Get(i));
    if (!fd || *fd > 0x7fffffff || !offset) return ThrowType(info.Env(), "descriptor expected");
    files.push_back({(*specs)[i], static_cast<int>(*fd), *offset, ToBool(info[4])});
  }
  return Wrap(info.Env(),
              *mode == 0 ? GuestMemory::Map(files) : GuestMemory::OpenFiles(files, *mode == 2));
}

// attachMemory(regions, views: Uint8Array[]): views of SharedArrayBuffer or WebAssembly memory
Napi::Value MemoryWrap::Attach(const Napi::CallbackInfo& info) {
  const auto specs = ToRegions(info[0]);
  if (!specs || !info[1].IsArray()) return ThrowType(info.Env(), "regions and views expected");
  std::vector<GuestMemory::AttachSpec> attach;
  std::vector<Attached> attached;
  for (std::uint32_t i = 0; i < specs->size(); ++i) {
    const Napi::Value view = info[1].As<Napi::Array>().Get(i);
    const auto bytes = ToBytes(view);
    if (!bytes) return ThrowType(info.Env(), "a Uint8Array expected");
    attach.push_back({(*specs)[i], bytes->data(), bytes->size()});
    attached.push_back(
        {Napi::Persistent(view.As<Napi::Object>()), bytes->data(), (*specs)[i].bytes});
  }
  const Napi::Value wrapped = Wrap(info.Env(), GuestMemory::Attach(attach));
  if (wrapped.IsEmpty()) return wrapped;
  MemoryWrap* const wrap = UnwrapTagged<MemoryWrap>(wrapped, kMemoryTag);
  if (wrap != nullptr) wrap->attached_ = std::move(attached);
  return wrapped;
}

Napi::Value MemoryWrap::Describe(const Napi::CallbackInfo& info) {
  const auto specs = ToRegions(info[0]);
  if (!specs) return ThrowType(info.Env(), "regions expected");
  return Wrap(info.Env(), GuestMemory::Describe(*specs));
}

// read(address, target): synchronous copy on the JavaScript thread
Napi::Value MemoryWrap::Read(const Napi::CallbackInfo& info) {
  const MemoryPointer memory = Open(info.Env());
  const auto address = ToUint64(info[0]);
  const auto target = ToBytes(info[1]);
  if (memory == nullptr) return {};
  if (!address || !target) return ThrowType(info.Env(), "address and Uint8Array expected");
  Status status = memory->Read(*address, *target);
  if (!status.ok()) Throw(info.Env(), status.error());
  return info.Env().Undefined();
}

Napi::Value MemoryWrap::Write(const Napi::CallbackInfo& info) {
  const MemoryPointer memory = Open(info.Env());
  const auto address = ToUint64(info[0]);
  const auto source = ToBytes(info[1]);
  if (memory == nullptr) return {};
  if (!address || !source) return ThrowType(info.Env(), "address and Uint8Array expected");
  Status status = memory->Write(*address, *source);
  if (!status.ok()) Throw(info.Env(), status.error());
  return info.Env().Undefined();
}

// encodeRun(first, count): Uint8Array, see core/lazy/page_run.h
Napi::Value MemoryWrap::EncodeRun(const Napi::CallbackInfo& info) {
  const MemoryPointer memory = Open(info.Env());
  const auto first = ToUint64(info[0]);
  const auto count = ToUint64(info[1]);
  if (memory == nullptr) return {};
  if (!first || !count || *count < 1 || *count > kBlockPages || *first >= memory->page_count() ||
      *count > memory->regions()[memory->RegionOfPage(*first)].pages().end() - *first) {
    return ThrowType(info.Env(), "a few pages of one region expected");
  }
  auto bytes = EncodePageRun(*memory, {*first, *count});
  if (!bytes.ok()) {
    Throw(info.Env(), bytes.error());
    return {};
  }
  return CopyToJs<std::uint8_t>(info.Env(), bytes.value());
}

// scan(threads): Promise<{pages, present, zero, fill}>
Napi::Value MemoryWrap::Scan(const Napi::CallbackInfo& info) {
  const MemoryPointer memory = Open(info.Env());
  if (memory == nullptr) return {};
  const unsigned threads = ToThreads(info[0]);
  return Task<ScanTotals>::Run(
      info.Env(),
      [memory, threads](const std::atomic<bool>& cancelled) {
        return ScanMemory(*memory, threads, cancelled);
      },
      [](Napi::Env env, const ScanTotals& totals) {
        Napi::Object object = Napi::Object::New(env);
        object.Set("pages", Number(env, totals.pages));
        object.Set("present", Number(env, totals.present));
        object.Set("zero", Number(env, totals.zero));
        object.Set("fill", Number(env, totals.fill));
        return object;
      });
}

// digest(threads): Promise<bigint>
Napi::Value MemoryWrap::Digest(const Napi::CallbackInfo& info) {
  const MemoryPointer memory = Open(info.Env());
  if (memory == nullptr) return {};
  const unsigned threads = ToThreads(info[0]);
  return Task<std::uint64_t>::Run(
      info.Env(),
      [memory, threads](const std::atomic<bool>& cancelled) {
        return DigestMemory(*memory, threads, cancelled);
      },
      [](Napi::Env env, const std::uint64_t& digest) { return Napi::BigInt::New(env, digest); });
}

// presence(): Promise<number>: pages that may hold something, found without reading memory
Napi::Value MemoryWrap::Presence(const Napi::CallbackInfo& info) {
  const MemoryPointer memory = Open(info.Env());
  if (memory == nullptr) return {};
  return Task<std::uint64_t>::Run(
      info.Env(),
      [memory](const std::atomic<bool>& cancelled) { return CountPresent(*memory, cancelled); },
      [](Napi::Env env, const std::uint64_t& pages) { return Number(env, pages); });
}

// touch(address, bytes): Promise<void>
Napi::Value MemoryWrap::Touch(const Napi::CallbackInfo& info) {
  const MemoryPointer memory = Open(info.Env());
  if (memory == nullptr) return {};
  const auto address = ToUint64(info[0]);
  const auto bytes = ToUint64(info[1]);
  if (!address || !bytes) return ThrowType(info.Env(), "an address and bytes expected");
  return Task<Nothing>::Run(
      info.Env(),
      [memory, address = *address, bytes = *bytes](const std::atomic<bool>&) -> Result<Nothing> {
        Status touched = TouchMemory(*memory, address, bytes);
        if (!touched.ok()) return touched.error();
        return Nothing{};
      },
      [](Napi::Env env, const Nothing&) { return env.Undefined(); });
}

// fillGuestLike(seed, threads): Promise<void>
Napi::Value MemoryWrap::FillGuestLike(const Napi::CallbackInfo& info) {
  const MemoryPointer memory = Open(info.Env());
  const auto seed = ToUint64(info[0]);
  if (memory == nullptr) return {};
  if (!seed) return ThrowType(info.Env(), "seed expected");
  const unsigned threads = ToThreads(info[1]);
  return Task<Nothing>::Run(
      info.Env(),
      [memory, seed = *seed, threads](const std::atomic<bool>&) {
        return chkpt::FillGuestLike(*memory, seed, GuestLikeMix{}, threads);
      },
      [](Napi::Env env, const Nothing&) { return env.Undefined(); });
}

// checkStamps(): Promise<{stamped, damaged, firstDamaged, highestCounter}>
Napi::Value MemoryWrap::CheckStamps(const Napi::CallbackInfo& info) {
  const MemoryPointer memory = Open(info.Env());
  if (memory == nullptr) return {};
  return Task<StampCheck>::Run(
      info.Env(),
      [memory](const std::atomic<bool>&) {
        return Result<StampCheck>(chkpt::CheckStamps(*memory, {0, memory->page_count()}));
      },
      [](Napi::Env env, const StampCheck& check) {
        Napi::Object object = Napi::Object::New(env);
        object.Set("stamped", Number(env, check.stamped));
        object.Set("damaged", Number(env, check.damaged));
        object.Set("firstDamaged", Number(env, check.first_damaged));
        object.Set("highestCounter", Number(env, check.highest_counter));
        return object;
      });
}

// sharesBytesWith(other): whether both attach the same bytes of this process. Asked of buffers that
// were detached too: WebAssembly memory gets another buffer when it grows, mostly at the same
// place.
Napi::Value MemoryWrap::SharesBytesWith(const Napi::CallbackInfo& info) {
  const Napi::Value other = info[0];
  const MemoryWrap* const wrap = UnwrapTagged<MemoryWrap>(other, kMemoryTag);
  if (wrap == nullptr) return ThrowType(info.Env(), "not a native guest memory");
  const std::vector<Attached>& theirs = wrap->attached_;
  const bool same =
      !attached_.empty() && std::equal(attached_.begin(), attached_.end(), theirs.begin(),
                                       theirs.end(), [](const Attached& a, const Attached& b) {
                                         return a.data == b.data && a.bytes == b.bytes;
                                       });
  return Napi::Boolean::New(info.Env(), same);
}

// resetClone(): Promise<void>. Dropping many pages takes a while: not on this thread.
Napi::Value MemoryWrap::ResetClone(const Napi::CallbackInfo& info) {
  const MemoryPointer memory = Open(info.Env());
  if (memory == nullptr) return {};
  for (const Region& region : memory->regions()) {
    if (region.backing != Backing::kClone) return ThrowType(info.Env(), "a clone expected");
  }
  return Task<Nothing>::Run(
      info.Env(), [memory](const std::atomic<bool>&) { return memory->ResetClone(); },
      [](Napi::Env env, const Nothing&) { return env.Undefined(); });
}

// close(): Promise<void> | undefined. Giving back many gigabytes takes a while: not on this thread.
Napi::Value MemoryWrap::Close(const Napi::CallbackInfo& info) {
  std::shared_ptr<GuestMemory> memory = std::exchange(memory_, nullptr);
  attached_.clear();
  if (memory == nullptr || memory->page_count() < kThreadedClosePages)
    return info.Env().Undefined();
  auto holder = std::make_shared<std::shared_ptr<GuestMemory>>(std::move(memory));
  return Task<Nothing>::Run(
      info.Env(),
      [holder](const std::atomic<bool>&) {
        holder->reset();
        return Ok();
      },
      [](Napi::Env env, const Nothing&) { return env.Undefined(); });
}

}  // namespace chkpt::binding

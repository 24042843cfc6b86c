#include "binding/pool_wrap.h"

#include <fcntl.h>

#include <cerrno>
#include <climits>
#include <utility>
#include <vector>

#include "binding/convert.h"
#include "binding/task.h"
#include "core/base/owned_fd.h"
#include "core/pool/pool_runs.h"

namespace chkpt::binding {
namespace {

constexpr napi_type_tag kSourceTag = {0x5d0c1be6a24f4f0e, 0x9b7313c8e5d2a640};
constexpr std::uint64_t kReadBytesMax = std::uint64_t{64} << 20;

// A place in a file, and a duplicate of its descriptor.
struct Place {
  OwnedFd file;
  std::uint64_t position = 0;

  PoolWriter::Target target() const { return {.fd = file.get(), .position = position}; }
};

std::shared_ptr<Place> ToPlace(const Napi::Value& descriptor, const Napi::Value& position) {
  const auto fd = ToUint64(descriptor);
  const auto at = ToUint64(position);
  if (!fd || *fd > INT_MAX || !at) {
    ThrowType(descriptor.Env(), "a descriptor and a position expected");
    return nullptr;
  }
  OwnedFd own(::fcntl(static_cast<int>(*fd), F_DUPFD_CLOEXEC, 0));
  if (own.get() < 0) {
    Throw(descriptor.Env(), SystemError(errno, "duplicating the descriptor of an output"));
    return nullptr;
  }
  return std::make_shared<Place>(Place{std::move(own), *at});
}

Napi::Value WrittenToJs(Napi::Env env, const PoolWriter::Written& written) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("own", Number(env, written.own_bytes));
  object.Set("pack", Number(env, written.pack_bytes));
  object.Set("map", CopyToJs<std::uint8_t>(env, written.map));
  return object;
}

std::optional<PooledContext::File> ToFile(const Napi::Value& value) {
  if (!value.IsObject()) return std::nullopt;
  const Napi::Object object = value.As<Napi::Object>();
  const auto descriptor = ToUint64(object.Get("descriptor"));
  const auto bytes = ToUint64(object.Get("bytes"));
  if (!descriptor || *descriptor > INT_MAX || !bytes) return std::nullopt;
  return PooledContext::File{.fd = static_cast<int>(*descriptor), .bytes = *bytes};
}

}  // namespace

struct PoolWriterWrap::Work {
  Work(std::string pool, std::string folder) : writer(std::move(pool), std::move(folder)) {}
  PoolWriter writer;
  std::atomic<bool> busy{false};
};

void PoolWriterWrap::Define(Napi::Env env, Napi::Object exports) {
  exports.Set("PoolWriter",
              DefineClass(env, "PoolWriter",
                          {
                              InstanceMethod<&PoolWriterWrap::Load>("load"),
                              InstanceMethod<&PoolWriterWrap::BeginPack>("beginPack"),
                              InstanceMethod<&PoolWriterWrap::Write>("write"),
                              InstanceMethod<&PoolWriterWrap::EndContext>("endContext"),
                              InstanceMethod<&PoolWriterWrap::EndPack>("endPack"),
                              InstanceMethod<&PoolWriterWrap::TakePacks>("takePacks"),
                              InstanceMethod<&PoolWriterWrap::SharedBytes>("sharedBytes"),
                              InstanceMethod<&PoolWriterWrap::Close>("close"),
                          }));
}

PoolWriterWrap::PoolWriterWrap(const Napi::CallbackInfo& info)
    : Napi::ObjectWrap<PoolWriterWrap>(info) {
  if (!info[0].IsString() || !info[1].IsString()) {
    ThrowType(info.Env(), "the folders of a pool and of a save expected");
    return;
  }
  work_ = std::make_shared<Work>(info[0].As<Napi::String>().Utf8Value(),
                                 info[1].As<Napi::String>().Utf8Value());
}

std::shared_ptr<PoolWriterWrap::Work> PoolWriterWrap::Begin(const Napi::CallbackInfo& info) {
  if (work_ != nullptr && !work_->busy.exchange(true)) return work_;
  ThrowType(info.Env(), "one call at a time");
  return nullptr;
}

Napi::Value PoolWriterWrap::Load(const Napi::CallbackInfo& info) {
  const auto work = Begin(info);
  if (work == nullptr) return {};
  return Task<Nothing>::Run(
      info.Env(),
      [work](const std::atomic<bool>&) {
        Status status = work->writer.Load();
        work->busy = false;
        return status;
      },
      [](Napi::Env env, const Nothing&) { return env.Undefined(); });
}

Napi::Value PoolWriterWrap::BeginPack(const Napi::CallbackInfo& info) {
  if (!info[0].IsString()) return ThrowType(info.Env(), "the name of a pack expected");
  const auto work = Begin(info);
  if (work == nullptr) return {};
  const Status status = work->writer.BeginPack(info[0].As<Napi::String>().Utf8Value());
  work->busy = false;
  if (!status.ok()) Throw(info.Env(), Status(status).error());
  return info.Env().Undefined();
}

Napi::Value PoolWriterWrap::Write(const Napi::CallbackInfo& info) {
  using Written = PoolWriter::Written;
  if (!info[0].IsArray()) return ThrowType(info.Env(), "an array of Uint8Arrays expected");
  const Napi::Array array = info[0].As<Napi::Array>();
  std::vector<std::span<const std::uint8_t>> pieces;
  auto keep = std::make_shared<std::vector<Napi::ObjectReference>>();
  for (std::uint32_t i = 0; i < array.Length(); ++i) {
    const Napi::Value item = array.Get(i);
    const auto piece = ToBytes(item);
    if (!piece) return ThrowType(info.Env(), "pieces must be Uint8Arrays");
    pieces.emplace_back(*piece);
    keep->push_back(Napi::Persistent(item.As<Napi::Object>()));
  }
  const auto own = ToPlace(info[1], info[2]);
  if (own == nullptr) return {};
  const auto pack = ToPlace(info[3], info[4]);
  if (pack == nullptr) return {};
  const auto work = Begin(info);
  if (work == nullptr) return {};
  return Task<Written>::Run(
      info.Env(),
      [work, pieces, own, pack](const std::atomic<bool>&) {
        Result<Written> written = work->writer.Write(pieces, own->target(), pack->target());
        work->busy = false;
        return written;
      },
      [keep](Napi::Env env, const Written& written) { return WrittenToJs(env, written); });
}

Napi::Value PoolWriterWrap::EndContext(const Napi::CallbackInfo& info) {
  using Written = PoolWriter::Written;
  const auto own = ToPlace(info[0], info[1]);
  if (own == nullptr) return {};
  const auto work = Begin(info);
  if (work == nullptr) return {};
  return Task<Written>::Run(
      info.Env(),
      [work, own](const std::atomic<bool>&) {
        Result<Written> written = work->writer.EndContext(own->target());
        work->busy = false;
        return written;
      },
      [](Napi::Env env, const Written& written) { return WrittenToJs(env, written); });
}

Napi::Value PoolWriterWrap::EndPack(const Napi::CallbackInfo& info) {
  const auto pack = ToPlace(info[0], info[1]);
  if (pack == nullptr) return {};
  const auto work = Begin(info);
  if (work == nullptr) return {};
  return Task<std::uint64_t>::Run(
      info.Env(),
      [work, pack](const std::atomic<bool>&) {
        Result<std::uint64_t> bytes = work->writer.EndPack(pack->target());
        work->busy = false;
        return bytes;
      },
      [](Napi::Env env, const std::uint64_t& bytes) { return Number(env, bytes); });
}

Napi::Value PoolWriterWrap::TakePacks(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto work = Begin(info);
  if (work == nullptr) return {};
  const std::vector<PoolWriter::PackFile> packs = work->writer.TakePacks();
  work->busy = false;
  Napi::Array array = Napi::Array::New(env, packs.size());
  for (std::uint32_t i = 0; i < packs.size(); ++i) {
    Napi::Object object = Napi::Object::New(env);
    object.Set("name", Napi::String::New(env, packs[i].name));
    object.Set("bytes", Number(env, packs[i].bytes));
    array.Set(i, object);
  }
  return array;
}

Napi::Value PoolWriterWrap::SharedBytes(const Napi::CallbackInfo& info) {
  const auto work = Begin(info);
  if (work == nullptr) return {};
  const std::uint64_t bytes = work->writer.shared_bytes();
  work->busy = false;
  return Number(info.Env(), bytes);
}

Napi::Value PoolWriterWrap::Close(const Napi::CallbackInfo& info) {
  work_.reset();
  return info.Env().Undefined();
}

void PooledSourceWrap::Define(Napi::Env env, Napi::Object exports) {
  exports.Set("PooledSource", DefineClass(env, "PooledSource",
                                          {
                                              InstanceMethod<&PooledSourceWrap::Read>("read"),
                                              InstanceMethod<&PooledSourceWrap::Close>("close"),
                                          }));
}

PooledSourceWrap::PooledSourceWrap(const Napi::CallbackInfo& info)
    : Napi::ObjectWrap<PooledSourceWrap>(info) {
  const Napi::Env env = info.Env();
  if (!info[0].IsObject()) {
    ThrowType(env, "a context of a pool expected");
    return;
  }
  const Napi::Object object = info[0].As<Napi::Object>();
  const auto bytes = ToUint64(object.Get("bytes"));
  const auto own = ToFile(object.Get("own"));
  const auto map = ToBytes(object.Get("map"));
  if (!bytes || !own || !map || !object.Get("packs").IsArray()) {
    ThrowType(env, "a context of a pool expected");
    return;
  }
  const Napi::Array array = object.Get("packs").As<Napi::Array>();
  std::vector<PooledContext::File> packs;
  for (std::uint32_t i = 0; i < array.Length(); ++i) {
    const auto pack = ToFile(array.Get(i));
    if (!pack) {
      ThrowType(env, "packs expected");
      return;
    }
    packs.push_back(*pack);
  }
  std::vector<ExtentSource::Extent> extents;
  Status status =
      AppendExtents({.bytes = *bytes, .own = *own, .packs = packs, .map = *map}, &extents);
  if (!status.ok()) {
    Throw(env, status.error());
    return;
  }
  auto source = ExtentSource::Open(extents);
  if (!source.ok()) {
    Throw(env, source.error());
    return;
  }
  source_ = std::move(source.value());
  info.This().As<Napi::Object>().TypeTag(&kSourceTag);
}

std::shared_ptr<ExtentSource> PooledSourceWrap::SourceOf(const Napi::Value& value) {
  const PooledSourceWrap* const wrap = UnwrapTagged<PooledSourceWrap>(value, kSourceTag);
  return wrap == nullptr ? nullptr : wrap->source_;
}

Napi::Value PooledSourceWrap::Read(const Napi::CallbackInfo& info) {
  const auto offset = ToUint64(info[0]);
  const auto bytes = ToUint64(info[1]);
  const bool fits = source_ != nullptr && offset && bytes && *bytes > 0 &&
                    *bytes <= kReadBytesMax && *offset <= source_->byte_count() &&
                    *bytes <= source_->byte_count() - *offset;
  if (!fits) return ThrowType(info.Env(), "a range of the context expected");
  using Bytes = std::vector<std::uint8_t>;
  return Task<Bytes>::Run(
      info.Env(),
      [source = source_, offset = *offset,
       size = static_cast<std::size_t>(*bytes)](const std::atomic<bool>&) -> Result<Bytes> {
        Bytes target(size);
        Status status = source->Read(offset, target);
        if (!status.ok()) return std::move(status.error());
        return target;
      },
      [](Napi::Env env, const Bytes& target) { return CopyToJs<std::uint8_t>(env, target); });
}

Napi::Value PooledSourceWrap::Close(const Napi::CallbackInfo& info) {
  source_.reset();
  return info.Env().Undefined();
}

}  // namespace chkpt::binding

#include "binding/foreign_wrap.h"

#include <fcntl.h>

#include <cerrno>
#include <memory>
#include <optional>

#include "binding/convert.h"
#include "binding/memory_wrap.h"
#include "binding/task.h"
#include "core/base/exchange_paths.h"
#include "core/base/owned_fd.h"
#include "core/foreign/palacios_pages.h"
#include "core/memory/range_file.h"

namespace chkpt::binding {
namespace {

using Memory = std::shared_ptr<GuestMemory>;

struct FileRange {
  std::uint64_t address;
  std::uint64_t bytes;
  std::shared_ptr<OwnedFd> fd;
  std::uint64_t position;
};

// Arguments after the memory. Nothing, with a pending exception, where they are none. The
// descriptor is duplicated: it may be closed while a thread still uses it.
std::optional<FileRange> RangeOf(const Napi::CallbackInfo& info) {
  const auto address = ToUint64(info[1]);
  const auto bytes = ToUint64(info[2]);
  const auto fd = ToUint64(info[3]);
  const auto position = ToUint64(info[4]);
  if (!address || !bytes || !fd || *fd > 0x7fffffff || !position ||
      *position > std::uint64_t{1} << 62 || *bytes > std::uint64_t{1} << 62) {
    ThrowType(info.Env(), "address, bytes, descriptor and position expected");
    return {};
  }
  auto own = std::make_shared<OwnedFd>(fcntl(static_cast<int>(*fd), F_DUPFD_CLOEXEC, 0));
  if (own->get() < 0) {
    Throw(info.Env(), SystemError(errno, "cannot duplicate a descriptor"));
    return {};
  }
  return FileRange{*address, *bytes, std::move(own), *position};
}

// rangeToFile(memory, address, bytes, descriptor, position): Promise<void>
// rangeFromFile(…): the same in the other direction
template <bool kToFile>
Napi::Value CopyRange(const Napi::CallbackInfo& info) {
  const Memory memory = MemoryWrap::MemoryOf(info[0]);
  if (memory == nullptr) return {};
  const auto range = RangeOf(info);
  if (!range) return {};
  return Task<Nothing>::Run(
      info.Env(),
      [memory, range = *range](const std::atomic<bool>& cancelled) {
        const auto& [address, bytes, fd, position] = range;
        return kToFile ? CopyRangeToFile(*memory, address, bytes, fd->get(), position, cancelled)
                       : CopyRangeFromFile(*memory, address, bytes, fd->get(), position, cancelled);
      },
      [](Napi::Env env, const Nothing&) { return env.Undefined(); });
}

bool IsRun(const GuestMemory& memory, std::uint64_t first, std::uint64_t count) {
  return count >= 1 && count <= kPalaciosPagesMax && first < memory.page_count() &&
         count <= memory.page_count() - first;
}

// encodePalaciosPages(memory, first, count): Uint8Array, see core/foreign/palacios_pages.h
Napi::Value EncodePages(const Napi::CallbackInfo& info) {
  const Memory memory = MemoryWrap::MemoryOf(info[0]);
  const auto first = ToUint64(info[1]);
  const auto count = ToUint64(info[2]);
  if (memory == nullptr) return {};
  if (!first || !count || !IsRun(*memory, *first, *count))
    return ThrowType(info.Env(), "a few pages of this memory expected");
  auto bytes = EncodePalaciosPages(*memory, {*first, *count});
  if (!bytes.ok()) {
    Throw(info.Env(), bytes.error());
    return {};
  }
  return CopyToJs<std::uint8_t>(info.Env(), bytes.value());
}

// placePalaciosPages(memory, first, bytes): void
Napi::Value PlacePages(const Napi::CallbackInfo& info) {
  const Memory memory = MemoryWrap::MemoryOf(info[0]);
  const auto first = ToUint64(info[1]);
  const auto bytes = ToBytes(info[2]);
  if (memory == nullptr) return {};
  if (!first || !bytes || bytes->size() % kPalaciosPageBytes != 0 ||
      !IsRun(*memory, *first, bytes->size() / kPalaciosPageBytes)) {
    return ThrowType(info.Env(), "a few frames of pages of this memory expected");
  }
  Status placed = PlacePalaciosPages(*memory, *first, *bytes);
  if (!placed.ok()) Throw(info.Env(), placed.error());
  return info.Env().Undefined();
}

// exchangePaths(left, right): void
Napi::Value Exchange(const Napi::CallbackInfo& info) {
  if (!info[0].IsString() || !info[1].IsString())
    return ThrowType(info.Env(), "two paths expected");
  Status exchanged =
      ExchangePaths(info[0].As<Napi::String>().Utf8Value(), info[1].As<Napi::String>().Utf8Value());
  if (!exchanged.ok()) Throw(info.Env(), exchanged.error());
  return info.Env().Undefined();
}

}  // namespace

void DefineForeign(Napi::Env env, Napi::Object exports) {
  exports.Set("rangeToFile", Napi::Function::New<&CopyRange<true>>(env, "rangeToFile"));
  exports.Set("rangeFromFile", Napi::Function::New<&CopyRange<false>>(env, "rangeFromFile"));
  exports.Set("encodePalaciosPages", Napi::Function::New<&EncodePages>(env, "encodePalaciosPages"));
  exports.Set("placePalaciosPages", Napi::Function::New<&PlacePages>(env, "placePalaciosPages"));
  exports.Set("exchangePaths", Napi::Function::New<&Exchange>(env, "exchangePaths"));
}

}  // namespace chkpt::binding

#include "binding/gzip_wrap.h"

#include <limits>
#include <utility>
#include <vector>

#include "binding/convert.h"
#include "binding/memory_wrap.h"
#include "binding/task.h"
#include "core/base/bytes.h"
#include "core/parallel/gzip_load.h"
#include "core/parallel/gzip_save.h"

namespace chkpt::binding {
namespace {

constexpr std::size_t kMemberEntryBytes = 12;

struct Shape {
  std::size_t member_bytes;
  unsigned threads;
};

std::optional<Shape> ToShape(const Napi::Value& member_bytes, const Napi::Value& threads) {
  const auto bytes = ToUint64(member_bytes);
  const auto count = ToUint64(threads);
  if (!bytes || *bytes == 0 || *bytes % kPageBytes != 0 || *bytes > gzip::kMemberBytesMax)
    return {};
  if (!count || *count < 1 || *count > 64) return {};
  return Shape{static_cast<std::size_t>(*bytes), static_cast<unsigned>(*count)};
}

Napi::Value TableToJs(Napi::Env env, const std::vector<gzip::Member>& members) {
  std::vector<std::uint8_t> table(members.size() * kMemberEntryBytes);
  std::uint8_t* entry = table.data();
  for (const gzip::Member& member : members) {
    Store(entry, member.bytes);
    Store(entry + 4, member.digest);
    entry += kMemberEntryBytes;
  }
  return CopyToJs<std::uint8_t>(env, table);
}

std::vector<gzip::Member> ToMembers(std::span<const std::uint8_t> table) {
  std::vector<gzip::Member> members(table.size() / kMemberEntryBytes);
  const std::uint8_t* entry = table.data();
  for (gzip::Member& member : members) {
    member = {chkpt::Load<std::uint32_t>(entry), chkpt::Load<std::uint64_t>(entry + 4)};
    entry += kMemberEntryBytes;
  }
  return members;
}

}  // namespace

void GzipWrap::Define(Napi::Env env, Napi::Object exports) {
  exports.Set("GzipImage", DefineClass(env, "GzipImage",
                                       {
                                           InstanceMethod<&GzipWrap::Save>("save"),
                                           InstanceMethod<&GzipWrap::LoadMembers>("loadMembers"),
                                           InstanceMethod<&GzipWrap::LoadStream>("loadStream"),
                                           InstanceMethod<&GzipWrap::PagesDone>("pagesDone"),
                                           InstanceMethod<&GzipWrap::Cancel>("cancel"),
                                       }));
}

GzipWrap::GzipWrap(const Napi::CallbackInfo& info) : Napi::ObjectWrap<GzipWrap>(info) {
  std::shared_ptr<GuestMemory> memory = MemoryWrap::MemoryOf(info[0]);
  if (memory == nullptr) return;
  work_ = std::make_shared<Work>();
  work_->memory = std::move(memory);
}

std::optional<GzipWrap::Place> GzipWrap::Begin(const Napi::CallbackInfo& info) {
  const auto first = ToUint64(info[0]);
  const auto count = ToUint64(info[1]);
  const auto descriptor = ToUint64(info[2]);
  if (work_ == nullptr || !first || !count || *count == 0 || !descriptor ||
      *first >= work_->memory->page_count() ||
      *descriptor > static_cast<std::uint64_t>(std::numeric_limits<int>::max())) {
    ThrowType(info.Env(), "pages and a descriptor expected");
    return {};
  }
  const std::size_t index = work_->memory->RegionOfPage(*first);
  const Region& region = work_->memory->regions()[index];
  if (*count > region.pages().end() - *first) {
    ThrowType(info.Env(), "pages of one region expected");
    return {};
  }
  if (work_->busy.exchange(true)) {
    ThrowType(info.Env(), "one call at a time");
    return {};
  }
  return Place{index, region.Part({*first, *count}), static_cast<int>(*descriptor)};
}

Napi::Value GzipWrap::Save(const Napi::CallbackInfo& info) {
  const auto shape = ToShape(info[3], info[4]);
  if (!shape) return ThrowType(info.Env(), "the bytes of a member and 1 to 64 threads expected");
  const auto place = Begin(info);
  if (!place) return {};
  using Members = std::vector<gzip::Member>;
  auto output = SlabOutput::Open(place->descriptor, 0);
  if (!output.ok()) {
    work_->busy = false;
    Throw(info.Env(), output.error());
    return {};
  }
  return Task<Members>::Run(
      info.Env(),
      [work = work_, shape = *shape, place = *place,
       file = output.value()](const std::atomic<bool>& torn_down) -> Result<Members> {
        auto members = gzip::SaveRegion(*work->memory, place.part, *file,
                                        {.threads = shape.threads,
                                         .member_bytes = shape.member_bytes,
                                         .pages_done = &work->pages_done},
                                        work->Asker(torn_down));
        work->busy = false;
        return members;
      },
      [](Napi::Env env, const Members& members) { return TableToJs(env, members); });
}

Napi::Value GzipWrap::LoadMembers(const Napi::CallbackInfo& info) {
  const auto table = ToBytes(info[3]);
  const auto shape = ToShape(info[4], info[5]);
  if (!table || !shape) {
    return ThrowType(info.Env(), "a table, the bytes of a member and 1 to 64 threads expected");
  }
  const auto place = Begin(info);
  if (!place) return {};
  const gzip::MemberLayout layout(place->part.bytes, shape->member_bytes);
  if (table->size() != layout.count() * kMemberEntryBytes) {
    work_->busy = false;
    return ThrowType(info.Env(), "a table of all members of these pages expected");
  }
  // Whatever becomes of it, something may be written. On this thread, which reads what is fresh for
  // other loads of the same memory.
  work_->memory->MarkUsed(place->region);
  return Task<Nothing>::Run(
      info.Env(),
      [work = work_, shape = *shape, place = *place,
       members = ToMembers(*table)](const std::atomic<bool>& torn_down) -> Result<Nothing> {
        Status status = gzip::LoadMembers(*work->memory, place.part, place.descriptor, members,
                                          {.threads = shape.threads,
                                           .member_bytes = shape.member_bytes,
                                           .pages_done = &work->pages_done},
                                          work->Asker(torn_down));
        work->busy = false;
        return status;
      },
      [](Napi::Env env, const Nothing&) { return env.Undefined(); });
}

Napi::Value GzipWrap::LoadStream(const Napi::CallbackInfo& info) {
  const auto file_bytes = ToUint64(info[3]);
  if (!file_bytes) return ThrowType(info.Env(), "the bytes of the file expected");
  const auto place = Begin(info);
  if (!place) return {};
  work_->memory->MarkUsed(place->region);
  return Task<Nothing>::Run(
      info.Env(),
      [work = work_, place = *place,
       bytes = *file_bytes](const std::atomic<bool>& torn_down) -> Result<Nothing> {
        Status status = gzip::LoadStream(*work->memory, place.part, place.descriptor, bytes,
                                         {.pages_done = &work->pages_done}, work->Asker(torn_down));
        work->busy = false;
        return status;
      },
      [](Napi::Env env, const Nothing&) { return env.Undefined(); });
}

Napi::Value GzipWrap::PagesDone(const Napi::CallbackInfo& info) {
  return Number(info.Env(), work_ == nullptr ? 0 : work_->pages_done.load());
}

Napi::Value GzipWrap::Cancel(const Napi::CallbackInfo& info) {
  if (work_ != nullptr) work_->cancelled = true;
  return info.Env().Undefined();
}

}  // namespace chkpt::binding

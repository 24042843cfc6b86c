#include "binding/guard_wrap.h"

#include <utility>

#include "binding/convert.h"
#include "binding/memory_wrap.h"
#include "binding/page_set_wrap.h"
#include "binding/task.h"
#include "binding/tracker_wrap.h"

namespace chkpt::binding {

GuardWrap::Held::~Held() {
  if (is_frozen) guard->Thaw();
}

void GuardWrap::Define(Napi::Env env, Napi::Object exports) {
  const Napi::Function constructor = DefineClass(env, "Snapshot",
                                                 {
                                                     InstanceMethod<&GuardWrap::Prepare>("prepare"),
                                                     InstanceMethod<&GuardWrap::Freeze>("freeze"),
                                                     InstanceMethod<&GuardWrap::Counts>("counts"),
                                                     InstanceMethod<&GuardWrap::Close>("close"),
                                                 });
  AddonData::Of(env).snapshot_constructor = Napi::Persistent(constructor);
  exports.Set("Snapshot", constructor);
}

GuardWrap::GuardWrap(const Napi::CallbackInfo& info) : Napi::ObjectWrap<GuardWrap>(info) {
  const Napi::Env env = info.Env();
  std::shared_ptr<GuestMemory> memory = MemoryWrap::MemoryOf(info[0]);
  if (memory == nullptr) return;
  auto held = std::make_shared<Held>();
  held->memory = memory;
  if (!info[1].IsUndefined()) {
    held->tracker = TrackerWrap::TrackerOf(info[1]);
    if (held->tracker == nullptr) return;
    if (held->tracker->memory() != memory) {
      ThrowType(env, "a tracker of this memory expected");
      return;
    }
    Status possible = WriteGuard::Check(*memory);
    if (!possible.ok()) {
      Throw(env, possible.error());
      return;
    }
  } else {
    Result<std::unique_ptr<WriteGuard>> guard = WriteGuard::Open(std::move(memory), {});
    if (!guard.ok()) {
      Throw(env, guard.error());
      return;
    }
    held->guard = std::move(guard.value());
  }
  held_ = std::move(held);
  data_ = &AddonData::Of(env);
  key_ = data_->Register(this);
}

GuardWrap::~GuardWrap() {
  if (data_ != nullptr) data_->Unregister(key_);
}

void GuardWrap::Teardown() {
  held_.reset();
  data_ = nullptr;
}

std::shared_ptr<WriteGuard> GuardWrap::Of(const Napi::Value& value) {
  if (value.IsUndefined()) return nullptr;
  const Napi::Env env = value.Env();
  if (!value.IsObject() ||
      !value.As<Napi::Object>().InstanceOf(AddonData::Of(env).snapshot_constructor.Value())) {
    ThrowType(env, "a snapshot expected");
    return nullptr;
  }
  const auto* wrap = Napi::ObjectWrap<GuardWrap>::Unwrap(value.As<Napi::Object>());
  if (wrap == nullptr || wrap->held_ == nullptr || *wrap->busy_ || !wrap->held_->is_frozen) {
    ThrowType(env, "a frozen snapshot expected");
    return nullptr;
  }
  return {wrap->held_, wrap->held_->guard.get()};
}

std::shared_ptr<GuardWrap::Held> GuardWrap::Begin(Napi::Env env) {
  if (held_ == nullptr || busy_->exchange(true)) {
    ThrowType(env, "the snapshot is closed or busy");
    return nullptr;
  }
  return held_;
}

std::optional<std::uint64_t> GuardWrap::SideBytes(const Napi::Value& value) {
  const auto bytes = ToUint64(value);
  if (bytes && *bytes > 0 && *bytes <= kMemoryBytesMax / 4) return *bytes;
  ThrowType(value.Env(), "a number of bytes expected");
  return std::nullopt;
}

Napi::Value GuardWrap::Prepare(const Napi::CallbackInfo& info) {
  const auto side_bytes_max = SideBytes(info[0]);
  if (!side_bytes_max) return {};
  const std::shared_ptr<Held> held = Begin(info.Env());
  if (held == nullptr) return {};
  return Task<Nothing>::Run(
      info.Env(),
      [held, bytes = *side_bytes_max,
       busy = busy_](const std::atomic<bool>& cancelled) -> Result<Nothing> {
        Result<std::unique_ptr<KeptPages>> room = WriteGuard::MakeRoom(*held->memory, bytes);
        Status done = Ok();
        if (!room.ok()) {
          done = room.error();
        } else if (held->guard != nullptr) {
          done = held->guard->Protect([&] { return cancelled.load(); });
        }
        if (done.ok()) {
          held->room = std::move(room.value());
          held->room_bytes = bytes;
        }
        *busy = false;
        return done;
      },
      [](Napi::Env env, const Nothing&) { return env.Undefined(); });
}

Result<Nothing> GuardWrap::FreezeHeld(Held& held, const DirtyBitmap* changed,
                                      std::uint64_t side_bytes_max,
                                      const WriteGuard::Cancelled& cancelled) {
  std::unique_ptr<KeptPages> room = std::move(held.room);
  if (room == nullptr || held.room_bytes != side_bytes_max) {
    Result<std::unique_ptr<KeptPages>> made = WriteGuard::MakeRoom(*held.memory, side_bytes_max);
    if (!made.ok()) return made.error();
    room = std::move(made.value());
  }
  if (held.guard == nullptr) {
    Result<std::shared_ptr<WriteGuard>> shared = held.tracker->ShareGuard();
    if (!shared.ok()) return shared.error();
    if (shared.value() == nullptr) {
      return Error{.code = ErrorCode::kUnsupported,
                   .message = "this kind of tracker has no guard to share"};
    }
    held.guard = std::move(shared.value());
  }
  Status frozen = held.guard->Freeze(changed, std::move(room), cancelled);
  held.is_frozen = frozen.ok() || frozen.error().code != ErrorCode::kUnsupported;
  return frozen;
}

Napi::Value GuardWrap::Freeze(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto side_bytes_max = SideBytes(info[0]);
  if (!side_bytes_max) return {};
  std::shared_ptr<DirtyBitmap> changed;
  if (!info[1].IsUndefined()) {
    changed = PageSetWrap::SetOf(info[1]);
    if (changed == nullptr) return {};
  }
  const std::shared_ptr<Held> held = Begin(env);
  if (held == nullptr) return {};
  if (held->is_frozen ||
      (changed != nullptr && changed->page_count() != held->memory->page_count())) {
    *busy_ = false;
    return ThrowType(env, "frozen already, or pages of another memory");
  }
  return Task<Nothing>::Run(
      env,
      [held, changed, bytes = *side_bytes_max,
       busy = busy_](const std::atomic<bool>& cancelled) -> Result<Nothing> {
        Result<Nothing> frozen =
            FreezeHeld(*held, changed.get(), bytes, [&] { return cancelled.load(); });
        *busy = false;
        return frozen;
      },
      [](Napi::Env e, const Nothing&) { return e.Undefined(); });
}

Napi::Value GuardWrap::Counts(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (held_ == nullptr || *busy_ || held_->guard == nullptr) {
    return ThrowType(env, "the snapshot is closed or busy");
  }
  const WriteGuard::Counts counts = held_->guard->counts();
  Napi::Object object = Napi::Object::New(env);
  object.Set("faults", Number(env, counts.faults));
  object.Set("savedPages", Number(env, counts.saved_pages));
  object.Set("sideBytesPeak", Number(env, counts.side_bytes_peak));
  return object;
}

// Taking protection off walks page tables, and writes that wait are served meanwhile: not on this
// thread.
Napi::Value GuardWrap::Close(const Napi::CallbackInfo& info) {
  auto holder = std::make_shared<std::shared_ptr<Held>>(std::exchange(held_, nullptr));
  return Task<Nothing>::Run(
      info.Env(),
      [holder](const std::atomic<bool>&) {
        holder->reset();
        return Ok();
      },
      [](Napi::Env env, const Nothing&) { return env.Undefined(); });
}

}  // namespace chkpt::binding

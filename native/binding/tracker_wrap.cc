#include "binding/tracker_wrap.h"

#include <optional>
#include <utility>

#include "binding/addon_data.h"
#include "binding/convert.h"
#include "binding/memory_wrap.h"
#include "binding/page_set_wrap.h"
#include "binding/task.h"
#include "core/tracking/open_tracker.h"

namespace chkpt::binding {
namespace {

using SetPointer = std::shared_ptr<DirtyBitmap>;
using TrackerPointer = std::shared_ptr<DirtyTracker>;
using Cost = std::optional<double>;

}  // namespace

void TrackerWrap::Define(Napi::Env env, Napi::Object exports) {
  const Napi::Function constructor =
      DefineClass(env, "DirtyTracker",
                  {
                      InstanceMethod<&TrackerWrap::Arm>("arm"),
                      InstanceMethod<&TrackerWrap::Harvest>("harvest"),
                      InstanceMethod<&TrackerWrap::Look>("look"),
                      InstanceMethod<&TrackerWrap::FirstWriteCost>("firstWriteCost"),
                      InstanceMethod<&TrackerWrap::Mark>("mark"),
                      InstanceMethod<&TrackerWrap::Close>("close"),
                  });
  AddonData::Of(env).tracker_constructor = Napi::Persistent(constructor);
  exports.Set("DirtyTracker", constructor);
}

std::shared_ptr<DirtyTracker> TrackerWrap::TrackerOf(const Napi::Value& value) {
  const Napi::Env env = value.Env();
  if (!value.IsObject() ||
      !value.As<Napi::Object>().InstanceOf(AddonData::Of(env).tracker_constructor.Value())) {
    ThrowType(env, "a dirty tracker expected");
    return nullptr;
  }
  // Null in an environment that is about to end.
  const TrackerWrap* const wrap = Napi::ObjectWrap<TrackerWrap>::Unwrap(value.As<Napi::Object>());
  return wrap == nullptr ? nullptr : wrap->Open(env);
}

Napi::Value TrackerWrap::Wrap(Napi::Env env, std::shared_ptr<DirtyTracker> tracker) {
  return AddonData::Of(env).tracker_constructor.New(
      {Napi::External<TrackerPointer>::New(env, &tracker)});
}

TrackerWrap::TrackerWrap(const Napi::CallbackInfo& info) : Napi::ObjectWrap<TrackerWrap>(info) {
  if (info.Length() == 1 && info[0].IsExternal()) {
    tracker_ = *info[0].As<Napi::External<TrackerPointer>>().Data();
    return;
  }
  const std::shared_ptr<GuestMemory> memory = MemoryWrap::MemoryOf(info[0]);
  if (memory == nullptr) return;
  const auto kind = ToUint64(info[1]);
  if (!kind || *kind > static_cast<std::uint64_t>(TrackerKind::kReported) || !info[2].IsObject()) {
    ThrowType(info.Env(), "a kind of tracker and options expected");
    return;
  }
  const Napi::Object options = info[2].As<Napi::Object>();
  const auto threads = ToUint64(options.Get("threads"));
  const auto process = ToUint64(options.Get("process"));
  if (!threads || *threads < 1 || *threads > 64 || !process || *process > 0x7fffffff) {
    ThrowType(info.Env(), "1 to 64 threads and a process expected");
    return;
  }
  Result<std::unique_ptr<DirtyTracker>> opened = OpenTracker(
      static_cast<TrackerKind>(*kind), memory,
      {.threads = static_cast<unsigned>(*threads), .process = static_cast<int>(*process)});
  if (!opened.ok()) {
    Throw(info.Env(), opened.error());
    return;
  }
  tracker_ = std::move(opened.value());
}

std::shared_ptr<DirtyTracker> TrackerWrap::Open(Napi::Env env) const {
  if (tracker_ == nullptr) {
    Throw(env, {.code = ErrorCode::kClosed, .message = "the dirty tracker is closed"});
  }
  return tracker_;
}

Napi::Value TrackerWrap::Arm(const Napi::CallbackInfo& info) {
  const std::shared_ptr<DirtyTracker> tracker = Open(info.Env());
  if (tracker == nullptr) return {};
  return Task<Nothing>::Run(
      info.Env(),
      [tracker](const std::atomic<bool>& cancelled) {
        return tracker->Arm([&cancelled] { return cancelled.load(); });
      },
      [](Napi::Env env, const Nothing&) { return env.Undefined(); });
}

Napi::Value TrackerWrap::Harvest(const Napi::CallbackInfo& info) {
  return Find(info, &DirtyTracker::Harvest);
}

Napi::Value TrackerWrap::Look(const Napi::CallbackInfo& info) {
  return Find(info, &DirtyTracker::Look);
}

Napi::Value TrackerWrap::Find(const Napi::CallbackInfo& info, FindPages find) {
  const std::shared_ptr<DirtyTracker> tracker = Open(info.Env());
  if (tracker == nullptr) return {};
  return Task<SetPointer>::Run(
      info.Env(),
      [tracker, find](const std::atomic<bool>& cancelled) -> Result<SetPointer> {
        auto set = std::make_shared<DirtyBitmap>(tracker->memory()->page_count());
        Status done = (tracker.get()->*find)(set.get(), [&cancelled] { return cancelled.load(); });
        if (!done.ok()) return done.error();
        return set;
      },
      [](Napi::Env env, const SetPointer& set) { return PageSetWrap::Wrap(env, set); });
}

Napi::Value TrackerWrap::FirstWriteCost(const Napi::CallbackInfo& info) {
  const std::shared_ptr<DirtyTracker> tracker = Open(info.Env());
  if (tracker == nullptr) return {};
  return Task<Cost>::Run(
      info.Env(),
      [tracker](const std::atomic<bool>&) -> Result<Cost> { return tracker->FirstWriteCost(); },
      [](Napi::Env env, const Cost& cost) -> Napi::Value {
        if (!cost) return env.Undefined();
        return Napi::Number::New(env, *cost);
      });
}

// mark(first, count)
Napi::Value TrackerWrap::Mark(const Napi::CallbackInfo& info) {
  const std::shared_ptr<DirtyTracker> tracker = Open(info.Env());
  if (tracker == nullptr) return {};
  const auto first = ToUint64(info[0]);
  const auto count = ToUint64(info[1]);
  const std::uint64_t pages = tracker->memory()->page_count();
  if (!first || !count || *first > pages || *count > pages - *first) {
    return ThrowType(info.Env(), "a run of pages of the memory expected");
  }
  tracker->Mark({*first, *count});
  return info.Env().Undefined();
}

// Ending write protection walks page tables: not on this thread.
Napi::Value TrackerWrap::Close(const Napi::CallbackInfo& info) {
  auto holder = std::make_shared<std::shared_ptr<DirtyTracker>>(std::exchange(tracker_, nullptr));
  return Task<Nothing>::Run(
      info.Env(),
      [holder](const std::atomic<bool>&) {
        holder->reset();
        return Ok();
      },
      [](Napi::Env env, const Nothing&) { return env.Undefined(); });
}

}  // namespace chkpt::binding

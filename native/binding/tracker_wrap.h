// DirtyTracker for JavaScript.
//
//   new DirtyTracker(memory, kind, {threads, process})   kind: index of TrackerKind
//   arm(): Promise<void> · harvest(), look(): Promise<PageSet> · mark(first, count) · close():
//   Promise<void> · firstWriteCost(): Promise<number | undefined>, nanoseconds
//
// The constructor throws why this kind cannot be had. close() lets go of the tracker, which work
// under way still holds.
#pragma once

#include <napi.h>

#include <memory>

#include "core/tracking/dirty_tracker.h"

namespace chkpt::binding {

class TrackerWrap : public Napi::ObjectWrap<TrackerWrap> {
 public:
  static void Define(Napi::Env env, Napi::Object exports);
  explicit TrackerWrap(const Napi::CallbackInfo& info);
  // An object of a tracker that somebody else has opened.
  static Napi::Value Wrap(Napi::Env env, std::shared_ptr<DirtyTracker> tracker);

  // The tracker behind a JavaScript object; null and a pending exception when it is none, or
  // closed.
  static std::shared_ptr<DirtyTracker> TrackerOf(const Napi::Value& value);

 private:
  Napi::Value Arm(const Napi::CallbackInfo& info);
  Napi::Value Harvest(const Napi::CallbackInfo& info);
  Napi::Value Look(const Napi::CallbackInfo& info);
  Napi::Value FirstWriteCost(const Napi::CallbackInfo& info);
  Napi::Value Mark(const Napi::CallbackInfo& info);
  Napi::Value Close(const Napi::CallbackInfo& info);
  using FindPages = Status (DirtyTracker::*)(DirtyBitmap*, const DirtyTracker::Cancelled&);
  Napi::Value Find(const Napi::CallbackInfo& info, FindPages find);
  // Null and a pending exception when closed.
  std::shared_ptr<DirtyTracker> Open(Napi::Env env) const;

  std::shared_ptr<DirtyTracker> tracker_;
};

}  // namespace chkpt::binding

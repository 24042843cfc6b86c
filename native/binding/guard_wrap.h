// A live snapshot for JavaScript: memory that is kept as it was while its guest writes.
//
//   new Snapshot(memory, tracker | undefined)
//   prepare(sideBytesMax): Promise<void>                         while the guest runs
//   freeze(sideBytesMax, changed | undefined): Promise<void>     while it stands still
//   counts(): {faults, savedPages, sideBytesPeak} · close(): Promise<void>
//
// With the tracker of the memory, which has it write-protected already, freeze shares its guard and
// prepare only makes room. The constructor throws why this memory cannot be frozen. close() ends
// it, when no pipeline encodes it any more; teardown of the environment does, too.
#pragma once

#include <napi.h>

#include <atomic>
#include <memory>
#include <optional>

#include "binding/addon_data.h"
#include "core/tracking/dirty_tracker.h"
#include "core/tracking/write_guard.h"

namespace chkpt::binding {

class GuardWrap : public Napi::ObjectWrap<GuardWrap>, public Pollable {
 public:
  static void Define(Napi::Env env, Napi::Object exports);
  explicit GuardWrap(const Napi::CallbackInfo& info);
  ~GuardWrap() override;
  void OnNews(Napi::Env) override {}
  void Teardown() override;

  // The frozen guard behind a JavaScript object, which stays frozen as long as the pointer is held;
  // null without one; null and a pending exception when it is something else, or not frozen.
  static std::shared_ptr<WriteGuard> Of(const Napi::Value& value);

 private:
  // Lives as long as work under way.
  struct Held {
    std::shared_ptr<GuestMemory> memory;
    std::shared_ptr<DirtyTracker> tracker;
    std::shared_ptr<WriteGuard> guard;
    std::unique_ptr<KeptPages> room;  // for the next Freeze, of `room_bytes`
    std::uint64_t room_bytes = 0;
    bool is_frozen = false;
    ~Held();
  };
  Napi::Value Prepare(const Napi::CallbackInfo& info);
  Napi::Value Freeze(const Napi::CallbackInfo& info);
  Napi::Value Counts(const Napi::CallbackInfo& info);
  Napi::Value Close(const Napi::CallbackInfo& info);
  // Nothing and a pending exception when it is none.
  static std::optional<std::uint64_t> SideBytes(const Napi::Value& value);
  static Result<Nothing> FreezeHeld(Held& held, const DirtyBitmap* changed,
                                    std::uint64_t side_bytes_max,
                                    const WriteGuard::Cancelled& cancelled);
  // Null and a pending exception when closed or busy.
  std::shared_ptr<Held> Begin(Napi::Env env);

  AddonData* data_ = nullptr;  // null: never opened, or after teardown
  std::uint64_t key_ = 0;
  std::shared_ptr<Held> held_;
  std::shared_ptr<std::atomic<bool>> busy_ = std::make_shared<std::atomic<bool>>(false);
};

}  // namespace chkpt::binding

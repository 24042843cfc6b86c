// Runs of pages, each in one region, as files of gzip members, for JavaScript.
//
//   new GzipImage(memory)   one call at a time:
//     save(first, count, descriptor, memberBytes, threads): Promise<Uint8Array>, the members' table
//     loadMembers(first, count, descriptor, table, memberBytes, threads): Promise<void>
//     loadStream(first, count, descriptor, fileBytes): Promise<void>
//   pagesDone() · cancel(): ends the call under way, and every later one, with CHKPT_ABORTED
//
// The table: 12 bytes a member, its compressed bytes (u32) and its digest (u64), little-endian.
#pragma once

#include <napi.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>

#include "core/memory/guest_memory.h"

namespace chkpt::binding {

class GzipWrap : public Napi::ObjectWrap<GzipWrap> {
 public:
  static void Define(Napi::Env env, Napi::Object exports);
  explicit GzipWrap(const Napi::CallbackInfo& info);

 private:
  Napi::Value Save(const Napi::CallbackInfo& info);
  Napi::Value LoadMembers(const Napi::CallbackInfo& info);
  Napi::Value LoadStream(const Napi::CallbackInfo& info);
  Napi::Value PagesDone(const Napi::CallbackInfo& info);
  Napi::Value Cancel(const Napi::CallbackInfo& info);

  // What a call works with, also when JavaScript has dropped this object.
  struct Work {
    std::shared_ptr<GuestMemory> memory;
    std::atomic<std::uint64_t> pages_done{0};
    std::atomic<bool> cancelled{false};
    std::atomic<bool> busy{false};

    // What a call asks whether it is to end.
    std::function<bool()> Asker(const std::atomic<bool>& torn_down) const {
      return [this, &torn_down] { return torn_down.load() || cancelled.load(); };
    }
  };
  // Pages of one region and a descriptor; nothing, and an exception, when they are none, or a call
  // is under way.
  struct Place {
    std::size_t region;
    Region part;
    int descriptor;
  };
  std::optional<Place> Begin(const Napi::CallbackInfo& info);

  std::shared_ptr<Work> work_;
};

}  // namespace chkpt::binding

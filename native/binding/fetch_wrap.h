// BlockLayer and PageFetch for JavaScript.
//
//   new BlockLayer(memory, layer)   open(): Promise<void>, once · markHeld(pages)
//   new PageFetch(memory, layers)   run(pages | undefined, threads): Promise<counts>, one at a time
//                                   pagesDone(): number · cancel(): the run ends with kAborted
//
// Views that a layer reads from are kept as long as the layer, and layers as long as a fetch of
// them.
#pragma once

#include <napi.h>

#include <atomic>
#include <memory>
#include <vector>

#include "core/lazy/page_fetch.h"

namespace chkpt::binding {

class LayerWrap : public Napi::ObjectWrap<LayerWrap> {
 public:
  static void Define(Napi::Env env, Napi::Object exports);
  explicit LayerWrap(const Napi::CallbackInfo& info);

  // Null and a pending exception when `value` is no layer that is open.
  static std::shared_ptr<const BlockLayer> LayerOf(const Napi::Value& value);

 private:
  Napi::Value Open(const Napi::CallbackInfo& info);
  Napi::Value MarkHeld(const Napi::CallbackInfo& info);

  struct Opening {
    std::shared_ptr<GuestMemory> memory;
    LazyLayer layer;
    std::shared_ptr<const BlockLayer> opened;
  };
  std::shared_ptr<Opening> opening_;  // until it is open
  std::shared_ptr<const BlockLayer> layer_;
  std::vector<Napi::ObjectReference> pins_;
};

class FetchWrap : public Napi::ObjectWrap<FetchWrap> {
 public:
  static void Define(Napi::Env env, Napi::Object exports);
  explicit FetchWrap(const Napi::CallbackInfo& info);

 private:
  Napi::Value Run(const Napi::CallbackInfo& info);
  Napi::Value PagesDone(const Napi::CallbackInfo& info);
  Napi::Value Cancel(const Napi::CallbackInfo& info);

  // What a run works with, also when JavaScript has dropped this object.
  struct Work {
    Work(std::shared_ptr<GuestMemory> memory, std::vector<std::shared_ptr<const BlockLayer>> layers)
        : page_count(memory->page_count()), fetch(std::move(memory), std::move(layers)) {}
    const std::uint64_t page_count;
    PageFetch fetch;
    std::atomic<bool> cancelled{false};
    std::atomic<bool> busy{false};
    std::atomic<std::uint64_t> pages_done{0};
  };
  std::shared_ptr<Work> work_;
};

}  // namespace chkpt::binding

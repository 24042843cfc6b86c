// Closing a pipeline without blocking the JavaScript thread: cancel here, join on a thread of its
// own.
#pragma once

#include <memory>
#include <utility>

#include "binding/task.h"

namespace chkpt::binding {

template <typename Pipeline>
Napi::Value JoinPipeline(Napi::Env env, std::shared_ptr<Pipeline> pipeline) {
  if (pipeline != nullptr) pipeline->Cancel();
  return Task<Nothing>::Run(
      env,
      [pipeline = std::move(pipeline)](const std::atomic<bool>&) {
        if (pipeline != nullptr) pipeline->Join();
        return Ok();
      },
      [](Napi::Env e, const Nothing&) { return e.Undefined(); });
}

// The bytes of one slab as a Uint8Array over native memory; the array keeps the memory alive.
Napi::Value SlabView(Napi::Env env, const std::shared_ptr<SlabMemory>& memory, std::size_t slab);

}  // namespace chkpt::binding

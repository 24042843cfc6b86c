// LazyLoader for JavaScript.
//
//   new LazyLoader(memory, {layers, handlerThreads, fillThreads, fillBytesPerSecond, fillDelayMs,
//                           replay, poison})
//   layers: [{uuid, epoch, hasParent, endOffset, groups, extents | source}], newest first
//   extents: [{bytes, descriptor, position} | {bytes, source} | {bytes, view}]; views are kept and
//   must not change
//   wait(stage): Promise<void>, one at a time; rejects with what went wrong
//   arm() · abort() · release() · hasFailed(): boolean · counts() · workingSet(): Uint8Array ·
//   digests(): Uint8Array · close(): Promise<void>
//   isHere(address, bytes): boolean   nothing of it has to be fetched
//   want(address, bytes)   it is fetched, without waiting
//
// source of a layer: a BlockRequests, of a store that only JavaScript reads. Then the thread that
// makes the loader must not touch what is not here.
//
// The thread that makes it is the one that must not be held by damaged pages.
//
//   new SharedImage(regions, options)   the same for memory that clones share, and
//   clone(): NativeMemory · releaseClone(memory)   as release(), of one clone
//   holdClone(memory)   damage holds its threads again
#pragma once

#include <napi.h>

#include <memory>
#include <utility>
#include <vector>

#include "binding/pipeline_wrap.h"
#include "core/lazy/lazy_loader.h"
#include "core/lazy/shared_image.h"

namespace chkpt::binding {

// A loader into one memory, or into an image.
class LazyWork {
 public:
  explicit LazyWork(std::unique_ptr<LazyLoader> loader) : loader_(std::move(loader)) {}
  explicit LazyWork(std::shared_ptr<SharedImage> image) : image_(std::move(image)) {}

  LazyLoader& loader() { return image_ == nullptr ? *loader_ : image_->loader(); }
  SharedImage* image() { return image_.get(); }
  void Cancel() { image_ == nullptr ? loader_->Cancel() : image_->Cancel(); }
  bool AllDone() { return image_ == nullptr ? loader_->AllDone() : image_->AllDone(); }
  void Join() { image_ == nullptr ? loader_->Join() : image_->Join(); }

 private:
  const std::unique_ptr<LazyLoader> loader_;
  const std::shared_ptr<SharedImage> image_;  // clones keep it, too
};

class LazyWrap : public PipelineWrap<LazyWrap, LazyWork> {
 public:
  static void Define(Napi::Env env, Napi::Object exports);
  explicit LazyWrap(const Napi::CallbackInfo& info);

 private:
  Napi::Value WaitFor(const Napi::CallbackInfo& info);
  Napi::Value Arm(const Napi::CallbackInfo& info);
  Napi::Value Abort(const Napi::CallbackInfo& info);
  Napi::Value Release(const Napi::CallbackInfo& info);
  Napi::Value HasFailed(const Napi::CallbackInfo& info);
  Napi::Value Counts(const Napi::CallbackInfo& info);
  Napi::Value WorkingSet(const Napi::CallbackInfo& info);
  Napi::Value Digests(const Napi::CallbackInfo& info);
  Napi::Value Clone(const Napi::CallbackInfo& info);
  Napi::Value HoldClone(const Napi::CallbackInfo& info);
  Napi::Value ReleaseClone(const Napi::CallbackInfo& info);
  Napi::Value Close(const Napi::CallbackInfo& info);
  Napi::Value IsHere(const Napi::CallbackInfo& info);
  Napi::Value Want(const Napi::CallbackInfo& info);
  bool TrySettle(Napi::Env env) override;
  void LetGo() override;
  bool ServesOthers() const override { return true; }

  LazyLoader::Stage wanted_ = LazyLoader::Stage::kResident;
  std::vector<Napi::ObjectReference> pins_;  // what native threads read from
};

}  // namespace chkpt::binding

// What SavePipeline and LoadPipeline have in common for JavaScript: one promise at a time, views of
// their buffers made once, and a close that waits without a thread of its own.
//
// Life: a constructor that failed leaves no pipeline, and every call throws. close() cancels, lets
// go of the views and resolves when no thread touches guest memory any more; buffers then go back
// to the pool of the environment.
#pragma once

#include <napi.h>

#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "binding/addon_data.h"
#include "binding/convert.h"
#include "binding/promise.h"
#include "core/base/result.h"

namespace chkpt::binding {

template <typename Self, typename Pipeline>
class PipelineWrap : public Napi::ObjectWrap<Self>, public Pollable {
 public:
  explicit PipelineWrap(const Napi::CallbackInfo& info) : Napi::ObjectWrap<Self>(info) {}

  ~PipelineWrap() override {
    if (data_ != nullptr) data_->Unregister(key_);
  }

  void OnNews(Napi::Env env) override {
    if (pending_ && pipeline_ != nullptr && TrySettle(env)) EndWait(env);
    if (closing_ != nullptr && TryClose(env)) EndWait(env);
  }

  void Teardown() override {
    for (Pipeline* pipeline : {pipeline_.get(), closing_.get()}) {
      if (pipeline == nullptr) continue;
      pipeline->Cancel();
      pipeline->Join();
    }
    data_ = nullptr;
  }

 protected:
  // Makes the pipeline with `start(notify, buffers)`; throws its error.
  template <typename Start>
  void StartPipeline(Napi::Env env, const Start& start) {
    data_ = &AddonData::Of(env);
    key_ = data_->Register(this);
    Result<std::unique_ptr<Pipeline>> pipeline = start(data_->NotifierOf(key_), data_->buffers());
    if (!pipeline.ok()) return Throw(env, pipeline.error());
    pipeline_ = std::move(pipeline.value());
  }

  Pipeline* pipeline() const { return pipeline_.get(); }
  // REQUIRES: pipeline().
  BufferViews& views() { return data_->views(); }
  bool busy() const { return pending_.has_value(); }

  // A promise that TrySettle settles, now or after news. REQUIRES: pipeline() and not busy().
  Napi::Value Wait(Napi::Env env) {
    const Napi::Value promise = pending_.emplace(env).value();
    if (!TrySettle(env)) BeginWait(env);
    return promise;
  }

  // Settles what Wait promised if there is news: calls Resolve or Reject, or returns false.
  virtual bool TrySettle(Napi::Env env) = 0;

  bool Resolve(Napi::Value value) {
    std::exchange(pending_, std::nullopt)->Resolve(value);
    return true;
  }
  bool Reject(Napi::Value error) {
    std::exchange(pending_, std::nullopt)->Reject(error);
    return true;
  }

  // `bytes` bytes of a buffer from `begin`; the view made before for this `index`, if it is the
  // same one. Empty, with an exception pending, where that cannot be.
  Napi::Value ViewOf(Napi::Env env, std::size_t index, const std::shared_ptr<Buffer>& buffer,
                     std::size_t begin, std::size_t bytes) {
    if (index >= views_.size()) views_.resize(index + 1);
    View& view = views_[index];
    if (view.array.IsEmpty() || view.begin != begin || view.bytes != bytes) {
      const Napi::ArrayBuffer all = data_->views().Of(env, buffer);
      if (all.IsEmpty()) return {};
      view = {.array = Napi::Persistent(Napi::Uint8Array::New(env, bytes, all, begin)),
              .begin = begin,
              .bytes = bytes};
    }
    return view.array.Value();
  }

  // When JavaScript gives a view back: one whose bytes may have a new owner is not used again.
  void CheckView(std::size_t index, Buffer& buffer) {
    if (index >= views_.size() || views_[index].array.IsEmpty()) return;
    if (!views_[index].array.Value().ArrayBuffer().IsDetached()) return;
    buffer.Spoil();
    views_[index].array.Reset();
  }

  // Resolves when no thread touches guest memory any more. May be called again.
  Napi::Value ClosePipeline(Napi::Env env) {
    if (pipeline_ != nullptr) pipeline_->Cancel();
    if (pending_ && TrySettle(env)) EndWait(env);
    views_.clear();
    const Promise closer(env);
    closers_.push_back(closer);
    const bool waited = closing_ != nullptr;
    if (pipeline_ != nullptr) closing_ = std::move(pipeline_);
    const bool closed = TryClose(env);
    if (closed && waited) EndWait(env);  // the threads ended, and the news of it has not come yet
    if (!closed && !waited) BeginWait(env);
    return closer.value();
  }

 private:
  struct View {
    Napi::Reference<Napi::Uint8Array> array;  // empty: none was made
    std::size_t begin = 0;
    std::size_t bytes = 0;
  };

  void BeginWait(Napi::Env env) {
    this->Ref();
    data_->mailbox().AddWaiter(env);
  }
  void EndWait(Napi::Env env) {
    data_->mailbox().RemoveWaiter(env);
    this->Unref();
  }

  bool TryClose(Napi::Env env) {
    if (closing_ != nullptr && !closing_->AllDone()) return false;
    closing_.reset();
    if (data_ != nullptr) data_->views().Trim();
    for (const Promise& closer : std::exchange(closers_, {})) {
      closer.Resolve(env.Undefined());
    }
    return true;
  }

  AddonData* data_ = nullptr;  // null: never started, or after teardown
  std::uint64_t key_ = 0;
  std::unique_ptr<Pipeline> pipeline_;  // null: closed
  std::unique_ptr<Pipeline> closing_;   // until its threads are done
  std::optional<Promise> pending_;
  std::vector<Promise> closers_;
  std::vector<View> views_;  // by index of slab or buffer
};

}  // namespace chkpt::binding

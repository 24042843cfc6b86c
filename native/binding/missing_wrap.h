// MissingPages for JavaScript.
//
//   new MissingPages(memory, missing: PageSet)
//
//   started(): Promise<void>
//
//   wanted(): Promise<Float64Array | undefined>: pages that threads wait for; undefined: all are
//   here
//
//   check(): throws what went wrong
//
//   place(bytes): of a page run, see core/lazy/page_run.h
//
//   left(), faults(): number · waits(): Uint32Array · wantAgain() · abort() · release() · close():
//   Promise<void>
//
// started() and wanted() reject with what went wrong; one at a time. The thread that makes it is
// the one that must not touch missing pages.
#pragma once

#include <napi.h>

#include <memory>
#include <utility>

#include "binding/pipeline_wrap.h"
#include "core/lazy/missing_pages.h"

namespace chkpt::binding {

// Loads that place pages keep the pages, too.
class MissingWork {
 public:
  explicit MissingWork(std::shared_ptr<MissingPages> pages) : pages_(std::move(pages)) {}

  const std::shared_ptr<MissingPages>& pages() const { return pages_; }
  void Cancel() { pages_->Cancel(); }
  bool AllDone() { return pages_->AllDone(); }
  void Join() { pages_->Join(); }

 private:
  const std::shared_ptr<MissingPages> pages_;
};

class MissingWrap : public PipelineWrap<MissingWrap, MissingWork> {
 public:
  static void Define(Napi::Env env, Napi::Object exports);
  explicit MissingWrap(const Napi::CallbackInfo& info);

  // Who places pages; null for undefined, and with a pending exception for anything else.
  static std::shared_ptr<PagePlacer> Of(const Napi::Value& value);

 private:
  Napi::Value Started(const Napi::CallbackInfo& info);
  Napi::Value Wanted(const Napi::CallbackInfo& info);
  Napi::Value Check(const Napi::CallbackInfo& info);
  Napi::Value Place(const Napi::CallbackInfo& info);
  Napi::Value Left(const Napi::CallbackInfo& info);
  Napi::Value Faults(const Napi::CallbackInfo& info);
  Napi::Value Waits(const Napi::CallbackInfo& info);
  Napi::Value WantAgain(const Napi::CallbackInfo& info);
  Napi::Value Abort(const Napi::CallbackInfo& info);
  Napi::Value Release(const Napi::CallbackInfo& info);
  Napi::Value Close(const Napi::CallbackInfo& info);
  bool TrySettle(Napi::Env env) override;
  void LetGo() override;
  bool ServesOthers() const override { return true; }

  bool for_start_ = false;
};

}  // namespace chkpt::binding

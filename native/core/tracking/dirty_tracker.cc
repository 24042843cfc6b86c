#include "core/tracking/dirty_tracker.h"

#include <utility>

namespace chkpt {

DirtyTracker::DirtyTracker(std::shared_ptr<GuestMemory> memory, bool own_writes)
    : memory_(std::move(memory)), found_(std::make_shared<DirtyBitmap>(memory_->page_count())) {
  if (own_writes) memory_->AddWriteLog(found_);
}

DirtyTracker::~DirtyTracker() { memory_->RemoveWriteLog(found_.get()); }

Status DirtyTracker::Arm(const Cancelled& cancelled) {
  const std::lock_guard lock(mutex_);
  armed_ = false;
  DirtyBitmap old(memory_->page_count());
  found_->MoveTo(&old);
  Status reset = Reset(cancelled);
  armed_ = reset.ok();
  return reset;
}

Status DirtyTracker::Harvest(DirtyBitmap* set, const Cancelled& cancelled) {
  const std::lock_guard lock(mutex_);
  if (!armed_) {
    return Error{.code = ErrorCode::kClosed, .message = "the dirty tracker is not armed"};
  }
  Status collected = Collect(found_.get(), cancelled);
  if (collected.ok()) found_->MoveTo(set);
  return collected;
}

Status DirtyTracker::Look(DirtyBitmap* set, const Cancelled& cancelled) {
  const std::lock_guard lock(mutex_);
  if (!armed_) {
    return Error{.code = ErrorCode::kClosed, .message = "the dirty tracker is not armed"};
  }
  Status inspected = Inspect(found_.get(), cancelled);
  if (inspected.ok()) found_->MergeTo(set);
  return inspected;
}

std::optional<double> DirtyTracker::FirstWriteCost() {
  const std::lock_guard lock(mutex_);
  return MeasureFirstWrite();
}

Result<std::shared_ptr<WriteGuard>> DirtyTracker::ShareGuard() {
  const std::lock_guard lock(mutex_);
  if (!armed_) {
    return Error{.code = ErrorCode::kClosed, .message = "the dirty tracker is not armed"};
  }
  Result<std::shared_ptr<WriteGuard>> guard = MakeGuard();
  if (!guard.ok()) armed_ = false;
  return guard;
}

}  // namespace chkpt

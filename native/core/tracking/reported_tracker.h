// ReportedTracker: the embedder says what was written, through Mark: VMMs with a log of their own.
// What GuestMemory writes itself is marked, too.
#pragma once

#include <utility>

#include "core/tracking/dirty_tracker.h"

namespace chkpt {

class ReportedTracker final : public DirtyTracker {
 public:
  explicit ReportedTracker(std::shared_ptr<GuestMemory> memory)
      : DirtyTracker(std::move(memory), true) {}
  TrackerKind kind() const override { return TrackerKind::kReported; }

 private:
  Status Reset(const Cancelled&) override { return Ok(); }
  Status Collect(DirtyBitmap*, const Cancelled&) override { return Ok(); }
};

}  // namespace chkpt

#include "core/tracking/open_tracker.h"

#include <utility>

#include "core/tracking/digest_tracker.h"
#include "core/tracking/reported_tracker.h"
#include "core/tracking/soft_dirty_tracker.h"
#include "core/tracking/write_protect_tracker.h"

namespace chkpt {

Result<std::unique_ptr<DirtyTracker>> OpenTracker(TrackerKind kind,
                                                  std::shared_ptr<GuestMemory> memory,
                                                  const TrackerOptions& options) {
  switch (kind) {
    case TrackerKind::kWriteProtect: return WriteProtectTracker::Open(std::move(memory));
    case TrackerKind::kSoftDirty: return SoftDirtyTracker::Open(std::move(memory), options.process);
    case TrackerKind::kDigest: return DigestTracker::Open(std::move(memory), options.threads);
    case TrackerKind::kReported:
      return std::unique_ptr<DirtyTracker>(std::make_unique<ReportedTracker>(std::move(memory)));
    case TrackerKind::kKvmLog:
    case TrackerKind::kKvmRing: break;
  }
  return Error{.code = ErrorCode::kUnsupported,
               .message = "the dirty log of KVM belongs to a machine of chkpt/kvm"};
}

}  // namespace chkpt

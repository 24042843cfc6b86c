// WriteProtectTracker: userfaultfd in asynchronous write-protect mode and PAGEMAP_SCAN (Linux 6.7),
// for mapped memory of this process. See ProtectedRange for how, docs/dirty-tracking.md for what it
// cannot see.
//
// After a live save it has a WriteGuard, whose threads hear of every first write of a page.
//
// Ownership: owns the descriptors, the registrations and, for shared and hugetlb memory, one thread
// that hears of madvise; shares the guard. One tracker of this kind for one memory.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "core/tracking/copied_pages.h"
#include "core/tracking/dirty_tracker.h"
#include "core/tracking/protected_range.h"
#include "core/tracking/removal_log.h"
#include "core/tracking/write_guard.h"

namespace chkpt {

class WriteProtectTracker final : public DirtyTracker {
 public:
  // Errors: kUnsupported (kernel, kind of memory, registered by another), kPermission.
  // `trust_holes` false takes the way for older kernels (tests of it).
  static Result<std::unique_ptr<DirtyTracker>> Open(std::shared_ptr<GuestMemory> memory,
                                                    bool trust_holes = true);
  ~WriteProtectTracker() override;

  TrackerKind kind() const override { return TrackerKind::kWriteProtect; }

 private:
  explicit WriteProtectTracker(std::shared_ptr<GuestMemory> memory);
  Status Prepare(bool trust_holes);
  Status RegisterAll();
  Result<std::shared_ptr<WriteGuard>> MakeGuard() override;
  std::optional<double> MeasureFirstWrite() override;
  Status Reset(const Cancelled& cancelled) override;
  Status Collect(DirtyBitmap* found, const Cancelled& cancelled) override {
    return Find(ProtectedRange::Written::kProtect, found, cancelled);
  }
  Status Inspect(DirtyBitmap* found, const Cancelled& cancelled) override {
    return Find(ProtectedRange::Written::kLeave, found, cancelled);
  }
  Status Find(ProtectedRange::Written written, DirtyBitmap* found, const Cancelled& cancelled);

  CopiedPages copied_;
  ProtectedRange::Tools tools_;
  std::optional<WriteProtector> private_protector_;
  std::optional<WriteProtector> telling_protector_;
  std::shared_ptr<RemovalLog> removals_;
  std::shared_ptr<WriteGuard> guard_;
  bool is_registered_ = false;  // with a protector of its own, or the guard's
  std::vector<std::unique_ptr<ProtectedRange>> ranges_;
};

}  // namespace chkpt

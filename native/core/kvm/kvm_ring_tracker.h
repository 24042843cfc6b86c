// KvmRingTracker: the dirty rings of KVM for the memory of one machine that was made with them:
// what vCPUs write. A harvest costs what was written, not what the memory is large. What
// GuestMemory writes itself is marked beside it; KVM does not see it.
//
// Ownership: holds the machine. One for one machine. Thread safety: as DirtyTracker; vCPUs may run.
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>

#include "core/kvm/kvm_machine.h"
#include "core/tracking/dirty_tracker.h"

#ifdef CHKPT_HAVE_KVM

namespace chkpt {

class KvmRingTracker final : public DirtyTracker {
 public:
  // Errors: kUnsupported (a second one for this machine, a machine without rings, or what KVM
  // refuses), kNoMemory, kIo.
  static Result<std::unique_ptr<DirtyTracker>> Open(std::shared_ptr<KvmMachine> machine);
  ~KvmRingTracker() override;

  TrackerKind kind() const override { return TrackerKind::kKvmRing; }

 private:
  explicit KvmRingTracker(std::shared_ptr<KvmMachine> machine);
  Status Reset(const Cancelled& cancelled) override;
  Status Collect(DirtyBitmap* found, const Cancelled& cancelled) override;

  void RunReliever();

  const std::shared_ptr<KvmMachine> machine_;
  std::mutex mutex_;
  std::condition_variable ended_;
  bool ending_ = false;
  std::thread reliever_;  // from the first Reset on
};

}  // namespace chkpt

#endif  // CHKPT_HAVE_KVM

// KvmLogTracker: the dirty log of KVM for the memory of one machine: what vCPUs and the kernel's
// devices write. What GuestMemory writes itself is marked beside it; KVM does not see it.
//
// With KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2 the log is read as a whole and cleared, which protects
// pages again, in pieces and only where it has pages; without it reading clears all.
//
// Source: Documentation/virt/kvm/api.rst, KVM_GET_DIRTY_LOG and KVM_CLEAR_DIRTY_LOG.
//
// Ownership: holds the machine. One for one machine. Thread safety: as DirtyTracker; vCPUs may run.
#pragma once

#include <memory>
#include <vector>

#include "core/kvm/kvm_machine.h"
#include "core/tracking/dirty_tracker.h"

#ifdef CHKPT_HAVE_KVM

namespace chkpt {

class KvmLogTracker final : public DirtyTracker {
 public:
  // Errors: kUnsupported (a second one for this machine, or what KVM refuses), kNoMemory, kIo.
  static Result<std::unique_ptr<DirtyTracker>> Open(std::shared_ptr<KvmMachine> machine);
  ~KvmLogTracker() override;

  TrackerKind kind() const override { return TrackerKind::kKvmLog; }

 private:
  KvmLogTracker(std::shared_ptr<KvmMachine> machine, bool manual);
  Status Reset(const Cancelled& cancelled) override;
  Status Collect(DirtyBitmap* found, const Cancelled& cancelled) override;
  Status CollectSlot(std::uint32_t slot, const Region& region, DirtyBitmap* found);
  Status ClearSlot(std::uint32_t slot, const Region& region);

  const std::shared_ptr<KvmMachine> machine_;
  const bool manual_;
  std::vector<std::uint64_t> words_;  // log of one slot
};

}  // namespace chkpt

#endif  // CHKPT_HAVE_KVM

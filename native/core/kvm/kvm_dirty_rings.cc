// The dirty rings of KvmMachine: each vCPU writes the pages that it makes dirty into a ring that it
// shares with user space, and leaves the guest when the ring is full.
//
// Source: Documentation/virt/kvm/api.rst, KVM_CAP_DIRTY_LOG_RING and KVM_RESET_DIRTY_RINGS.
#include <algorithm>
#include <chrono>

#include "core/kvm/kick_signal.h"
#include "core/kvm/kvm_machine.h"

#ifdef CHKPT_HAVE_KVM

namespace chkpt {
namespace {

constexpr std::uint32_t kSlotMask = 0xffff;  // above it: the address space, of which there is one
constexpr unsigned kFullsMax = 64;
constexpr auto kExitPoll = std::chrono::microseconds(20);

}  // namespace

Status KvmMachine::EnableRings() {
  const std::uint64_t bytes = options_.ring_entries * sizeof(kvm_dirty_gfn);
  for (const int capability : {KVM_CAP_DIRTY_LOG_RING_ACQ_REL, KVM_CAP_DIRTY_LOG_RING}) {
    if (system_->Check(capability) <= 0) continue;
    kvm_enable_cap enable = {};
    enable.cap = static_cast<std::uint32_t>(capability);
    enable.args[0] = bytes;
    if (KvmIoctl(vm_.get(), KVM_ENABLE_CAP, &enable) < 0) return KvmError("KVM_CAP_DIRTY_LOG_RING");
    taken_.emplace(memory_->page_count());
    return Ok();
  }
  return Error{.code = ErrorCode::kUnsupported, .message = "this KVM has no dirty rings"};
}

Status KvmMachine::TakeRings(DirtyBitmap* found) {
  LeaveOnce();
  const std::lock_guard lock(rings_mutex_);
  Status emptied = EmptyRings();
  if (!emptied.ok()) return emptied;
  taken_->MoveTo(found);
  if (rings_overran_) found->MarkRun({0, memory_->page_count()});
  return Ok();
}

Status KvmMachine::RelieveRings() {
  const std::lock_guard lock(rings_mutex_);
  const bool any =
      std::ranges::any_of(vcpus_, [](const Processor& one) { return one.vcpu->ring_is_filling(); });
  return any ? EmptyRings() : Ok();
}

// Processors that log pages by themselves (page modification logging) hand them to KVM when the
// guest is left.
void KvmMachine::LeaveOnce() {
  std::vector<std::optional<std::uint64_t>> before(vcpus_.size());
  {
    const std::lock_guard lock(mutex_);
    for (std::size_t core = 0; core < vcpus_.size(); ++core) {
      Processor& processor = vcpus_[core];
      if (!processor.thread.joinable()) continue;
      const std::uint64_t exits = processor.vcpu->exits();
      if (!processor.vcpu->is_inside()) continue;
      before[core] = exits;
      processor.vcpu->AskToLeave(true);
      Kick(processor.thread);
    }
  }
  for (std::size_t core = 0; core < vcpus_.size(); ++core) {
    const Vcpu& vcpu = *vcpus_[core].vcpu;
    while (before[core] && vcpu.is_inside() && vcpu.exits() == *before[core]) {
      std::this_thread::sleep_for(kExitPoll);
    }
  }
}

// REQUIRES: rings_mutex_ is held. KVM goes on with a ring when its entries were given back.
Status KvmMachine::EmptyRings() {
  const std::span<const Region> regions = memory_->regions();
  const auto mark = [&](std::uint32_t slot, std::uint64_t page) {
    const std::uint32_t index = slot & kSlotMask;
    if (index >= regions.size() || page >= regions[index].page_count()) return;
    taken_->Mark(regions[index].first_page + page);
  };
  for (Processor& processor : vcpus_) {
    if (processor.vcpu->TakeRing(mark)) continue;
    // KVM and this side do not agree any more about where the ring begins. No page is lost: from
    // now on all of them are told.
    rings_overran_ = true;
  }
  if (rings_overran_) static_cast<void>(SetDirtyLog(false));
  if (KvmIoctl(vm_.get(), KVM_RESET_DIRTY_RINGS) < 0) return KvmError("KVM_RESET_DIRTY_RINGS");
  return Ok();
}

bool KvmMachine::MakeRoom(Vcpu& vcpu) {
  const std::lock_guard lock(rings_mutex_);
  const bool emptied = EmptyRings().ok();
  // Somebody else may have emptied it just before; not again and again.
  if (vcpu.CountEmptyFulls() > kFullsMax) rings_overran_ = true;
  if (emptied && !rings_overran_) return true;
  vcpu.End("its dirty ring is full, and this KVM went past its end: take a larger one, or the log");
  return false;
}

}  // namespace chkpt

#endif  // CHKPT_HAVE_KVM

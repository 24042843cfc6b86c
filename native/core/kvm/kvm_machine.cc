#include "core/kvm/kvm_machine.h"

#ifdef CHKPT_HAVE_KVM

#include <cstring>

#include "core/base/check.h"
#include "core/kvm/kick_signal.h"

namespace chkpt {
namespace {

// Three pages for the task state segment and one for the identity map that processors without
// unrestricted guests need in real mode; below the BIOS, where no memory of a PC is.
constexpr std::uint64_t kTssAddress = 0xfffbd000;
constexpr std::uint64_t kIdentityMapAddress = 0xfffbc000;
constexpr std::uint64_t kReservedEnd = kTssAddress + 3 * kPageBytes;

}  // namespace

KvmMachine::KvmMachine(std::shared_ptr<const KvmSystem> system, std::shared_ptr<GuestMemory> memory,
                       KvmOptions options)
    : system_(std::move(system)), memory_(std::move(memory)), options_(std::move(options)) {}

Result<std::shared_ptr<KvmMachine>> KvmMachine::Create(std::shared_ptr<const KvmSystem> system,
                                                       std::shared_ptr<GuestMemory> memory,
                                                       KvmOptions options) {
  for (const Region& region : memory->regions()) {
    CHKPT_CHECK(region.host != nullptr && region.writable);
    if (region.base < kReservedEnd && region.base + region.bytes > kIdentityMapAddress) {
      return Error{.code = ErrorCode::kUnsupported,
                   .message = "memory where KVM keeps pages of its own"};
    }
  }
  std::shared_ptr<KvmMachine> machine(
      new KvmMachine(std::move(system), std::move(memory), std::move(options)));
  for (Status (KvmMachine::*step)() :
       {&KvmMachine::CreateVm, &KvmMachine::MapMemory, &KvmMachine::CreateVcpus}) {
    Status status = (*machine.*step)();
    if (!status.ok()) return status.error();
  }
  machine->StartThreads();
  return machine;
}

KvmMachine::~KvmMachine() { Stop(); }

Status KvmMachine::CreateVm() {
  vm_ = OwnedFd(KvmIoctl(system_->fd(), KVM_CREATE_VM));
  if (vm_.get() < 0) return KvmError("KVM_CREATE_VM");
  if (KvmIoctl(vm_.get(), KVM_SET_TSS_ADDR, kTssAddress) < 0) return KvmError("KVM_SET_TSS_ADDR");
  std::uint64_t identity_map = kIdentityMapAddress;
  if (KvmIoctl(vm_.get(), KVM_SET_IDENTITY_MAP_ADDR, &identity_map) < 0) {
    return KvmError("KVM_SET_IDENTITY_MAP_ADDR");
  }
  if (KvmIoctl(vm_.get(), KVM_CREATE_IRQCHIP) < 0) return KvmError("KVM_CREATE_IRQCHIP");
  kvm_pit_config pit = {};
  if (KvmIoctl(vm_.get(), KVM_CREATE_PIT2, &pit) < 0) return KvmError("KVM_CREATE_PIT2");
  return has_rings() ? EnableRings() : Ok();
}

Status KvmMachine::MapMemory() {
  Status mapped = MapSlots(0);
  if (mapped.ok()) memory_->MarkUsed();
  return mapped;
}

// A slot that is there already gets other flags; its memory stays.
Status KvmMachine::MapSlots(std::uint32_t flags) {
  std::uint32_t slot = 0;
  for (const Region& region : memory_->regions()) {
    kvm_userspace_memory_region mapped = {
        .slot = slot++,
        .flags = flags,
        .guest_phys_addr = region.base,
        .memory_size = region.bytes,
        .userspace_addr = reinterpret_cast<std::uint64_t>(region.host),
    };
    if (KvmIoctl(vm_.get(), KVM_SET_USER_MEMORY_REGION, &mapped) < 0) {
      return KvmError("KVM_SET_USER_MEMORY_REGION");
    }
  }
  return Ok();
}

Status KvmMachine::CreateVcpus() {
  if (options_.cpuid.size() > system_->vcpus_max()) {
    return Error{.code = ErrorCode::kUnsupported, .message = "KVM has no room for so many vCPUs"};
  }
  vcpus_.resize(options_.cpuid.size());
  for (unsigned core = 0; core < core_count(); ++core) {
    Result<std::unique_ptr<Vcpu>> vcpu =
        Vcpu::Create(*system_, vm_.get(), core, options_.ring_entries);
    if (!vcpu.ok()) return vcpu.error();
    vcpus_[core].vcpu = std::move(vcpu.value());
    Status status = SetCpuid(vcpus_[core].vcpu->fd(), options_.cpuid[core]);
    if (!status.ok()) return status;
  }
  if (vcpus_.empty()) return Ok();
  Result<std::vector<std::uint32_t>> indexes = system_->MsrIndexes();
  if (!indexes.ok()) return indexes.error();
  msrs_ = UsableMsrs(vcpus_[0].vcpu->fd(), indexes.value());
  return Ok();
}

void KvmMachine::StartThreads() {
  KickSignal();
  for (unsigned core = 0; core < core_count(); ++core) {
    vcpus_[core].thread = std::thread([this, core] { RunThread(core); });
  }
}

void KvmMachine::Resume() {
  const std::lock_guard lock(mutex_);
  if (!paused_ || stopping_) return;
  paused_ = false;
  for (Processor& processor : vcpus_) {
    processor.vcpu->AskToLeave(false);
    processor.ended = false;
  }
  changed_.notify_all();
}

// REQUIRES: mutex_ is held, so that no thread clears what is set here. A kick that comes before
// KVM_RUN is not lost: immediate_exit is looked at inside.
void KvmMachine::LeaveAll() {
  for (Processor& processor : vcpus_) {
    if (processor.vcpu == nullptr) continue;  // of a machine that could not be made
    processor.vcpu->AskToLeave(true);
    if (processor.thread.joinable()) Kick(processor.thread);
  }
  changed_.notify_all();
}

void KvmMachine::Pause() {
  std::unique_lock lock(mutex_);
  paused_ = true;
  LeaveAll();
  changed_.wait(lock, [this] { return running_ == 0 || !paused_; });
}

void KvmMachine::Stop() {
  std::vector<std::thread> threads;
  {
    std::unique_lock lock(mutex_);
    stopping_ = true;
    paused_ = true;
    LeaveAll();
    if (throttler_.joinable()) threads.push_back(std::move(throttler_));
    // One of several callers joins.
    for (Processor& processor : vcpus_) {
      if (processor.thread.joinable()) threads.push_back(std::move(processor.thread));
    }
    changed_.wait(lock, [this] { return running_ == 0; });
  }
  for (std::thread& thread : threads) thread.join();
}

void KvmMachine::RunThread(unsigned core) {
  UnblockKickSignal();
  Processor& processor = vcpus_[core];
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [&] { return stopping_ || (!paused_ && !processor.ended); });
    if (stopping_) break;
    ++running_;
    lock.unlock();
    const bool alive = RunGuest(core);
    lock.lock();
    --running_;
    processor.ended = !alive;
    processor.end_taken = alive;
    changed_.notify_all();
    if (alive) continue;
    lock.unlock();
    options_.notify();
    lock.lock();
  }
}

bool KvmMachine::RunGuest(unsigned core) {
  Vcpu& vcpu = *vcpus_[core].vcpu;
  while (true) {
    switch (vcpu.Run()) {
      // Only an interrupted run has completed the access before it: nothing of the guest is pending
      // then.
      case VcpuExit::kInterrupted:
        if (Rest(vcpu)) return true;
        break;
      case VcpuExit::kRingFull:
        if (!MakeRoom(vcpu)) return false;
        break;
      case VcpuExit::kPorts: ServePorts(core); break;
      case VcpuExit::kMmio: ServeMmio(core); break;
      case VcpuExit::kEnded: return false;
    }
  }
}

Status KvmMachine::CheckStill() const {
  const std::lock_guard lock(mutex_);
  if (running_ == 0 && paused_) return Ok();
  return Error{.code = ErrorCode::kUnsupported, .message = "the machine runs"};
}

Result<StateBytes> KvmMachine::GetVcpu(unsigned core, VcpuPart part) const {
  Status still = CheckStill();
  if (!still.ok()) return still.error();
  return GetVcpuState(*system_, vcpus_[core].vcpu->fd(), part);
}

Status KvmMachine::SetVcpu(unsigned core, VcpuPart part, std::span<const std::uint8_t> bytes) {
  Status still = CheckStill();
  if (!still.ok()) return still;
  return SetVcpuState(*system_, vcpus_[core].vcpu->fd(), part, bytes);
}

Result<StateBytes> KvmMachine::GetMsrs(unsigned core) const {
  Status still = CheckStill();
  if (!still.ok()) return still.error();
  return chkpt::GetMsrs(vcpus_[core].vcpu->fd(), msrs_);
}

Status KvmMachine::SetMsrs(unsigned core, std::span<const std::uint8_t> values) {
  Status still = CheckStill();
  if (!still.ok()) return still;
  return chkpt::SetMsrs(vcpus_[core].vcpu->fd(), msrs_, values);
}

Result<StateBytes> KvmMachine::GetVm(VmPart part) const {
  Status still = CheckStill();
  if (!still.ok()) return still.error();
  return GetVmState(vm_.get(), part);
}

Status KvmMachine::SetVm(VmPart part, std::span<const std::uint8_t> bytes) {
  Status still = CheckStill();
  if (!still.ok()) return still;
  return SetVmState(vm_.get(), part, bytes);
}

Status KvmMachine::SetIrqLine(std::uint32_t irq, bool high) {
  kvm_irq_level level = {};
  level.irq = irq;
  level.level = high ? 1 : 0;
  if (KvmIoctl(vm_.get(), KVM_IRQ_LINE, &level) < 0) return KvmError("KVM_IRQ_LINE");
  return Ok();
}

}  // namespace chkpt

#endif  // CHKPT_HAVE_KVM

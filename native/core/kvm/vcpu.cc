#include "core/kvm/vcpu.h"

#ifdef CHKPT_HAVE_KVM

#include <sys/ioctl.h>
#include <sys/mman.h>

#include <cerrno>
#include <cstring>

#include "core/base/units.h"

namespace chkpt {

Result<std::unique_ptr<Vcpu>> Vcpu::Create(const KvmSystem& system, int vm, unsigned index,
                                           std::uint32_t ring_entries) {
  std::unique_ptr<Vcpu> vcpu(new Vcpu());
  vcpu->fd_ = OwnedFd(KvmIoctl(vm, KVM_CREATE_VCPU, std::uint64_t{index}));
  if (vcpu->fd() < 0) return KvmError("KVM_CREATE_VCPU");
  void* const mapping =
      mmap(nullptr, system.run_bytes(), PROT_READ | PROT_WRITE, MAP_SHARED, vcpu->fd(), 0);
  if (mapping == MAP_FAILED) return SystemError(errno, "mapping of kvm_run");
  vcpu->run_ = static_cast<kvm_run*>(mapping);
  vcpu->run_bytes_ = system.run_bytes();
  if (ring_entries == 0) return vcpu;
  void* const ring = mmap(nullptr, ring_entries * sizeof(kvm_dirty_gfn), PROT_READ | PROT_WRITE,
                          MAP_SHARED, vcpu->fd(), KVM_DIRTY_LOG_PAGE_OFFSET * kPageBytes);
  if (ring == MAP_FAILED) return SystemError(errno, "mapping of a dirty ring");
  vcpu->ring_ = static_cast<kvm_dirty_gfn*>(ring);
  vcpu->ring_entries_ = ring_entries;
  return vcpu;
}

Vcpu::~Vcpu() {
  if (ring_ != nullptr) munmap(ring_, ring_entries_ * sizeof(kvm_dirty_gfn));
  if (run_ != nullptr) munmap(run_, run_bytes_);
}

VcpuExit Vcpu::Run() {
  is_inside_ = true;
  const int result = ioctl(fd(), KVM_RUN, 0);
  const int run_errno = errno;
  // In this order: who reads the count first and then finds it inside will see the count change.
  is_inside_ = false;
  ++exits_;
  errno = run_errno;
  if (result < 0) {
    // EAGAIN: a processor that waits to be started.
    if (errno == EINTR || errno == EAGAIN) return VcpuExit::kInterrupted;
    return End(std::string("KVM_RUN: ") + std::strerror(errno));
  }
  switch (run_->exit_reason) {
    case KVM_EXIT_IO: return VcpuExit::kPorts;
    case KVM_EXIT_MMIO: return VcpuExit::kMmio;
    case KVM_EXIT_DIRTY_RING_FULL: return VcpuExit::kRingFull;
    case KVM_EXIT_INTR:
    case KVM_EXIT_IRQ_WINDOW_OPEN: return VcpuExit::kInterrupted;
    case KVM_EXIT_SHUTDOWN: return End("shutdown (triple fault)");
    case KVM_EXIT_SYSTEM_EVENT:
      return End("system event " + std::to_string(run_->system_event.type));
    case KVM_EXIT_FAIL_ENTRY:
      return End("the processor refuses to enter the guest, reason " +
                 std::to_string(run_->fail_entry.hardware_entry_failure_reason));
    case KVM_EXIT_INTERNAL_ERROR:
      return End("KVM internal error " + std::to_string(run_->internal.suberror));
    default: return End("exit reason " + std::to_string(run_->exit_reason));
  }
}

Vcpu::Ports Vcpu::ports() const {
  return {.port = run_->io.port,
          .write = run_->io.direction == KVM_EXIT_IO_OUT,
          .size = run_->io.size,
          .count = run_->io.count,
          .data = reinterpret_cast<std::uint8_t*>(run_) + run_->io.data_offset};
}

Vcpu::Mmio Vcpu::mmio() const {
  return {.address = run_->mmio.phys_addr,
          .write = run_->mmio.is_write != 0,
          .size = static_cast<std::uint8_t>(run_->mmio.len),
          .data = run_->mmio.data};
}

VcpuExit Vcpu::End(std::string why) {
  ended_ = std::move(why);
  return VcpuExit::kEnded;
}

}  // namespace chkpt

#endif  // CHKPT_HAVE_KVM

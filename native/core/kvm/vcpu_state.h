// State of a vCPU and of a virtual machine as KVM gives and takes it: kernel structs, whose fields
// src/adapters/kvm names. Sizes are those of the kernel's ABI; what the values may be KVM decides.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/kvm/kvm_system.h"

#ifdef CHKPT_HAVE_KVM

namespace chkpt {

using StateBytes = std::vector<std::uint8_t>;

enum class VcpuPart : std::uint8_t {
  kRegs,     // kvm_regs
  kSregs,    // kvm_sregs
  kMpState,  // kvm_mp_state
  kFpu,      // kvm_fpu; part of kXsave where that exists
  kXsave,    // kvm_xsave
  kXcrs,     // kvm_xcrs
  kDebug,    // kvm_debugregs
  kLapic,    // kvm_lapic_state
  kEvents,   // kvm_vcpu_events
};
inline constexpr std::uint64_t kVcpuPartCount = 9;

enum class VmPart : std::uint8_t {
  kPicMaster,  // kvm_pic_state
  kPicSlave,   // kvm_pic_state
  kIoapic,     // kvm_ioapic_state
  kPit,        // kvm_pit_state2
  kClock,      // kvm_clock_data
};
inline constexpr std::uint64_t kVmPartCount = 5;

// Bytes of a part; 0 when this KVM does not have it.
std::size_t BytesOf(const KvmSystem& system, VcpuPart part);
std::size_t BytesOf(VmPart part);

// REQUIRES of all: the vCPUs stand still, since these ioctls wait for KVM_RUN to return.
// Errors: kUnsupported for a part that is not there and for values that KVM refuses; kFormat for
// another size.
Result<StateBytes> GetVcpuState(const KvmSystem& system, int vcpu, VcpuPart part);
Status SetVcpuState(const KvmSystem& system, int vcpu, VcpuPart part,
                    std::span<const std::uint8_t> bytes);
Result<StateBytes> GetVmState(int vm, VmPart part);
Status SetVmState(int vm, VmPart part, std::span<const std::uint8_t> bytes);

// Those of `indexes` that can be read and written back on this vCPU. REQUIRES: it has never run.
std::vector<std::uint32_t> UsableMsrs(int vcpu, std::span<const std::uint32_t> indexes);
// Values of 8 bytes each, in the order of `indexes`.
Result<StateBytes> GetMsrs(int vcpu, std::span<const std::uint32_t> indexes);
Status SetMsrs(int vcpu, std::span<const std::uint32_t> indexes,
               std::span<const std::uint8_t> values);

Status SetCpuid(int vcpu, std::span<const kvm_cpuid_entry2> entries);

}  // namespace chkpt

#endif  // CHKPT_HAVE_KVM

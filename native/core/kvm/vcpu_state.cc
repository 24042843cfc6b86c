#include "core/kvm/vcpu_state.h"

#ifdef CHKPT_HAVE_KVM

#include <algorithm>
#include <cstdio>
#include <cstring>

#include "core/kvm/kvm_abi.h"

namespace chkpt {
namespace {

struct Access {
  unsigned long get;
  unsigned long set;
  const char* get_name;
  const char* set_name;
  std::size_t bytes;
};

#define CHKPT_KVM_ACCESS(name, type) \
  Access { KVM_GET_##name, KVM_SET_##name, "KVM_GET_" #name, "KVM_SET_" #name, sizeof(type) }

Access AccessOf(VcpuPart part) {
  switch (part) {
    case VcpuPart::kRegs: return CHKPT_KVM_ACCESS(REGS, kvm_regs);
    case VcpuPart::kSregs: return CHKPT_KVM_ACCESS(SREGS, kvm_sregs);
    case VcpuPart::kMpState: return CHKPT_KVM_ACCESS(MP_STATE, kvm_mp_state);
    case VcpuPart::kFpu: return CHKPT_KVM_ACCESS(FPU, kvm_fpu);
    case VcpuPart::kXsave:
      return {kGetXsave, kSetXsave, "KVM_GET_XSAVE", "KVM_SET_XSAVE", kXsaveBytes};
    case VcpuPart::kXcrs: return CHKPT_KVM_ACCESS(XCRS, kvm_xcrs);
    case VcpuPart::kDebug: return CHKPT_KVM_ACCESS(DEBUGREGS, kvm_debugregs);
    case VcpuPart::kLapic: return CHKPT_KVM_ACCESS(LAPIC, kvm_lapic_state);
    case VcpuPart::kEvents: break;
  }
  return CHKPT_KVM_ACCESS(VCPU_EVENTS, kvm_vcpu_events);
}

#undef CHKPT_KVM_ACCESS

Error WrongSize(const char* name) {
  return {.code = ErrorCode::kFormat, .message = std::string(name) + ": state of another size"};
}

Error Missing(const char* name) {
  return {.code = ErrorCode::kUnsupported, .message = std::string(name) + " is not there"};
}

// The chip of the in-kernel interrupt controller that a part is, or -1.
int ChipOf(VmPart part) {
  switch (part) {
    case VmPart::kPicMaster: return KVM_IRQCHIP_PIC_MASTER;
    case VmPart::kPicSlave: return KVM_IRQCHIP_PIC_SLAVE;
    case VmPart::kIoapic: return KVM_IRQCHIP_IOAPIC;
    case VmPart::kPit:
    case VmPart::kClock: break;
  }
  return -1;
}

MsrList ListOf(std::span<const std::uint32_t> indexes) {
  MsrList list(static_cast<std::uint32_t>(indexes.size()));
  for (std::size_t i = 0; i < indexes.size(); ++i)
    list.set(i, {.index = indexes[i], .reserved = 0, .data = 0});
  return list;
}

// `done`: how many the kernel has taken before the one it refuses.
Error MsrError(const char* name, int done, std::span<const std::uint32_t> indexes) {
  if (done < 0) return KvmError(name);
  char text[64];
  std::snprintf(text, sizeof text, "%s refuses MSR 0x%x", name,
                indexes[static_cast<std::size_t>(done)]);
  return {.code = ErrorCode::kUnsupported, .message = text};
}

}  // namespace

std::size_t BytesOf(const KvmSystem& system, VcpuPart part) {
  if (part == VcpuPart::kXsave) return system.xsave_bytes();
  if (part == VcpuPart::kXcrs && !system.has_xcrs()) return 0;
  if (part == VcpuPart::kDebug && !system.has_debug_registers()) return 0;
  return AccessOf(part).bytes;
}

std::size_t BytesOf(VmPart part) {
  switch (part) {
    case VmPart::kPicMaster:
    case VmPart::kPicSlave: return sizeof(kvm_pic_state);
    case VmPart::kIoapic: return sizeof(kvm_ioapic_state);
    case VmPart::kPit: return sizeof(kvm_pit_state2);
    case VmPart::kClock: break;
  }
  return sizeof(kvm_clock_data);
}

Result<StateBytes> GetVcpuState(const KvmSystem& system, int vcpu, VcpuPart part) {
  Access access = AccessOf(part);
  StateBytes bytes(BytesOf(system, part));
  if (bytes.empty()) return Missing(access.get_name);
  if (bytes.size() > access.bytes) access.get = kGetXsave2;
  if (KvmIoctl(vcpu, access.get, bytes.data()) < 0) return KvmError(access.get_name);
  return bytes;
}

Status SetVcpuState(const KvmSystem& system, int vcpu, VcpuPart part,
                    std::span<const std::uint8_t> bytes) {
  const Access access = AccessOf(part);
  const std::size_t expected = BytesOf(system, part);
  if (expected == 0) return Missing(access.set_name);
  if (bytes.size() != expected) return WrongSize(access.set_name);
  StateBytes copy(bytes.begin(), bytes.end());  // the kernel's argument is not const
  if (KvmIoctl(vcpu, access.set, copy.data()) < 0) return KvmError(access.set_name);
  return Ok();
}

Result<StateBytes> GetVmState(int vm, VmPart part) {
  StateBytes bytes(BytesOf(part));
  const int chip = ChipOf(part);
  if (chip >= 0) {
    kvm_irqchip irqchip = {};
    irqchip.chip_id = static_cast<std::uint32_t>(chip);
    if (KvmIoctl(vm, KVM_GET_IRQCHIP, &irqchip) < 0) return KvmError("KVM_GET_IRQCHIP");
    std::memcpy(bytes.data(), &irqchip.chip, bytes.size());
    return bytes;
  }
  const bool pit = part == VmPart::kPit;
  if (KvmIoctl(vm, pit ? KVM_GET_PIT2 : KVM_GET_CLOCK, bytes.data()) < 0) {
    return KvmError(pit ? "KVM_GET_PIT2" : "KVM_GET_CLOCK");
  }
  return bytes;
}

Status SetVmState(int vm, VmPart part, std::span<const std::uint8_t> bytes) {
  if (bytes.size() != BytesOf(part)) return WrongSize("state of the machine");
  const int chip = ChipOf(part);
  if (chip >= 0) {
    kvm_irqchip irqchip = {};
    irqchip.chip_id = static_cast<std::uint32_t>(chip);
    std::memcpy(&irqchip.chip, bytes.data(), bytes.size());
    if (KvmIoctl(vm, KVM_SET_IRQCHIP, &irqchip) < 0) return KvmError("KVM_SET_IRQCHIP");
    return Ok();
  }
  StateBytes copy(bytes.begin(), bytes.end());
  const bool pit = part == VmPart::kPit;
  if (KvmIoctl(vm, pit ? KVM_SET_PIT2 : KVM_SET_CLOCK, copy.data()) < 0) {
    return KvmError(pit ? "KVM_SET_PIT2" : "KVM_SET_CLOCK");
  }
  return Ok();
}

std::vector<std::uint32_t> UsableMsrs(int vcpu, std::span<const std::uint32_t> indexes) {
  std::vector<std::uint32_t> usable;
  for (const std::uint32_t index : indexes) {
    MsrList list = ListOf({&index, 1});
    if (KvmIoctl(vcpu, kGetMsrs, list.get()) != 1) continue;
    if (KvmIoctl(vcpu, kSetMsrs, list.get()) != 1) continue;
    usable.push_back(index);
  }
  std::sort(usable.begin(), usable.end());
  return usable;
}

Result<StateBytes> GetMsrs(int vcpu, std::span<const std::uint32_t> indexes) {
  MsrList list = ListOf(indexes);
  const int done = KvmIoctl(vcpu, kGetMsrs, list.get());
  if (done != static_cast<int>(indexes.size())) return MsrError("KVM_GET_MSRS", done, indexes);
  StateBytes values(indexes.size() * 8);
  for (std::size_t i = 0; i < indexes.size(); ++i) {
    const __u64 data = list.at(i).data;
    std::memcpy(values.data() + 8 * i, &data, 8);
  }
  return values;
}

Status SetMsrs(int vcpu, std::span<const std::uint32_t> indexes,
               std::span<const std::uint8_t> values) {
  if (values.size() != indexes.size() * 8) return WrongSize("KVM_SET_MSRS");
  MsrList list(static_cast<std::uint32_t>(indexes.size()));
  for (std::size_t i = 0; i < indexes.size(); ++i) {
    kvm_msr_entry entry = {.index = indexes[i], .reserved = 0, .data = 0};
    std::memcpy(&entry.data, values.data() + 8 * i, 8);
    list.set(i, entry);
  }
  const int done = KvmIoctl(vcpu, kSetMsrs, list.get());
  if (done != static_cast<int>(indexes.size())) return MsrError("KVM_SET_MSRS", done, indexes);
  return Ok();
}

Status SetCpuid(int vcpu, std::span<const kvm_cpuid_entry2> entries) {
  CpuidList list(static_cast<std::uint32_t>(entries.size()));
  for (std::size_t i = 0; i < entries.size(); ++i) list.set(i, entries[i]);
  if (KvmIoctl(vcpu, kSetCpuid2, list.get()) < 0) return KvmError("KVM_SET_CPUID2");
  return Ok();
}

}  // namespace chkpt

#endif  // CHKPT_HAVE_KVM

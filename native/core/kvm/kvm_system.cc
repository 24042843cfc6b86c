#include "core/kvm/kvm_system.h"

#include "core/kvm/kvm_abi.h"

#ifdef CHKPT_HAVE_KVM

#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>

namespace chkpt {
namespace {

constexpr std::uint32_t kCpuidEntriesMax = 1024;
constexpr std::uint32_t kMsrsMax = 4096;

struct Requirement {
  int capability;
  const char* name;
};

// What every machine of ours needs.
constexpr Requirement kRequirements[] = {
    {KVM_CAP_IRQCHIP, "KVM_CAP_IRQCHIP"},
    {KVM_CAP_PIT2, "KVM_CAP_PIT2"},
    {KVM_CAP_PIT_STATE2, "KVM_CAP_PIT_STATE2"},
    {KVM_CAP_ADJUST_CLOCK, "KVM_CAP_ADJUST_CLOCK"},
    {KVM_CAP_USER_MEMORY, "KVM_CAP_USER_MEMORY"},
    {KVM_CAP_EXT_CPUID, "KVM_CAP_EXT_CPUID"},
    {KVM_CAP_VCPU_EVENTS, "KVM_CAP_VCPU_EVENTS"},
    {KVM_CAP_MP_STATE, "KVM_CAP_MP_STATE"},
    {KVM_CAP_IMMEDIATE_EXIT, "KVM_CAP_IMMEDIATE_EXIT"},
    {KVM_CAP_SET_TSS_ADDR, "KVM_CAP_SET_TSS_ADDR"},
    {KVM_CAP_SET_IDENTITY_MAP_ADDR, "KVM_CAP_SET_IDENTITY_MAP_ADDR"},
};

Error Unsupported(std::string why, int system_errno = 0) {
  return {.code = ErrorCode::kUnsupported,
          .message = "no usable KVM: " + std::move(why),
          .system_errno = system_errno};
}

}  // namespace

int KvmIoctl(int fd, unsigned long request, void* argument) {
  int result;
  do {
    result = ioctl(fd, request, argument);
  } while (result < 0 && errno == EINTR);
  return result;
}

int KvmIoctl(int fd, unsigned long request, std::uint64_t argument) {
  return KvmIoctl(fd, request, reinterpret_cast<void*>(argument));
}

Error KvmError(const char* ioctl_name) {
  const int system_errno = errno;
  Error error = SystemError(system_errno, ioctl_name);
  // KVM validates what it is given: what it refuses is state that this machine cannot have.
  if (system_errno == EINVAL) error.code = ErrorCode::kUnsupported;
  return error;
}

Result<std::shared_ptr<const KvmSystem>> KvmSystem::Open(const char* path) {
  std::shared_ptr<KvmSystem> system(new KvmSystem());
  system->fd_ = OwnedFd(open(path, O_RDWR | O_CLOEXEC));
  if (system->fd() < 0) {
    const int system_errno = errno;
    return Unsupported(std::string(path) + ": " + std::strerror(system_errno), system_errno);
  }
  const int version = KvmIoctl(system->fd(), KVM_GET_API_VERSION);
  if (version != KVM_API_VERSION) {
    return Unsupported(std::string(path) + ": API version " + std::to_string(version));
  }
  for (const Requirement& requirement : kRequirements) {
    if (system->Check(requirement.capability) <= 0) {
      return Unsupported(std::string("the kernel lacks ") + requirement.name);
    }
  }
  const int run_bytes = KvmIoctl(system->fd(), KVM_GET_VCPU_MMAP_SIZE);
  if (run_bytes < static_cast<int>(sizeof(kvm_run))) return KvmError("KVM_GET_VCPU_MMAP_SIZE");
  system->run_bytes_ = static_cast<std::size_t>(run_bytes);
  if (system->Check(KVM_CAP_XSAVE) > 0) {
    // KVM_CAP_XSAVE2 says how large the area is; KVM_GET_XSAVE alone has 4 KiB.
    system->xsave_bytes_ =
        std::max(kXsaveBytes, static_cast<std::size_t>(std::max(0, system->Check(KVM_CAP_XSAVE2))));
  }
  system->has_xcrs_ = system->Check(KVM_CAP_XCRS) > 0;
  system->has_debug_registers_ = system->Check(KVM_CAP_DEBUGREGS) > 0;
  system->vcpus_max_ = static_cast<unsigned>(std::max(1, system->Check(KVM_CAP_MAX_VCPUS)));
  return std::shared_ptr<const KvmSystem>(std::move(system));
}

int KvmSystem::Check(int capability) const {
  return KvmIoctl(fd(), KVM_CHECK_EXTENSION, static_cast<std::uint64_t>(capability));
}

Result<std::vector<kvm_cpuid_entry2>> KvmSystem::SupportedCpuid() const {
  CpuidList list(kCpuidEntriesMax);
  if (KvmIoctl(fd(), kGetSupportedCpuid, list.get()) < 0) {
    return KvmError("KVM_GET_SUPPORTED_CPUID");
  }
  return list.ToVector();
}

Result<std::vector<std::uint32_t>> KvmSystem::MsrIndexes() const {
  MsrIndexList list(kMsrsMax);
  if (KvmIoctl(fd(), kGetMsrIndexList, list.get()) < 0) return KvmError("KVM_GET_MSR_INDEX_LIST");
  return list.ToVector();
}

}  // namespace chkpt

#endif  // CHKPT_HAVE_KVM

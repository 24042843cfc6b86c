// KvmSystem: /dev/kvm of this machine and what it can do. Every capability is asked for, none
// assumed. Names and layouts: Linux, Documentation/virt/kvm/api.rst.
//
// Only x86-64 Linux has it; elsewhere CHKPT_HAVE_KVM is not defined and the binding says so.
//
// Thread safety: immutable after construction.
#pragma once

#if defined(__linux__) && defined(__x86_64__)
#define CHKPT_HAVE_KVM 1

#include <linux/kvm.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "core/base/owned_fd.h"
#include "core/base/result.h"

namespace chkpt {

// ioctl() that retries EINTR: for everything but KVM_RUN.
int KvmIoctl(int fd, unsigned long request, void* argument);
int KvmIoctl(int fd, unsigned long request, std::uint64_t argument = 0);

// The error of an ioctl that has just failed.
Error KvmError(const char* ioctl_name);

class KvmSystem {
 public:
  // Errors: kUnsupported when there is no usable KVM, with the reason.
  static Result<std::shared_ptr<const KvmSystem>> Open(const char* path = "/dev/kvm");

  int fd() const { return fd_.get(); }
  // Bytes of the mapping that a vCPU shares with user space.
  std::size_t run_bytes() const { return run_bytes_; }
  // Bytes of the XSAVE area; 0 when there is no such state.
  std::size_t xsave_bytes() const { return xsave_bytes_; }
  bool has_xcrs() const { return has_xcrs_; }
  bool has_debug_registers() const { return has_debug_registers_; }
  unsigned vcpus_max() const { return vcpus_max_; }

  // KVM_CHECK_EXTENSION.
  int Check(int capability) const;
  // KVM_GET_SUPPORTED_CPUID.
  Result<std::vector<kvm_cpuid_entry2>> SupportedCpuid() const;
  // KVM_GET_MSR_INDEX_LIST.
  Result<std::vector<std::uint32_t>> MsrIndexes() const;

 private:
  KvmSystem() = default;

  OwnedFd fd_;
  std::size_t run_bytes_ = 0;
  std::size_t xsave_bytes_ = 0;
  bool has_xcrs_ = false;
  bool has_debug_registers_ = false;
  unsigned vcpus_max_ = 1;
};

}  // namespace chkpt

#endif  // defined(__linux__) && defined(__x86_64__)

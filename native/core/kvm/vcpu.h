// Vcpu: one virtual processor of a KvmMachine: its descriptor and the mapping in which KVM says why
// it left the guest (kvm_run).
//
// Thread safety: Run belongs to the vCPU's thread; AskToLeave may be called from any.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "core/kvm/vcpu_state.h"

#ifdef CHKPT_HAVE_KVM

namespace chkpt {

// Why KVM_RUN came back.
enum class VcpuExit : std::uint8_t {
  kInterrupted,  // a signal, or immediate_exit: nothing of the guest is pending
  kPorts,        // KVM_EXIT_IO
  kMmio,         // KVM_EXIT_MMIO
  kEnded,        // the guest cannot go on: ended() says why
};

class Vcpu {
 public:
  static Result<std::unique_ptr<Vcpu>> Create(const KvmSystem& system, int vm, unsigned index);
  ~Vcpu();
  Vcpu(const Vcpu&) = delete;
  Vcpu& operator=(const Vcpu&) = delete;

  int fd() const { return fd_.get(); }

  VcpuExit Run();
  // From now on Run() only completes what is pending; an interrupted Run() needs the kick signal
  // beside it.
  void AskToLeave(bool leave) {
    __atomic_store_n(&run_->immediate_exit, static_cast<__u8>(leave), __ATOMIC_RELAXED);
  }

  // After kPorts: `count` accesses of `size` bytes at `port`, with their data.
  struct Ports {
    std::uint16_t port;
    bool write;
    std::uint8_t size;
    std::uint32_t count;
    std::uint8_t* data;
  };
  Ports ports() const;
  // After kMmio: at most 8 bytes at a guest-physical address that no memory slot has.
  struct Mmio {
    std::uint64_t address;
    bool write;
    std::uint8_t size;
    std::uint8_t* data;
  };
  Mmio mmio() const;
  // After kEnded: for people.
  const std::string& ended() const { return ended_; }

 private:
  Vcpu() = default;
  VcpuExit End(std::string why);

  OwnedFd fd_;
  kvm_run* run_ = nullptr;
  std::size_t run_bytes_ = 0;
  std::string ended_;
};

}  // namespace chkpt

#endif  // CHKPT_HAVE_KVM

// Vcpu: one virtual processor of a KvmMachine: its descriptor and the mapping in which KVM says why
// it left the guest (kvm_run).
//
// Thread safety: Run belongs to the vCPU's thread; AskToLeave may be called from any.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include "core/kvm/vcpu_state.h"

#ifdef CHKPT_HAVE_KVM

namespace chkpt {

// Why KVM_RUN came back.
enum class VcpuExit : std::uint8_t {
  kInterrupted,  // a signal, or immediate_exit: nothing of the guest is pending
  kRingFull,     // KVM_EXIT_DIRTY_RING_FULL: the ring must be taken before it goes on
  kPorts,        // KVM_EXIT_IO
  kMmio,         // KVM_EXIT_MMIO
  kEnded,        // the guest cannot go on: ended() says why
};

class Vcpu {
 public:
  // With the dirty ring of the machine, when it has one: `ring_entries` > 0.
  static Result<std::unique_ptr<Vcpu>> Create(const KvmSystem& system, int vm, unsigned index,
                                              std::uint32_t ring_entries);
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
  // Times that the vCPU has come back from KVM_RUN, and whether it is in it. One that is
  // outside, or was, has told KVM which pages its processor has logged.
  std::uint64_t exits() const { return exits_; }
  bool is_inside() const { return is_inside_; }

  // Entries of its dirty ring that KVM has filled since the last call; visit(slot, page of it).
  // They count as taken with KVM_RESET_DIRTY_RINGS. False when there were as many as the ring has:
  // KVM keeps room, so it has gone past the end of the ring, and what it said first is lost. One
  // caller at a time, also of ring_is_filling.
  template <typename Visit>
  bool TakeRing(Visit visit) {
    for (std::uint32_t taken = 0; taken < ring_entries_; ++taken) {
      kvm_dirty_gfn& entry = RingEntry(0);
      if (__atomic_load_n(&entry.flags, __ATOMIC_ACQUIRE) != KVM_DIRTY_GFN_F_DIRTY) return true;
      visit(entry.slot, entry.offset);
      __atomic_store_n(&entry.flags, KVM_DIRTY_GFN_F_RESET, __ATOMIC_RELEASE);
      ++ring_next_;
      was_taken_ = true;
    }
    return ring_entries_ == 0;
  }
  // Counts how often its ring was full with nothing in it to take since the last one that had
  // something. Caller as of TakeRing.
  unsigned CountEmptyFulls() {
    empty_fulls_ = was_taken_ ? 0 : empty_fulls_ + 1;
    was_taken_ = false;
    return empty_fulls_;
  }
  // A quarter of it: on processors with page modification logging KVM calls a small ring full
  // before the half.
  bool ring_is_filling() const {
    return __atomic_load_n(&RingEntry(ring_entries_ / 4).flags, __ATOMIC_ACQUIRE) ==
           KVM_DIRTY_GFN_F_DIRTY;
  }

  // After kEnded: for people.
  const std::string& ended() const { return ended_; }
  VcpuExit End(std::string why);

 private:
  Vcpu() = default;
  kvm_dirty_gfn& RingEntry(std::uint32_t ahead) const {
    return ring_[(ring_next_ + ahead) & (ring_entries_ - 1)];
  }

  OwnedFd fd_;
  kvm_run* run_ = nullptr;
  std::size_t run_bytes_ = 0;
  kvm_dirty_gfn* ring_ = nullptr;
  std::uint32_t ring_entries_ = 0;  // a power of two, or no ring
  std::uint32_t ring_next_ = 0;
  bool was_taken_ = false;
  unsigned empty_fulls_ = 0;
  std::atomic<std::uint64_t> exits_{0};
  std::atomic<bool> is_inside_{false};
  std::string ended_;
};

}  // namespace chkpt

#endif  // CHKPT_HAVE_KVM

// KvmMachine: a small virtual machine under /dev/kvm: memory slots over the regions of a
// GuestMemory, vCPUs with a thread each, the kernel's interrupt controllers, timer and clock, a
// 16550 serial port. Accesses to ports and MMIO ranges of other devices wait for the owner to
// answer them. Names and rules: Linux, Documentation/virt/kvm/api.rst.
//
// Ownership: owns descriptors and threads; shares the memory, which stays mapped until the machine
// is gone.
//
// Thread safety: every member may be called from any thread. State is read and replaced while
// paused only.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "core/bitmap/dirty_bitmap.h"
#include "core/kvm/uart_16550.h"
#include "core/kvm/vcpu.h"
#include "core/memory/guest_memory.h"

#ifdef CHKPT_HAVE_KVM

namespace chkpt {

// Ports or guest-physical addresses that the owner serves.
struct DeviceRange {
  bool mmio = false;
  std::uint64_t base = 0;
  std::uint64_t bytes = 0;
};

// An access of a vCPU that waits for Answer(core, …).
struct DeviceAccess {
  unsigned core = 0;
  std::size_t range = 0;     // index into KvmOptions::ranges
  std::uint64_t offset = 0;  // bytes from its base
  std::uint8_t bytes = 0;    // 1 to 8
  bool write = false;
  std::uint64_t value = 0;  // of a write
};

struct VcpuEnd {
  unsigned core = 0;
  std::string reason;
};

struct KvmOptions {
  // One list for each vCPU; their number is the number of cores.
  std::vector<std::vector<kvm_cpuid_entry2>> cpuid;
  std::vector<DeviceRange> ranges;
  // Entries of the dirty ring of each vCPU, a power of two; 0: no rings, the machine has a dirty
  // log instead. KVM wants to know before there is a vCPU.
  std::uint32_t ring_entries = 0;
  // Called by vCPU threads, without a lock, when a Take… function has something.
  std::function<void()> notify;
};

class KvmMachine {
 public:
  // The machine is paused; its vCPUs are as after a reset. Errors: kUnsupported, kNoMemory, kIo.
  // REQUIRES: every region is mapped and writable; ranges do not overlap.
  static Result<std::shared_ptr<KvmMachine>> Create(std::shared_ptr<const KvmSystem> system,
                                                    std::shared_ptr<GuestMemory> memory,
                                                    KvmOptions options);
  ~KvmMachine();  // stops
  KvmMachine(const KvmMachine&) = delete;
  KvmMachine& operator=(const KvmMachine&) = delete;

  void Resume();
  // Returns when no vCPU is in the guest and no access is pending, or when the machine was let run
  // meanwhile. An access that waits must be answered for that.
  void Pause();
  // Ends all threads; what waits for an answer is let go of. The machine does not run any more.
  void Stop();

  unsigned core_count() const { return static_cast<unsigned>(vcpus_.size()); }
  std::span<const std::uint32_t> msrs() const { return msrs_; }
  const KvmSystem& system() const { return *system_; }

  const std::shared_ptr<GuestMemory>& memory() const { return memory_; }

  // The guest runs for 1 - share of the time. REQUIRES: 0 <= share < 1.
  void Throttle(double share);

  // For trackers of the dirty log or the dirty rings (KVM_MEM_LOG_DIRTY_PAGES of all slots). One of
  // them at a time: false when there is one already.
  bool ClaimDirtyLog() { return !dirty_log_claimed_.exchange(true); }
  void ReleaseDirtyLog() { dirty_log_claimed_ = false; }
  Status SetDirtyLog(bool on) { return MapSlots(on ? KVM_MEM_LOG_DIRTY_PAGES : 0); }
  int vm_fd() const { return vm_.get(); }
  bool has_rings() const { return options_.ring_entries > 0; }
  // Marks in `found` what all rings hold, and lets KVM protect it again. What
  // vCPUs had to take out themselves is in it. Every vCPU leaves the guest once: its processor may
  // have logged pages that KVM does not know yet.
  // Errors: those of KVM_RESET_DIRTY_RINGS; nothing is lost. REQUIRES: has_rings().
  Status TakeRings(DirtyBitmap* found);
  // Takes out what the rings hold when one is a quarter full, for the next TakeRings. A KVM in
  // software may write more pages at once than a ring has room for when it says that it is full.
  // Errors and REQUIRES: as TakeRings.
  Status RelieveRings();

  // Errors of all: kUnsupported while a vCPU runs and for what KVM refuses, kFormat for another
  // size.
  Result<StateBytes> GetVcpu(unsigned core, VcpuPart part) const;
  Status SetVcpu(unsigned core, VcpuPart part, std::span<const std::uint8_t> bytes);
  Result<StateBytes> GetMsrs(unsigned core) const;
  Status SetMsrs(unsigned core, std::span<const std::uint8_t> values);
  Result<StateBytes> GetVm(VmPart part) const;
  Status SetVm(VmPart part, std::span<const std::uint8_t> bytes);
  StateBytes GetSerial() const;
  Status SetSerial(std::span<const std::uint8_t> bytes);

  // KVM_IRQ_LINE: an interrupt line of a device of the owner.
  Status SetIrqLine(std::uint32_t irq, bool high);

  // An access that nobody has taken yet.
  std::optional<DeviceAccess> TakeAccess();
  // REQUIRES: TakeAccess() gave an access of that core that was not answered yet; else nothing
  // happens.
  void Answer(unsigned core, std::uint64_t value);
  // What the guest has sent since the last call.
  std::vector<std::uint8_t> TakeSerialOutput();
  // Bytes for the guest, as many as its port has room for; returns how many. notify() says when
  // there is room again.
  std::size_t FeedSerial(std::span<const std::uint8_t> bytes);
  // A vCPU that cannot go on. It is tried again after the next Resume().
  std::optional<VcpuEnd> TakeEnd();

 private:
  enum class Pending : std::uint8_t { kNone, kPosted, kTaken, kAnswered };
  struct Processor {
    std::unique_ptr<Vcpu> vcpu;
    std::thread thread;
    Pending pending = Pending::kNone;
    DeviceAccess access;
    std::uint64_t answer = 0;
    bool ended = false;
    bool end_taken = false;
  };

  KvmMachine(std::shared_ptr<const KvmSystem> system, std::shared_ptr<GuestMemory> memory,
             KvmOptions options);
  Status CreateVm();
  Status MapMemory();
  Status MapSlots(std::uint32_t flags);
  Status CreateVcpus();
  void StartThreads();
  void RunThread(unsigned core);
  // Runs the guest until it is to pause; false when it cannot go on.
  bool RunGuest(unsigned core);
  void LeaveAll();
  // After a vCPU was interrupted: waits while the guest rests; true when the machine is paused.
  bool Rest(Vcpu& vcpu);
  void RunThrottler();
  Status EnableRings();
  void LeaveOnce();
  Status EmptyRings();
  // For a vCPU whose ring is full; false when it cannot go on.
  bool MakeRoom(Vcpu& vcpu);
  void ServePorts(unsigned core);
  void ServeMmio(unsigned core);
  // One access of 1 to 8 bytes at `data`.
  void Serve(unsigned core, bool mmio, std::uint64_t address, std::uint8_t bytes, bool write,
             std::uint8_t* data);
  bool ServeSerial(std::uint64_t port, bool write, std::uint8_t* data);
  std::uint64_t AskOwner(const DeviceAccess& access);
  void UpdateSerialLine();
  Status CheckStill() const;

  const std::shared_ptr<const KvmSystem> system_;
  const std::shared_ptr<GuestMemory> memory_;
  const KvmOptions options_;
  OwnedFd vm_;
  std::vector<std::uint32_t> msrs_;
  std::vector<Processor> vcpus_;

  mutable std::mutex mutex_;  // guards what follows, and `pending` to `end_taken` of the processors
  mutable std::condition_variable changed_;  // any of it
  std::atomic<bool> dirty_log_claimed_{false};
  std::atomic<bool> paused_{true};
  std::atomic<bool> stopping_{false};
  unsigned running_ = 0;  // threads that may be in the guest
  Uart16550 uart_;
  bool serial_line_ = false;
  std::vector<std::uint8_t> serial_output_;
  double throttle_ = 0;  // share of the time that the guest rests
  bool resting_ = false;
  std::thread throttler_;  // while the share is not 0

  std::mutex rings_mutex_;            // guards the vCPUs' rings, and:
  std::optional<DirtyBitmap> taken_;  // taken out of rings, and not yet by TakeRings
  bool rings_overran_ = false;
};

}  // namespace chkpt

#endif  // CHKPT_HAVE_KVM

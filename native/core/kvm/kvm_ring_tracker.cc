#include "core/kvm/kvm_ring_tracker.h"

#ifdef CHKPT_HAVE_KVM

#include <sys/resource.h>
#include <unistd.h>

#include <chrono>
#include <utility>

namespace chkpt {
namespace {

constexpr auto kRelieveEvery = std::chrono::milliseconds(2);
constexpr int kNice = -15;

}  // namespace

Result<std::unique_ptr<DirtyTracker>> KvmRingTracker::Open(std::shared_ptr<KvmMachine> machine) {
  if (!machine->has_rings()) {
    return Error{.code = ErrorCode::kUnsupported,
                 .message = "the machine was made without dirty rings"};
  }
  if (!machine->ClaimDirtyLog()) {
    return Error{.code = ErrorCode::kUnsupported,
                 .message = "the machine has a tracker of its dirty rings already"};
  }
  return std::unique_ptr<DirtyTracker>(new KvmRingTracker(std::move(machine)));
}

KvmRingTracker::KvmRingTracker(std::shared_ptr<KvmMachine> machine)
    : DirtyTracker(machine->memory(), true), machine_(std::move(machine)) {}

KvmRingTracker::~KvmRingTracker() {
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
  }
  ended_.notify_all();
  if (reliever_.joinable()) reliever_.join();
  static_cast<void>(machine_->SetDirtyLog(false));
  machine_->ReleaseDirtyLog();
}

Status KvmRingTracker::Reset(const Cancelled&) {
  Status logging = machine_->SetDirtyLog(true);
  if (!logging.ok()) return logging;
  if (!reliever_.joinable()) reliever_ = std::thread([this] { RunReliever(); });
  DirtyBitmap old(memory()->page_count());
  return machine_->TakeRings(&old);
}

// What it cannot do the next harvest says. Before others, where it may: vCPUs can keep all
// processors busy.
void KvmRingTracker::RunReliever() {
  static_cast<void>(setpriority(PRIO_PROCESS, static_cast<id_t>(gettid()), kNice));
  std::unique_lock lock(mutex_);
  while (!ended_.wait_for(lock, kRelieveEvery, [this] { return ending_; })) {
    static_cast<void>(machine_->RelieveRings());
  }
}

Status KvmRingTracker::Collect(DirtyBitmap* found, const Cancelled&) {
  return machine_->TakeRings(found);
}

}  // namespace chkpt

#endif  // CHKPT_HAVE_KVM

// The throttle of KvmMachine: its vCPUs run and rest by turns.
#include <algorithm>
#include <chrono>

#include "core/base/check.h"
#include "core/kvm/kvm_machine.h"

#ifdef CHKPT_HAVE_KVM

namespace chkpt {
namespace {

using Milliseconds = std::chrono::duration<double, std::milli>;
// A turn is as short as a guest's own time slices, and never so short that the guest only enters
// and leaves.
constexpr Milliseconds kTurn(10);
constexpr Milliseconds kRunAtLeast(1);

}  // namespace

void KvmMachine::Throttle(double share) {
  CHKPT_CHECK(share >= 0 && share < 1);
  const std::lock_guard lock(mutex_);
  if (stopping_) return;
  throttle_ = share;
  if (share > 0 && !throttler_.joinable()) throttler_ = std::thread([this] { RunThrottler(); });
  changed_.notify_all();
}

void KvmMachine::RunThrottler() {
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    const double share = throttle_;
    if (share == 0 || paused_) {
      changed_.wait(lock, [&] { return stopping_ || (throttle_ > 0 && !paused_); });
      continue;
    }
    const auto is_over = [&] { return stopping_ || paused_ || throttle_ != share; };
    const Milliseconds run = std::max(kTurn * (1 - share), kRunAtLeast);
    if (changed_.wait_for(lock, run, is_over)) continue;
    resting_ = true;
    LeaveAll();
    changed_.wait_for(lock, run * share / (1 - share), is_over);
    resting_ = false;
    changed_.notify_all();
  }
}

bool KvmMachine::Rest(Vcpu& vcpu) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return paused_ || !resting_; });
  if (paused_) return true;
  // Nobody else wants it outside: who does sets this with the lock.
  vcpu.AskToLeave(false);
  return false;
}

}  // namespace chkpt

#endif  // CHKPT_HAVE_KVM

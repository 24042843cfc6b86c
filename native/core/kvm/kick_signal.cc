#include "core/kvm/kick_signal.h"

#include <pthread.h>
#include <signal.h>

#include "core/base/check.h"

namespace chkpt {
namespace {

void Ignore(int) {}

int Install() {
  for (int signal = SIGRTMIN + 1; signal <= SIGRTMAX; ++signal) {
    struct sigaction old = {};
    if (sigaction(signal, nullptr, &old) != 0 || old.sa_handler != SIG_DFL) continue;
    struct sigaction action = {};
    action.sa_handler = Ignore;
    sigemptyset(&action.sa_mask);
    // No SA_RESTART: KVM_RUN has to return.
    if (sigaction(signal, &action, nullptr) == 0) return signal;
  }
  return 0;
}

}  // namespace

int KickSignal() {
  static const int signal = Install();
  CHKPT_CHECK(signal != 0);
  return signal;
}

void UnblockKickSignal() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, KickSignal());
  pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
}

void Kick(std::thread& thread) { pthread_kill(thread.native_handle(), KickSignal()); }

}  // namespace chkpt

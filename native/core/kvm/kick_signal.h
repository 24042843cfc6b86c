// The signal that makes a vCPU thread leave KVM_RUN. Its handler is empty: what counts is that the
// system call is interrupted, and kvm_run::immediate_exit catches a signal that comes too early.
#pragma once

#include <thread>

namespace chkpt {

// Installs the handler at the first call: a real-time signal that nobody in the process handles
// yet. Signal dispositions belong to the process, so this is the one thing here that all
// environments share.
int KickSignal();

// For a vCPU thread: lets the signal through, whatever mask the thread has inherited.
void UnblockKickSignal();

// REQUIRES: the thread has not been joined.
void Kick(std::thread& thread);

}  // namespace chkpt

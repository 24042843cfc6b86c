// Userfault: a userfaultfd in missing mode over ranges of this process (userfaultfd(2),
// Documentation/admin-guide/mm/userfaultfd.rst). A thread that touches a missing page sleeps in the
// kernel until somebody puts the page there.
//
// Kernel-mode accesses (read(2) into guest memory, KVM) must fault too, so a descriptor that serves
// user mode only is not good enough: it is opened through /dev/userfaultfd, else with the system
// call, which wants CAP_SYS_PTRACE or vm.unprivileged_userfaultfd=1.
//
// Ownership: owns the descriptor. When it closes, the ranges are ordinary memory again: threads
// that sleep go on and find what is there, zeros where nothing is.
//
// Thread safety: all of it from any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include "core/base/result.h"

namespace chkpt {

class Userfault {
 public:
  // Errors: kPermission, kUnsupported (no userfaultfd in this kernel), kIo.
  static Result<std::unique_ptr<Userfault>> Open();
  ~Userfault();
  Userfault(const Userfault&) = delete;
  Userfault& operator=(const Userfault&) = delete;

  int fd() const { return fd_; }
  bool can_poison() const { return can_poison_; }  // Linux 6.6
  bool can_move() const { return can_move_; }      // Linux 6.8

  // Pages of the range that are missing are served from now on; those that are there stay. Errors:
  // kUnsupported (a kind of memory that cannot be registered), kIo.
  Status Register(std::uint8_t* host, std::uint64_t bytes);
  Status Unregister(std::uint8_t* host, std::uint64_t bytes);

  struct Fault {
    std::uint8_t* address = nullptr;
    std::uint32_t thread = 0;  // kernel's id of the thread that waits
  };
  // The next fault; nothing when there is none. Never waits.
  std::optional<Fault> Next();

  // Each puts pages where none are and leaves alone what is there: a page the guest has written is
  // never overwritten. All wake the threads that wait for the range. Errors: kNoMemory, kIo.
  Status Copy(std::uint8_t* target, const std::uint8_t* source, std::uint64_t bytes);
  Status Zero(std::uint8_t* target, std::uint64_t bytes);
  // Moves whole pages out of private anonymous memory of this process, huge ones as they are. What
  // could not be moved is copied.
  Status Move(std::uint8_t* target, std::uint8_t* source, std::uint64_t bytes);
  // An access is a SIGBUS from now on. REQUIRES: can_poison().
  Status Poison(std::uint8_t* target, std::uint64_t bytes);
  void Wake(std::uint8_t* target, std::uint64_t bytes);

 private:
  explicit Userfault(int fd) : fd_(fd) {}
  // Does `step(offset, bytes, &done)` over the range, one page at a time where something is there.
  template <typename Step>
  Status ForEachMissing(std::uint8_t* target, std::uint64_t bytes, Step step);

  const int fd_;
  bool can_poison_ = false;
  bool can_move_ = false;
};

}  // namespace chkpt

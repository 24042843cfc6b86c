// WriteProtector: one userfaultfd in write-protect mode. Asynchronous: a write to a protected page
// is let through by the kernel, which takes the protection off; nobody handles faults. Handled: the
// thread that writes sleeps until somebody has heard of it and takes the protection off.
//
// Source: Documentation/admin-guide/mm/userfaultfd.rst, Linux 6.7 (UFFD_FEATURE_WP_ASYNC), 5.19
// (UFFD_FEATURE_WP_HUGETLBFS_SHMEM).
//
// Ownership: owns the descriptor; closing it ends all registrations. Thread safety: any.
#pragma once

#include <cstdint>
#include <optional>

#include "core/base/result.h"

namespace chkpt {

// Addresses of this process.
struct AddressRange {
  std::uint64_t start = 0;
  std::uint64_t end = 0;
};

class WriteProtector {
 public:
  // Tries /dev/userfaultfd, the system call, and the system call for faults of user mode only,
  // which needs no permission; in asynchronous mode that makes no difference. With `removals` it
  // tells of madvise(MADV_DONTNEED, MADV_REMOVE) in its ranges: those calls wait until NextRemoval
  // has taken the news. Errors: kPermission, kUnsupported (kernel older than 6.7), each with what
  // was tried.
  static Result<WriteProtector> Open(bool removals);
  // For faults that are handled; tells of removals too. Writes of the kernel (read(2) into guest
  // memory, KVM) fault as well, so a descriptor for user mode only is not taken. Errors as Open.
  static Result<WriteProtector> OpenHandled();

  WriteProtector(WriteProtector&& other) noexcept : fd_(other.fd_) { other.fd_ = -1; }
  WriteProtector& operator=(WriteProtector&&) = delete;
  ~WriteProtector();

  int fd() const { return fd_; }

  // Errors: kUnsupported (another userfaultfd has the range, or a kind of memory that cannot be
  // protected), kPermission (mapped read-only).
  Status Register(AddressRange range);
  void Unregister(AddressRange range);
  // Protects every page. Those without memory get a marker in the page table, except, with faults
  // that are handled, in private memory.
  Status Protect(AddressRange range);
  // Takes the protection off and wakes who waits in the range. False, and nothing may be done, when
  // a removal is about to be told: it has to be heard first.
  bool TryUnprotect(AddressRange range);
  // A write that waits, or a removal. The write is told with one address.
  struct News {
    bool is_removal = false;
    AddressRange range;
  };
  // Nothing when there is no news. Never waits.
  std::optional<News> Next();
  // Nothing when there is no news. The removal itself comes after this has returned.
  std::optional<AddressRange> NextRemoval();

 private:
  explicit WriteProtector(int fd) : fd_(fd) {}
  int fd_;
};

}  // namespace chkpt

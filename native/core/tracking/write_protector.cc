#include "core/tracking/write_protector.h"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>

namespace chkpt {
namespace {

// Of Linux 6.7 and older; the headers of many distributions do not have all of them.
constexpr std::uint64_t kFeatureEventRemove = 1 << 3;
constexpr std::uint64_t kFeatureShared = 1 << 12;       // UFFD_FEATURE_WP_HUGETLBFS_SHMEM
constexpr std::uint64_t kFeatureUnpopulated = 1 << 13;  // UFFD_FEATURE_WP_UNPOPULATED
constexpr std::uint64_t kFeatureAsync = 1 << 15;        // UFFD_FEATURE_WP_ASYNC
constexpr unsigned long kNewUserfault = _IO(0xAA, 0x00);
constexpr int kUserModeOnly = 1;
constexpr int kFlags = O_CLOEXEC | O_NONBLOCK;

int ViaDevice() {
  const int device = ::open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
  if (device < 0) return -1;
  const int fd = ::ioctl(device, kNewUserfault, kFlags);
  const int error = errno;
  ::close(device);
  errno = error;
  return fd;
}

int ViaCall(int flags) { return static_cast<int>(::syscall(SYS_userfaultfd, flags)); }

Error NoDescriptor(const std::string& tried) {
  Error error = SystemError(errno, "no userfaultfd: tried " + tried);
  if (error.code != ErrorCode::kPermission) error.code = ErrorCode::kUnsupported;
  return error;
}

Result<int> OpenDescriptor(bool also_user_mode_only) {
  std::string tried = "/dev/userfaultfd";
  int fd = ViaDevice();
  if (fd >= 0) return fd;
  tried += std::string(" (") + std::strerror(errno) + "), userfaultfd()";
  fd = ViaCall(kFlags);
  if (fd >= 0) return fd;
  if (!also_user_mode_only) return NoDescriptor(tried);
  tried += std::string(" (") + std::strerror(errno) + "), userfaultfd(UFFD_USER_MODE_ONLY)";
  fd = ViaCall(kFlags | kUserModeOnly);
  if (fd >= 0) return fd;
  return NoDescriptor(tried);
}

}  // namespace

Result<WriteProtector> WriteProtector::Open(bool removals) {
  Result<int> fd = OpenDescriptor(true);
  if (!fd.ok()) return fd.error();
  WriteProtector userfault(fd.value());
  uffdio_api api = {};
  api.api = UFFD_API;
  api.features = kFeatureAsync | kFeatureUnpopulated | kFeatureShared;
  if (removals) api.features |= kFeatureEventRemove;
  if (::ioctl(fd.value(), UFFDIO_API, &api) != 0) {
    return Error{.code = ErrorCode::kUnsupported,
                 .message = "this kernel has no asynchronous write protection (Linux 6.7)",
                 .system_errno = errno};
  }
  return userfault;
}

Result<WriteProtector> WriteProtector::OpenHandled() {
  Result<int> fd = OpenDescriptor(false);
  if (!fd.ok()) return fd.error();
  WriteProtector userfault(fd.value());
  uffdio_api api = {};
  api.api = UFFD_API;
  api.features = UFFD_FEATURE_PAGEFAULT_FLAG_WP | kFeatureShared | kFeatureEventRemove;
  if (::ioctl(fd.value(), UFFDIO_API, &api) != 0) {
    return Error{.code = ErrorCode::kUnsupported,
                 .message = "this kernel has no write protection for this memory (Linux 5.19)",
                 .system_errno = errno};
  }
  return userfault;
}

WriteProtector::~WriteProtector() {
  if (fd_ >= 0) ::close(fd_);
}

Status WriteProtector::Register(AddressRange range) {
  uffdio_register request = {};
  request.range = {range.start, range.end - range.start};
  request.mode = UFFDIO_REGISTER_MODE_WP;
  if (::ioctl(fd_, UFFDIO_REGISTER, &request) == 0) return Ok();
  const int error = errno;
  if (error == EBUSY) {
    return Error{.code = ErrorCode::kUnsupported,
                 .message = "another userfaultfd (a second tracker, a lazy load) has this memory",
                 .system_errno = error};
  }
  if (error == EINVAL) {
    return Error{.code = ErrorCode::kUnsupported,
                 .message =
                     "this kind of memory cannot be write-protected: only anonymous memory, "
                     "memfd, tmpfs and hugetlb can",
                 .system_errno = error};
  }
  return SystemError(error, "UFFDIO_REGISTER");
}

void WriteProtector::Unregister(AddressRange range) {
  uffdio_range request = {range.start, range.end - range.start};
  ::ioctl(fd_, UFFDIO_UNREGISTER, &request);
  // Of memory that is write-protected only the kernel wakes nobody.
  ::ioctl(fd_, UFFDIO_WAKE, &request);
}

Status WriteProtector::Protect(AddressRange range) {
  uffdio_writeprotect request = {};
  request.range = {range.start, range.end - range.start};
  request.mode = UFFDIO_WRITEPROTECT_MODE_WP;
  while (::ioctl(fd_, UFFDIO_WRITEPROTECT, &request) != 0) {
    // EAGAIN: a removal is about to be told.
    if (errno != EAGAIN && errno != EINTR) return SystemError(errno, "UFFDIO_WRITEPROTECT");
    ::sched_yield();
  }
  return Ok();
}

bool WriteProtector::TryUnprotect(AddressRange range) {
  uffdio_writeprotect request = {};
  request.range = {range.start, range.end - range.start};
  while (::ioctl(fd_, UFFDIO_WRITEPROTECT, &request) != 0) {
    if (errno == EAGAIN) return false;
    // Unmapped meanwhile: then nobody waits there.
    if (errno != EINTR) return true;
  }
  return true;
}

std::optional<WriteProtector::News> WriteProtector::Next() {
  uffd_msg message;
  for (;;) {
    const ssize_t done = ::read(fd_, &message, sizeof message);
    if (done < 0 && errno == EINTR) continue;
    if (done != static_cast<ssize_t>(sizeof message)) return std::nullopt;
    if (message.event == UFFD_EVENT_REMOVE) {
      return News{.is_removal = true, .range = {message.arg.remove.start, message.arg.remove.end}};
    }
    if (message.event == UFFD_EVENT_PAGEFAULT) {
      return News{.range = {message.arg.pagefault.address, message.arg.pagefault.address + 1}};
    }
  }
}

std::optional<AddressRange> WriteProtector::NextRemoval() {
  while (const std::optional<News> news = Next()) {
    if (news->is_removal) return news->range;
  }
  return std::nullopt;
}

}  // namespace chkpt

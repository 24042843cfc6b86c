#include "core/lazy/userfault.h"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "core/base/units.h"

namespace chkpt {
namespace {

// Newer than the headers of older distributions. Source: include/uapi/linux/userfaultfd.h.
constexpr std::uint64_t kFeaturePoison = 1 << 14;
constexpr std::uint64_t kFeatureMove = 1 << 16;
struct PoisonArgument {
  std::uint64_t start, bytes, mode;
  std::int64_t updated;
};
struct MoveArgument {
  std::uint64_t target, source, bytes, mode;
  std::int64_t moved;
};
constexpr unsigned long kIoctlPoison = _IOWR(0xAA, 0x08, PoisonArgument);
constexpr unsigned long kIoctlMove = _IOWR(0xAA, 0x05, MoveArgument);
constexpr std::uint64_t kMoveAllowHoles = 1 << 1;
constexpr unsigned long kDeviceNew = _IO(0xAA, 0x00);

std::uint64_t AddressOf(const std::uint8_t* pointer) {
  return reinterpret_cast<std::uintptr_t>(pointer);
}

// A descriptor that serves the kernel's accesses too; -1 and errno.
int OpenDescriptor() {
  const int device = ::open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
  if (device >= 0) {
    const int fd = ::ioctl(device, kDeviceNew, O_CLOEXEC | O_NONBLOCK);
    ::close(device);
    if (fd >= 0) return fd;
  }
  return static_cast<int>(::syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK));
}

// Features are refused one set at a time: asking for one that the kernel lacks fails as a whole.
bool Agree(int fd, std::uint64_t features, std::uint64_t* granted) {
  uffdio_api api = {};
  api.api = UFFD_API;
  api.features = features;
  if (::ioctl(fd, UFFDIO_API, &api) != 0) return false;
  *granted = api.features;
  return true;
}

}  // namespace

Result<std::unique_ptr<Userfault>> Userfault::Open() {
  constexpr std::uint64_t kNeeded = UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_THREAD_ID;
  for (const std::uint64_t extra :
       {kFeaturePoison | kFeatureMove, kFeaturePoison, std::uint64_t{0}}) {
    const int fd = OpenDescriptor();
    if (fd < 0) {
      if (errno == ENOSYS) {
        return Error{.code = ErrorCode::kUnsupported, .message = "the kernel has no userfaultfd"};
      }
      return SystemError(errno, "opening a userfaultfd that serves the kernel too");
    }
    std::unique_ptr<Userfault> userfault(new Userfault(fd));
    std::uint64_t granted = 0;
    if (!Agree(fd, kNeeded | extra, &granted)) continue;
    userfault->can_poison_ = (extra & granted & kFeaturePoison) != 0;
    userfault->can_move_ = (extra & granted & kFeatureMove) != 0;
    return userfault;
  }
  return Error{.code = ErrorCode::kUnsupported,
               .message = "the userfaultfd of this kernel cannot serve missing pages"};
}

Userfault::~Userfault() { ::close(fd_); }

Status Userfault::Register(std::uint8_t* host, std::uint64_t bytes) {
  uffdio_register argument = {};
  argument.range = {AddressOf(host), bytes};
  argument.mode = UFFDIO_REGISTER_MODE_MISSING;
  if (::ioctl(fd_, UFFDIO_REGISTER, &argument) != 0) {
    if (errno != EINVAL && errno != EBUSY) return SystemError(errno, "registering guest memory");
    return Error{.code = ErrorCode::kUnsupported,
                 .message = "this memory cannot be registered with userfaultfd",
                 .system_errno = errno};
  }
  constexpr std::uint64_t kWanted =
      (std::uint64_t{1} << _UFFDIO_COPY) | (std::uint64_t{1} << _UFFDIO_ZEROPAGE);
  if ((argument.ioctls & kWanted) == kWanted) return Ok();
  static_cast<void>(Unregister(host, bytes));
  return Error{.code = ErrorCode::kUnsupported,
               .message = "pages of this memory cannot be served by userfaultfd"};
}

Status Userfault::Unregister(std::uint8_t* host, std::uint64_t bytes) {
  uffdio_range range = {AddressOf(host), bytes};
  const int result = ::ioctl(fd_, UFFDIO_UNREGISTER, &range);
  const int failure = errno;
  // The kernel wakes who sleeps before it takes the range away (mm/userfaultfd, 6.18): a thread
  // that faults in between falls asleep for good.
  Wake(host, bytes);
  if (result == 0) return Ok();
  return SystemError(failure, "giving guest memory back from userfaultfd");
}

std::optional<Userfault::Fault> Userfault::Next() {
  uffd_msg message = {};
  for (;;) {
    const ssize_t bytes = ::read(fd_, &message, sizeof message);
    if (bytes < 0 && errno == EINTR) continue;
    if (bytes != static_cast<ssize_t>(sizeof message)) return std::nullopt;
    if (message.event != UFFD_EVENT_PAGEFAULT) continue;
    return Fault{.address = reinterpret_cast<std::uint8_t*>(message.arg.pagefault.address),
                 .thread = message.arg.pagefault.feat.ptid};
  }
}

template <typename Step>
Status Userfault::ForEachMissing(std::uint8_t* target, std::uint64_t bytes, Step step) {
  std::uint64_t offset = 0;
  while (offset < bytes) {
    std::int64_t done = 0;
    if (step(offset, bytes - offset, &done) == 0) return Ok();
    const int failure = errno;
    if (done > 0) offset += static_cast<std::uint64_t>(done);
    if (failure == EAGAIN || failure == EINTR) continue;  // the address space changes just now
    if (failure == EEXIST) {
      // Only up to the first page that is there was anything done, and anybody woken.
      if (done <= 0) {
        Wake(target + offset, kPageBytes);
        offset += kPageBytes;
      }
      continue;
    }
    return SystemError(failure, "putting pages into guest memory");
  }
  return Ok();
}

Status Userfault::Copy(std::uint8_t* target, const std::uint8_t* source, std::uint64_t bytes) {
  return ForEachMissing(target, bytes,
                        [&](std::uint64_t at, std::uint64_t left, std::int64_t* done) {
                          uffdio_copy argument = {};
                          argument.dst = AddressOf(target) + at;
                          argument.src = AddressOf(source) + at;
                          argument.len = left;
                          const int result = ::ioctl(fd_, UFFDIO_COPY, &argument);
                          *done = argument.copy;
                          return result;
                        });
}

Status Userfault::Zero(std::uint8_t* target, std::uint64_t bytes) {
  return ForEachMissing(target, bytes,
                        [&](std::uint64_t at, std::uint64_t left, std::int64_t* done) {
                          uffdio_zeropage argument = {};
                          argument.range = {AddressOf(target) + at, left};
                          const int result = ::ioctl(fd_, UFFDIO_ZEROPAGE, &argument);
                          *done = argument.zeropage;
                          return result;
                        });
}

Status Userfault::Move(std::uint8_t* target, std::uint8_t* source, std::uint64_t bytes) {
  MoveArgument argument = {AddressOf(target), AddressOf(source), bytes, kMoveAllowHoles, 0};
  while (::ioctl(fd_, kIoctlMove, &argument) != 0) {
    // Whatever stands in its way (a page that is there, a page somebody looks at), copying can do.
    const std::uint64_t moved = argument.moved > 0 ? static_cast<std::uint64_t>(argument.moved) : 0;
    argument.target += moved;
    argument.source += moved;
    argument.bytes -= moved;
    argument.moved = 0;
    if (errno == EAGAIN && moved > 0) continue;
    const std::uint64_t at = bytes - argument.bytes;
    return Copy(target + at, source + at, argument.bytes);
  }
  return Ok();
}

Status Userfault::Poison(std::uint8_t* target, std::uint64_t bytes) {
  return ForEachMissing(target, bytes,
                        [&](std::uint64_t at, std::uint64_t left, std::int64_t* done) {
                          PoisonArgument argument = {AddressOf(target) + at, left, 0, 0};
                          const int result = ::ioctl(fd_, kIoctlPoison, &argument);
                          *done = argument.updated;
                          return result;
                        });
}

void Userfault::Wake(std::uint8_t* target, std::uint64_t bytes) {
  uffdio_range range = {AddressOf(target), bytes};
  static_cast<void>(::ioctl(fd_, UFFDIO_WAKE, &range));
}

}  // namespace chkpt

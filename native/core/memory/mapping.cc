#include "core/memory/mapping.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <string>

#include "core/memory/guest_copy.h"

namespace chkpt {
namespace {

// <linux/mman.h> and <linux/memfd.h> clash with the C library's headers or are older than these.
constexpr int kMapHuge2Mb = 21 << 26;           // MAP_HUGE_2MB
constexpr unsigned kMemfdNoExecSeal = 0x0008U;  // MFD_NOEXEC_SEAL, Linux 6.3

constexpr std::uint64_t RoundUp(std::uint64_t value, std::uint64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

std::uint8_t* Map(void* address, std::uint64_t bytes, int protection, int flags, int fd,
                  std::uint64_t offset) {
  void* const mapped = ::mmap(address, bytes, protection, flags, fd, static_cast<off_t>(offset));
  return mapped == MAP_FAILED ? nullptr : static_cast<std::uint8_t*>(mapped);
}

// Address space of `bytes`, aligned to 2 MiB; null with errno set. Takes 2 MiB more and unmaps what
// is outside.
std::uint8_t* MapAligned(std::uint64_t bytes, int protection) {
  std::uint8_t* const start = Map(nullptr, bytes + kHugePageBytes, protection,
                                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (start == nullptr) return nullptr;
  const std::uint64_t address = reinterpret_cast<std::uintptr_t>(start);
  const std::uint64_t head = RoundUp(address, kHugePageBytes) - address;
  if (head > 0) ::munmap(start, head);
  if (head < kHugePageBytes) ::munmap(start + head + bytes, kHugePageBytes - head);
  return start + head;
}

Error MapError(int system_errno, std::uint64_t bytes, const char* kind) {
  return SystemError(system_errno,
                     "mapping " + std::to_string(bytes) + " bytes of " + kind + " memory");
}

Status KeepOutOfForksAndDumps(std::uint8_t* host, std::uint64_t bytes) {
  if (::madvise(host, bytes, MADV_DONTFORK) != 0 || ::madvise(host, bytes, MADV_DONTDUMP) != 0) {
    return SystemError(errno, "keeping guest memory out of forks and core dumps");
  }
  return Ok();
}

// Gives `host` back or, when it cannot be kept out of forks, unmaps it.
Result<std::uint8_t*> Finish(std::uint8_t* host, std::uint64_t bytes, bool huge_pages) {
  Status kept = KeepOutOfForksAndDumps(host, bytes);
  if (!kept.ok()) {
    Unmap(host, bytes);
    return kept.error();
  }
  // A wish: a kernel without transparent huge pages refuses it, and memory works all the same.
  if (huge_pages) static_cast<void>(::madvise(host, bytes, MADV_HUGEPAGE));
  return host;
}

// Free huge pages of 2 MiB, -1 if the kernel does not say.
long FreeHugePages() {
  long count = -1;
  std::FILE* const file =
      std::fopen("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "re");
  if (file == nullptr) return count;
  if (std::fscanf(file, "%ld", &count) != 1) count = -1;
  std::fclose(file);
  return count;
}

int CreateMemfd() {
  // Without the flag newer kernels warn, or refuse when vm.memfd_noexec is 2; older kernels do not
  // know it.
  constexpr unsigned kFlags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
  const int fd = ::memfd_create("chkpt-guest", kFlags | kMemfdNoExecSeal);
  return fd >= 0 || errno != EINVAL ? fd : ::memfd_create("chkpt-guest", kFlags);
}

}  // namespace

std::uint64_t SystemPageBytes() {
  static const std::uint64_t bytes = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
  return bytes;
}

Result<std::uint8_t*> MapAnonymous(std::uint64_t bytes, bool huge_pages) {
  std::uint8_t* const host = MapAligned(bytes, PROT_READ | PROT_WRITE);
  if (host == nullptr) return MapError(errno, bytes, "anonymous");
  return Finish(host, bytes, huge_pages);
}

Result<std::uint8_t*> MapHugetlb(std::uint64_t bytes) {
  if (bytes % kHugePageBytes != 0) {
    return Error{.code = ErrorCode::kFormat,
                 .message = "a hugetlb region of " + std::to_string(bytes) +
                            " bytes is not a multiple of 2 MiB"};
  }
  std::uint8_t* const host = Map(nullptr, bytes, PROT_READ | PROT_WRITE,
                                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | kMapHuge2Mb, -1, 0);
  if (host == nullptr) {
    const int system_errno = errno;
    if (system_errno != ENOMEM) return MapError(system_errno, bytes, "hugetlb");
    return Error{.code = ErrorCode::kNoMemory,
                 .message = "no huge pages reserved: a region needs " +
                            std::to_string(bytes / kHugePageBytes) + " of 2 MiB, free are " +
                            std::to_string(FreeHugePages()) + "; raise /proc/sys/vm/nr_hugepages",
                 .system_errno = system_errno};
  }
  return Finish(host, bytes, false);
}

Result<MemfdMapping> MapMemfd(std::uint64_t bytes, bool huge_pages) {
  const int fd = CreateMemfd();
  if (fd < 0) return SystemError(errno, "creating a memfd");
  if (::ftruncate(fd, static_cast<off_t>(bytes)) != 0 ||
      ::fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) != 0) {
    const int system_errno = errno;
    ::close(fd);
    return MapError(system_errno, bytes, "memfd");
  }
  std::uint8_t* const space = MapAligned(bytes, PROT_NONE);
  std::uint8_t* const host = space == nullptr ? nullptr
                                              : Map(space, bytes, PROT_READ | PROT_WRITE,
                                                    MAP_SHARED | MAP_FIXED | MAP_NORESERVE, fd, 0);
  if (host == nullptr) {
    const int system_errno = errno;
    if (space != nullptr) Unmap(space, bytes);
    ::close(fd);
    return MapError(system_errno, bytes, "memfd");
  }
  Result<std::uint8_t*> finished = Finish(host, bytes, huge_pages);
  if (!finished.ok()) {
    ::close(fd);
    return finished.error();
  }
  return MemfdMapping{host, fd};
}

Result<std::uint8_t*> MapFile(int fd, std::uint64_t offset, std::uint64_t bytes, bool writable) {
  const int protection = writable ? PROT_READ | PROT_WRITE : PROT_READ;
  // Without MAP_NORESERVE: on hugetlbfs that would trade an error now for a SIGBUS later.
  std::uint8_t* const host = Map(nullptr, bytes, protection, MAP_SHARED, fd, offset);
  if (host == nullptr) return MapError(errno, bytes, "file");
  return Finish(host, bytes, false);
}

Result<std::uint8_t*> MapFilePrivately(int fd, std::uint64_t offset, std::uint64_t bytes) {
  std::uint8_t* const space = MapAligned(bytes, PROT_NONE);
  std::uint8_t* const host = space == nullptr
                                 ? nullptr
                                 : Map(space, bytes, PROT_READ | PROT_WRITE,
                                       MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, fd, offset);
  if (host == nullptr) {
    const int system_errno = errno;
    if (space != nullptr) Unmap(space, bytes);
    return MapError(system_errno, bytes, "private file");
  }
  return Finish(host, bytes, false);
}

void Unmap(std::uint8_t* host, std::uint64_t bytes) { CHKPT_CHECK(::munmap(host, bytes) == 0); }

void DiscardAnonymous(std::uint8_t* host, std::uint64_t bytes) {
  // madvise would round a length that is no multiple of the system's page size up, into pages that
  // are not ours to clear.
  const std::uint64_t page_bytes = SystemPageBytes();
  const std::uint64_t address = reinterpret_cast<std::uintptr_t>(host);
  const std::uint64_t head = RoundUp(address, page_bytes) - address;
  if (head >= bytes) return ZeroGuest(host, bytes);
  const std::uint64_t whole = (bytes - head) / page_bytes * page_bytes;
  ZeroGuest(host, head);
  ZeroGuest(host + head + whole, bytes - head - whole);
  // Locked memory cannot be given back.
  if (whole > 0 && ::madvise(host + head, whole, MADV_DONTNEED) != 0) ZeroGuest(host + head, whole);
}

}  // namespace chkpt

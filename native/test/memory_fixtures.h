// What the suites of guest memory share: files that vanish, the pool of huge pages, random bytes.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/loop.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "core/memory/guest_memory.h"

namespace chkpt {

inline constexpr std::uint64_t kMiB = std::uint64_t{1} << 20;
inline constexpr std::uint64_t kGiB = std::uint64_t{1} << 30;
inline constexpr std::uint64_t kTiB = std::uint64_t{1} << 40;

using Bytes = std::vector<std::uint8_t>;
using Memory = std::shared_ptr<GuestMemory>;

// No byte is zero.
inline Bytes RandomBytes(std::size_t count, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  Bytes bytes(count);
  for (std::uint8_t& byte : bytes) byte = static_cast<std::uint8_t>(random() | 1);
  return bytes;
}

// A file without a name in /tmp, or on tmpfs as a memfd; closed at the end.
class TestFile {
 public:
  explicit TestFile(std::uint64_t bytes, bool on_disk = false) {
    char path[] = "/tmp/chkpt-test-XXXXXX";
    fd_ = on_disk ? ::mkstemp(path) : ::memfd_create("chkpt-test", MFD_CLOEXEC);
    if (on_disk) ::unlink(path);
    EXPECT_GE(fd_, 0);
    EXPECT_EQ(::ftruncate(fd_, static_cast<off_t>(bytes)), 0);
  }
  ~TestFile() { ::close(fd_); }
  TestFile(const TestFile&) = delete;
  TestFile& operator=(const TestFile&) = delete;

  int fd() const { return fd_; }
  struct stat Stat() const {
    struct stat status = {};
    EXPECT_EQ(::fstat(fd_, &status), 0);
    return status;
  }
  // A second descriptor of this file with other open flags.
  int Reopen(int flags) const {
    return ::open(("/proc/self/fd/" + std::to_string(fd_)).c_str(), flags | O_CLOEXEC);
  }

 private:
  int fd_;
};

// Raises the number of 2 MiB pages in the pool and puts the old one back. Test processes that run
// at the same time wait for each other, so that the last one puts the right number back.
class HugePagePool {
 public:
  explicit HugePagePool(long more) : lock_(::open(kPath, O_RDONLY | O_CLOEXEC)) {
    if (lock_ < 0) return;
    static_cast<void>(::flock(lock_, LOCK_EX));
    before_ = ReadCount(kPath);
    std::ofstream(kPath) << before_ + more;
  }
  ~HugePagePool() {
    if (lock_ < 0) return;
    std::ofstream(kPath) << before_;
    ::close(lock_);
  }
  HugePagePool(const HugePagePool&) = delete;
  HugePagePool& operator=(const HugePagePool&) = delete;

  static long FreeCount() {
    return ReadCount("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages");
  }

 private:
  static constexpr const char* kPath = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages";
  static long ReadCount(const char* path) {
    long count = -1;
    std::ifstream(path) >> count;
    return count;
  }

  const int lock_;
  long before_ = 0;
};

// A loop device over a file, for tests that need a block device. Takes root; ok() is false without.
// The kernel detaches it at the last close, so a test process that dies leaves none behind.
class LoopDevice {
 public:
  explicit LoopDevice(int backing_fd) {
    const int control = ::open("/dev/loop-control", O_RDWR | O_CLOEXEC);
    if (control < 0) return;
    const int number = ::ioctl(control, LOOP_CTL_GET_FREE);
    ::close(control);
    fd_ = ::open(("/dev/loop" + std::to_string(number)).c_str(), O_RDWR | O_CLOEXEC);
    loop_config config = {};
    config.fd = static_cast<std::uint32_t>(backing_fd);
    config.info.lo_flags = LO_FLAGS_AUTOCLEAR;
    if (fd_ >= 0 && ::ioctl(fd_, LOOP_CONFIGURE, &config) != 0) {
      ::close(fd_);
      fd_ = -1;
    }
  }
  ~LoopDevice() {
    if (fd_ >= 0) ::close(fd_);
  }
  LoopDevice(const LoopDevice&) = delete;
  LoopDevice& operator=(const LoopDevice&) = delete;

  bool ok() const { return fd_ >= 0; }
  int fd() const { return fd_; }

 private:
  int fd_ = -1;
};

template <typename T>
ErrorCode CodeOf(T result) {
  EXPECT_FALSE(result.ok());
  if (result.ok()) return ErrorCode::kInternal;
  EXPECT_FALSE(result.error().message.empty());
  return result.error().code;
}

inline Memory MustAllocate(std::vector<RegionSpec> specs, Backing backing, bool huge_pages = true) {
  Result<Memory> memory =
      GuestMemory::Allocate(specs, {.backing = backing, .huge_pages = huge_pages});
  EXPECT_TRUE(memory.ok()) << (memory.ok() ? "" : memory.error().message);
  return memory.ok() ? memory.value() : nullptr;
}

inline int CountDescriptors() {
  int count = 0;
  for (int fd = 0; fd < 1024; ++fd) count += ::fcntl(fd, F_GETFD) >= 0 ? 1 : 0;
  return count;
}

}  // namespace chkpt

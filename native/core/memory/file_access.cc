#include "core/memory/file_access.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <string>
#include <vector>

#include "core/memory/guest_memory.h"

namespace chkpt {
namespace {

// Linux moves at most 0x7ffff000 bytes in one call; a rounder piece keeps offsets aligned.
constexpr std::size_t kTransferBytesMax = std::size_t{1} << 30;
constexpr std::size_t kZeroBytes = std::size_t{256} << 10;

Error FileError(int system_errno, const char* what, std::uint64_t offset) {
  Error error =
      SystemError(system_errno, std::string(what) + " at offset " + std::to_string(offset));
  error.offset = offset;
  return error;
}

Result<std::uint64_t> Seek(int fd, std::uint64_t offset, int whence) {
  const off_t found = ::lseek(fd, static_cast<off_t>(offset), whence);
  if (found >= 0) return static_cast<std::uint64_t>(found);
  if (errno == ENXIO) return kUnknown;
  return FileError(errno, "finding holes of a memory file", offset);
}

}  // namespace

Status ReadAll(int fd, std::uint64_t offset, std::span<std::uint8_t> target) {
  while (!target.empty()) {
    const std::size_t piece = std::min(target.size(), kTransferBytesMax);
    const ssize_t done = ::pread(fd, target.data(), piece, static_cast<off_t>(offset));
    if (done < 0) {
      if (errno == EINTR) continue;
      return FileError(errno, "reading a memory file", offset);
    }
    if (done == 0) {
      return Error{.code = ErrorCode::kMemoryShort,
                   .message = "the memory file ends at offset " + std::to_string(offset) + ", " +
                              std::to_string(target.size()) + " bytes too early",
                   .offset = offset};
    }
    offset += static_cast<std::uint64_t>(done);
    target = target.subspan(static_cast<std::size_t>(done));
  }
  return Ok();
}

Status WriteAll(int fd, std::uint64_t offset, std::span<const std::uint8_t> source) {
  while (!source.empty()) {
    const std::size_t piece = std::min(source.size(), kTransferBytesMax);
    const ssize_t done = ::pwrite(fd, source.data(), piece, static_cast<off_t>(offset));
    if (done < 0 && errno == EINTR) continue;
    // A write that returns 0 makes no progress and sets no errno.
    if (done <= 0) return FileError(done < 0 ? errno : EIO, "writing a memory file", offset);
    offset += static_cast<std::uint64_t>(done);
    source = source.subspan(static_cast<std::size_t>(done));
  }
  return Ok();
}

Result<std::uint64_t> FileBytes(int fd) {
  struct stat status;
  if (::fstat(fd, &status) != 0) return SystemError(errno, "asking for the size of a memory file");
  if (S_ISREG(status.st_mode)) return static_cast<std::uint64_t>(status.st_size);
  if (S_ISBLK(status.st_mode)) {
    std::uint64_t bytes = 0;
    if (::ioctl(fd, BLKGETSIZE64, &bytes) == 0) return bytes;
    return SystemError(errno, "asking for the size of a block device");
  }
  return Error{.code = ErrorCode::kUnsupported,
               .message = "a memory file must be a regular file or a block device"};
}

Result<std::uint64_t> NextData(int fd, std::uint64_t offset) { return Seek(fd, offset, SEEK_DATA); }

Result<std::uint64_t> NextHole(int fd, std::uint64_t offset) { return Seek(fd, offset, SEEK_HOLE); }

bool PunchHole(int fd, std::uint64_t offset, std::uint64_t bytes) {
  for (;;) {
    if (::fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(offset),
                    static_cast<off_t>(bytes)) == 0) {
      return true;
    }
    if (errno != EINTR) return false;
  }
}

Status WriteZeros(int fd, std::uint64_t offset, std::uint64_t bytes) {
  const std::vector<std::uint8_t> zeros(
      static_cast<std::size_t>(std::min<std::uint64_t>(bytes, kZeroBytes)));
  while (bytes > 0) {
    const std::uint64_t piece = std::min<std::uint64_t>(bytes, zeros.size());
    Status written = WriteAll(fd, offset, std::span(zeros).first(static_cast<std::size_t>(piece)));
    if (!written.ok()) return written;
    offset += piece;
    bytes -= piece;
  }
  return Ok();
}

}  // namespace chkpt

#include "core/parallel/slab_output.h"

#include <fcntl.h>

#include <cerrno>

#include "core/memory/guest_memory.h"

namespace chkpt {

Result<std::shared_ptr<SlabOutput>> SlabOutput::Open(int fd, std::uint64_t position) {
  OwnedFd own(::fcntl(fd, F_DUPFD_CLOEXEC, 0));
  if (own.get() < 0) return SystemError(errno, "duplicating the descriptor of an output");
  return std::shared_ptr<SlabOutput>(new SlabOutput(std::move(own), position));
}

std::shared_ptr<SlabOutput> SlabOutput::Discard() {
  return std::shared_ptr<SlabOutput>(new SlabOutput(OwnedFd(), 0));
}

Status SlabOutput::Write(std::uint64_t offset, std::span<const std::uint8_t> bytes) const {
  if (file_.get() < 0) return Ok();
  Status written = WriteAll(file_.get(), position_ + offset, bytes);
  if (written.ok()) {
    StartWriteback(position_ + offset, bytes.size());
    return written;
  }
  return SystemError(written.error().system_errno, "writing guest memory");
}

// Pages that are not whole are left to the flush at the end: the slab beside them writes them
// again.
void SlabOutput::StartWriteback(std::uint64_t offset, std::size_t bytes) const {
  const std::uint64_t begin = (offset + kPageBytes - 1) / kPageBytes * kPageBytes;
  const std::uint64_t end = (offset + bytes) / kPageBytes * kPageBytes;
  if (begin >= end) return;
  // What goes wrong is an error of the flush too.
  (void)::sync_file_range(file_.get(), static_cast<off_t>(begin), static_cast<off_t>(end - begin),
                          SYNC_FILE_RANGE_WRITE);
}

}  // namespace chkpt

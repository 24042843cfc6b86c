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
  if (written.ok()) return written;
  return SystemError(written.error().system_errno, "writing guest memory");
}

}  // namespace chkpt

#include "core/lazy/block_source.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "core/memory/guest_memory.h"

namespace chkpt {

Result<std::unique_ptr<ExtentSource>> ExtentSource::Open(std::span<const Extent> extents) {
  std::unique_ptr<ExtentSource> source(new ExtentSource());
  for (const Extent& extent : extents) {
    if (extent.bytes > kMemoryBytesMax - source->byte_count() ||
        extent.fd_offset > static_cast<std::uint64_t>(INT64_MAX) - kMemoryBytesMax) {
      return Error{.code = ErrorCode::kFormat, .message = "an impossible extent of a store"};
    }
    Extent own = extent;
    if (extent.fd >= 0) {
      auto& file = source->files_[extent.fd];
      if (file.get() < 0) file = OwnedFd(::fcntl(extent.fd, F_DUPFD_CLOEXEC, 0));
      if (file.get() < 0) return SystemError(errno, "duplicating a descriptor of the store");
      own.fd = file.get();
    }
    source->extents_.push_back(own);
    source->starts_.push_back(source->byte_count() + extent.bytes);
  }
  return source;
}

Status ExtentSource::Read(std::uint64_t offset, std::span<std::uint8_t> target) {
  const auto behind = std::upper_bound(starts_.begin(), starts_.end(), offset);
  std::size_t index = static_cast<std::size_t>(behind - starts_.begin()) - 1;
  while (!target.empty()) {
    if (index >= extents_.size()) {
      return Error{
          .code = ErrorCode::kTruncated, .message = "the stream ends early", .offset = offset};
    }
    const Extent& extent = extents_[index];
    const std::uint64_t at = offset - starts_[index];
    const std::size_t bytes =
        static_cast<std::size_t>(std::min<std::uint64_t>(target.size(), extent.bytes - at));
    if (extent.source != nullptr) {
      Status status = extent.source->Read(at, target.first(bytes));
      if (!status.ok()) {
        status.error().offset = offset;
        return status;
      }
    } else if (extent.fd < 0) {
      if (bytes != 0) std::memcpy(target.data(), extent.memory + at, bytes);
    } else {
      Status status = ReadAll(extent.fd, extent.fd_offset + at, target.first(bytes));
      if (!status.ok()) {
        Error error = std::move(status.error());
        if (error.code == ErrorCode::kMemoryShort) {
          error = {.code = ErrorCode::kTruncated, .message = "a file of the store became shorter"};
        }
        error.offset = offset;
        return error;
      }
    }
    target = target.subspan(bytes);
    offset += bytes;
    ++index;
  }
  return Ok();
}

std::span<const std::uint8_t> ExtentSource::View(std::uint64_t offset, std::size_t bytes) {
  const auto behind = std::upper_bound(starts_.begin(), starts_.end(), offset);
  const std::size_t index = static_cast<std::size_t>(behind - starts_.begin()) - 1;
  if (index >= extents_.size()) return {};
  const Extent& extent = extents_[index];
  const std::uint64_t at = offset - starts_[index];
  if (extent.memory == nullptr || bytes > extent.bytes - at) return {};
  return {extent.memory + at, bytes};
}

}  // namespace chkpt

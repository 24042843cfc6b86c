#include "core/memory/range_file.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <span>
#include <vector>

#include "core/base/units.h"
#include "core/memory/file_access.h"
#include "core/memory/presence.h"

namespace chkpt {
namespace {

constexpr std::uint64_t kBufferPages = (1u << 20) / kPageBytes;

Error OutsideError() {
  return {.code = ErrorCode::kFormat, .message = "the range is not made of pages of this memory"};
}

Error AbortedError() { return {.code = ErrorCode::kAborted, .message = "cancelled"}; }

// REQUIRES: not empty.
bool IsZero(std::span<const std::uint8_t> bytes) {
  return bytes[0] == 0 && std::memcmp(bytes.data(), bytes.data() + 1, bytes.size() - 1) == 0;
}

// Calls `visit(offset, bytes)` for what is not zero, in units of `unit` bytes, as long as can be.
template <typename Visit>
Status ForEachContent(std::span<const std::uint8_t> bytes, std::size_t unit, Visit visit) {
  for (std::size_t at = 0; at < bytes.size();) {
    std::size_t end = at;
    while (end < bytes.size()) {
      const std::size_t next = std::min(end + unit, bytes.size());
      if (IsZero(bytes.subspan(end, next - end))) break;
      end = next;
    }
    if (end > at) {
      Status visited = visit(at, bytes.subspan(at, end - at));
      if (!visited.ok()) return visited;
    }
    at = end + unit;
  }
  return Ok();
}

// Calls `visit(region, run, offset)` for each part of the range that lies in one region: its pages,
// and its first byte's offset in the range. Everything is checked before the first call.
template <typename Visit>
Status ForEachRun(const GuestMemory& memory, std::uint64_t address, std::uint64_t bytes,
                  Visit visit) {
  if (address % kPageBytes != 0 || bytes % kPageBytes != 0 || address + bytes < address) {
    return OutsideError();
  }
  std::uint64_t covered = 0;
  for (const bool is_checking : {true, false}) {
    for (const Region& region : memory.regions()) {
      const std::uint64_t first = std::max(address, region.base);
      const std::uint64_t end = std::min(address + bytes, region.base + region.bytes);
      if (first >= end) continue;
      if (is_checking) {
        covered += end - first;
        continue;
      }
      const PageRun run{region.first_page + (first - region.base) / kPageBytes,
                        (end - first) / kPageBytes};
      Status visited = visit(region, run, first - address);
      if (!visited.ok()) return visited;
    }
    if (covered != bytes) return OutsideError();
  }
  return Ok();
}

}  // namespace

Status CopyRangeToFile(const GuestMemory& memory, std::uint64_t address, std::uint64_t bytes,
                       int fd, std::uint64_t position, const std::atomic<bool>& cancelled) {
  const PresenceFinder finder;
  const auto buffer = std::make_unique<std::uint8_t[]>(kBufferPages * kPageBytes);
  std::vector<PageRun> present;
  Status copied = ForEachRun(
      memory, address, bytes, [&](const Region& region, PageRun run, std::uint64_t offset) {
        for (std::uint64_t done = 0; done < run.count; done += kBufferPages) {
          if (cancelled) return Status(AbortedError());
          const PageRun part{run.first + done, std::min(kBufferPages, run.count - done)};
          finder.PresentRuns(region, part, &present);
          for (const PageRun& pages : present) {
            Status read = memory.CopyOut(pages, buffer.get());
            if (!read.ok()) return read;
            const std::span<const std::uint8_t> content(buffer.get(), pages.count * kPageBytes);
            const std::uint64_t place = position + offset + (pages.first - run.first) * kPageBytes;
            // Holes of less than a block are not worth a call.
            Status written = ForEachContent(
                content, kBlockBytes, [&](std::size_t at, std::span<const std::uint8_t> filled) {
                  return WriteAll(fd, place + at, filled);
                });
            if (!written.ok()) return written;
          }
        }
        return Ok();
      });
  if (!copied.ok()) return copied;
  struct stat status;
  if (fstat(fd, &status) != 0) return SystemError(errno, "cannot read the length of the file");
  const std::uint64_t end = position + bytes;
  if (static_cast<std::uint64_t>(status.st_size) >= end) return Ok();
  if (ftruncate(fd, static_cast<off_t>(end)) == 0) return Ok();
  return SystemError(errno, "cannot extend the file");
}

Status CopyRangeFromFile(GuestMemory& memory, std::uint64_t address, std::uint64_t bytes, int fd,
                         std::uint64_t position, const std::atomic<bool>& cancelled) {
  Status legal = ForEachRun(memory, address, bytes,
                            [](const Region&, PageRun, std::uint64_t) { return Ok(); });
  if (!legal.ok()) return legal;
  auto size = FileBytes(fd);
  if (!size.ok()) return size.error();
  if (size.value() < position || size.value() - position < bytes) {
    return Error{.code = ErrorCode::kMemoryShort, .message = "the file ends before the range does"};
  }
  const auto buffer = std::make_unique<std::uint8_t[]>(kBufferPages * kPageBytes);
  for (std::uint64_t done = 0; done < bytes;) {
    if (cancelled) return AbortedError();
    // A file system that cannot tell holes is read.
    const auto data = NextData(fd, position + done);
    if (data.ok() && data.value() >= position + bytes) return Ok();
    if (data.ok() && data.value() > position + done) {
      done = (data.value() - position) / kPageBytes * kPageBytes;
    }
    const std::uint64_t count = std::min(kBufferPages * kPageBytes, bytes - done);
    Status read = ReadAll(fd, position + done, {buffer.get(), count});
    if (!read.ok()) return read;
    Status written = ForEachContent({buffer.get(), count}, kPageBytes,
                                    [&](std::size_t at, std::span<const std::uint8_t> part) {
                                      return memory.Write(address + done + at, part);
                                    });
    if (!written.ok()) return written;
    done += count;
  }
  return Ok();
}

}  // namespace chkpt

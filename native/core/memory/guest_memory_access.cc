// Reading, writing and zeroing guest memory, by pointer where a region is mapped and by file access
// where it is not.
#include <algorithm>
#include <atomic>
#include <cinttypes>
#include <cstdio>

#include "core/memory/file_access.h"
#include "core/memory/guest_copy.h"
#include "core/memory/guest_memory.h"
#include "core/memory/mapping.h"

namespace chkpt {
namespace {

Error RangeError(std::uint64_t address, std::size_t bytes, const char* what) {
  char text[160];
  std::snprintf(text, sizeof text, "guest-physical range 0x%" PRIx64 " of %zu bytes %s", address,
                bytes, what);
  return Error{.code = ErrorCode::kFormat, .message = text};
}

Error ReadOnlyError(const Region& region) {
  char text[96];
  std::snprintf(text, sizeof text, "the region at 0x%" PRIx64 " is read-only", region.base);
  return Error{.code = ErrorCode::kPermission, .message = text, .page = region.first_page};
}

Error NoMemoryBehindError() {
  return Error{.code = ErrorCode::kUnsupported,
               .message = "this memory is only described; nothing is behind it"};
}

// Bytes at `offset` of the region, by memcpy or pread. REQUIRES: inside the region.
Status ReadRegion(const Region& region, std::uint64_t offset, std::span<std::uint8_t> target) {
  if (region.host != nullptr) {
    CopyGuest(target.data(), region.host + offset, target.size());
    return Ok();
  }
  if (region.fd < 0) return NoMemoryBehindError();
  Status done = ReadAll(region.fd, region.fd_offset + offset, target);
  if (!done.ok()) done.error().page = region.first_page + offset / kPageBytes;
  return done;
}

Status WriteRegion(const Region& region, std::uint64_t offset,
                   std::span<const std::uint8_t> source) {
  if (!region.writable) return ReadOnlyError(region);
  if (region.host != nullptr) {
    CopyGuest(region.host + offset, source.data(), source.size());
    return Ok();
  }
  Status done = WriteAll(region.fd, region.fd_offset + offset, source);
  if (!done.ok()) done.error().page = region.first_page + offset / kPageBytes;
  return done;
}

Status ZeroRegion(const Region& region, std::uint64_t offset, std::uint64_t bytes) {
  if (region.backing == Backing::kAnonymous) {
    DiscardAnonymous(region.host + offset, bytes);
    return Ok();
  }
  if (region.fd >= 0 && PunchHole(region.fd, region.fd_offset + offset, bytes)) return Ok();
  // Attached memory may be anything, and parts of huge pages of a pool cannot be given back.
  if (region.host != nullptr) {
    ZeroGuest(region.host + offset, bytes);
    return Ok();
  }
  return WriteZeros(region.fd, region.fd_offset + offset, bytes);
}

// Calls `visit(index, offset, done, bytes)` for each piece of a guest-physical range that lies in
// one region: region index, offset in it, bytes before this piece, bytes of it. Stops at the first
// error.
template <typename Visit>
Status ForEachPiece(std::span<const Region> regions, std::uint64_t address, std::size_t bytes,
                    Visit visit) {
  // First region that ends behind `address`. Ends do not overflow: CheckRegions bounds them.
  const auto first = std::upper_bound(
      regions.begin(), regions.end(), address,
      [](std::uint64_t value, const Region& r) { return value < r.base + r.bytes; });
  std::size_t index = static_cast<std::size_t>(first - regions.begin());
  for (std::size_t done = 0; done < bytes; ++index) {
    const std::uint64_t at = address + done;
    if (index == regions.size() || at < regions[index].base) {
      return RangeError(address, bytes, "is not in memory");
    }
    const Region& region = regions[index];
    const std::uint64_t offset = at - region.base;
    const std::size_t piece =
        static_cast<std::size_t>(std::min<std::uint64_t>(bytes - done, region.bytes - offset));
    Status visited = visit(index, offset, done, piece);
    if (!visited.ok()) return visited;
    done += piece;
  }
  return Ok();
}

// The region that holds all of `run`. REQUIRES: there is one.
const Region& RegionOfRun(const GuestMemory& memory, PageRun run) {
  const Region& region = memory.regions()[memory.RegionOfPage(run.first)];
  CHKPT_CHECK(run.count <= region.pages().end() - run.first);
  return region;
}

std::uint64_t OffsetInRegion(const Region& region, std::uint64_t page) {
  return (page - region.first_page) * kPageBytes;
}

// The pages that bytes of a region touch. REQUIRES: at least one byte.
PageRun PagesOf(const Region& region, std::uint64_t offset, std::size_t bytes) {
  const std::uint64_t first = region.first_page + offset / kPageBytes;
  return {first, region.first_page + (offset + bytes - 1) / kPageBytes - first + 1};
}

}  // namespace

Status GuestMemory::Read(std::uint64_t address, std::span<std::uint8_t> target) const {
  return ForEachPiece(
      regions_, address, target.size(),
      [&](std::size_t index, std::uint64_t offset, std::size_t done, std::size_t bytes) {
        const Region& region = regions_[index];
        Status read = ReadRegion(region, offset, target.subspan(done, bytes));
        NoteCopied(PagesOf(region, offset, bytes));
        return read;
      });
}

Status GuestMemory::Write(std::uint64_t address, std::span<const std::uint8_t> source) {
  // Everything is checked first, so that a refused range is not written in part.
  Status legal = ForEachPiece(regions_, address, source.size(),
                              [&](std::size_t index, std::uint64_t, std::size_t, std::size_t) {
                                const Region& region = regions_[index];
                                return region.writable ? Ok() : Status(ReadOnlyError(region));
                              });
  if (!legal.ok()) return legal;
  return ForEachPiece(
      regions_, address, source.size(),
      [&](std::size_t index, std::uint64_t offset, std::size_t done, std::size_t bytes) {
        Region& region = regions_[index];
        std::atomic_ref(region.fresh).store(false, std::memory_order_relaxed);
        Status written = WriteRegion(region, offset, source.subspan(done, bytes));
        // Also after a failure: a file may have been written in part.
        NoteWritten(PagesOf(region, offset, bytes));
        return written;
      });
}

Status GuestMemory::CopyOut(PageRun run, std::uint8_t* target) const {
  if (run.count == 0) return Ok();
  const Region& region = RegionOfRun(*this, run);
  Status read = ReadRegion(region, OffsetInRegion(region, run.first),
                           {target, static_cast<std::size_t>(run.count * kPageBytes)});
  NoteCopied(run);
  return read;
}

Status GuestMemory::CopyIn(PageRun run, const std::uint8_t* source) {
  if (run.count == 0) return Ok();
  const Region& region = RegionOfRun(*this, run);
  Status written = WriteRegion(region, OffsetInRegion(region, run.first),
                               {source, static_cast<std::size_t>(run.count * kPageBytes)});
  NoteWritten(run);
  return written;
}

Status GuestMemory::Zero(PageRun run) {
  if (run.count == 0) return Ok();
  const Region& region = RegionOfRun(*this, run);
  if (!region.writable) return ReadOnlyError(region);
  Status zeroed = ZeroRegion(region, OffsetInRegion(region, run.first), run.count * kPageBytes);
  NoteWritten(run);
  return zeroed;
}

void GuestMemory::SetMissing(bool missing) {
  for (Region& region : regions_) {
    std::atomic_ref(region.missing).store(missing, std::memory_order_release);
  }
}

}  // namespace chkpt

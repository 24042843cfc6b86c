#include "core/memory/presence.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>

#include "core/memory/file_access.h"
#include "core/memory/mapping.h"
#include "core/memory/pagemap.h"

namespace chkpt {
namespace {

constexpr std::size_t kRangesAtOnce = 512;  // 12 KiB of stack; the kernel's own buffer has as many

// Bytes from the start of a region. `end` is exclusive.
struct ByteRange {
  std::uint64_t start = 0;
  std::uint64_t end = 0;
};

ByteRange BytesOf(const Region& region, PageRun range) {
  return {(range.first - region.first_page) * kPageBytes,
          (range.end() - region.first_page) * kPageBytes};
}

// Appends the pages of `range` that `found` touches, joined with the run before.
void AppendTouched(const Region& region, PageRun range, ByteRange found,
                   std::vector<PageRun>* runs) {
  const std::uint64_t touched_end = found.end / kPageBytes + (found.end % kPageBytes != 0 ? 1 : 0);
  const std::uint64_t first = std::max(range.first, region.first_page + found.start / kPageBytes);
  const std::uint64_t end = std::min(range.end(), region.first_page + touched_end);
  if (!runs->empty() && first <= runs->back().end()) {
    runs->back().count = std::max(runs->back().end(), end) - runs->back().first;
  } else {
    runs->push_back({first, end - first});
  }
}

// --- pagemap ------------------------------------------------------------------------------------
// Attached memory need not start at a page of the host, and host pages may be larger than guest
// pages. So addresses are rounded outwards to host pages, and what is found is rounded outwards to
// guest pages.

// Pages that come when they are touched are no holes.
Presence PresenceOf(const Region& region) {
  const bool missing =
      std::atomic_ref(const_cast<Region&>(region).missing).load(std::memory_order_acquire);
  return missing ? Presence::kAll : region.presence;
}

struct HostRange {
  std::uint64_t start = 0;
  std::uint64_t end = 0;
};

HostRange HostPagesOf(const Region& region, PageRun range) {
  const std::uint64_t host = reinterpret_cast<std::uintptr_t>(region.host);
  const std::uint64_t page_bytes = SystemPageBytes();
  const ByteRange bytes = BytesOf(region, range);
  return {(host + bytes.start) / page_bytes * page_bytes,
          (host + bytes.end + page_bytes - 1) / page_bytes * page_bytes};
}

ByteRange InRegion(const Region& region, std::uint64_t start, std::uint64_t end) {
  const std::uint64_t host = reinterpret_cast<std::uintptr_t>(region.host);
  return {start > host ? start - host : 0, end - host};
}

std::uint64_t NextInPagemap(PagemapMethod method, int fd, const Region& region, PageRun range) {
  HostRange left = HostPagesOf(region, range);
  while (left.start < left.end) {
    PagemapRange found[1];
    const std::optional<PagemapWalk> walk =
        WalkPagemap(method, fd, left.start, left.end, true, found);
    const bool stuck = !walk || (walk->count == 0 && walk->end <= left.start);
    if (stuck || walk->count > 0) {
      const std::uint64_t start = stuck ? left.start : found[0].start;
      return std::max(range.first,
                      region.first_page + InRegion(region, start, left.end).start / kPageBytes);
    }
    left.start = walk->end;
  }
  return range.end();
}

void RunsInPagemap(PagemapMethod method, int fd, const Region& region, PageRun range,
                   std::vector<PageRun>* runs) {
  HostRange left = HostPagesOf(region, range);
  while (left.start < left.end) {
    PagemapRange found[kRangesAtOnce];
    const std::optional<PagemapWalk> walk =
        WalkPagemap(method, fd, left.start, left.end, false, found);
    if (!walk || walk->end <= left.start) {
      AppendTouched(region, range, InRegion(region, left.start, left.end), runs);
      return;
    }
    for (const PagemapRange& each : std::span(found).first(walk->count)) {
      AppendTouched(region, range, InRegion(region, each.start, each.end), runs);
    }
    left.start = walk->end;
  }
}

// --- files --------------------------------------------------------------------------------------

// First byte in [position, end) that may be stored, `end` if there is none. Bytes and result count
// from the region's start. What lies behind the end of a file that was cut counts as stored:
// reading it is what reports the damage.
std::uint64_t NextStored(const Region& region, std::uint64_t position, std::uint64_t end) {
  Result<std::uint64_t> data = NextData(region.fd, region.fd_offset + position);
  if (!data.ok()) return position;
  if (data.value() != kUnknown) return std::min(end, data.value() - region.fd_offset);
  struct stat status;
  if (::fstat(region.fd, &status) != 0) return position;
  const std::uint64_t file_end = static_cast<std::uint64_t>(status.st_size);
  if (file_end >= region.fd_offset + end) return end;
  return std::max(position, file_end > region.fd_offset ? file_end - region.fd_offset : 0);
}

std::uint64_t NextInFile(const Region& region, PageRun range) {
  const ByteRange bytes = BytesOf(region, range);
  return region.first_page + NextStored(region, bytes.start, bytes.end) / kPageBytes;
}

// Where the stored bytes at `position` end. SEEK_HOLE walks to the next hole, however far: a dense
// tmpfs file would be walked to its end for every chunk, so the extent found last is kept. It is
// only ever believed to hold data.
std::uint64_t StoredEnd(const Region& region, std::uint64_t position, std::uint64_t end,
                        StoredExtent* known) {
  const std::uint64_t place = region.fd_offset + position;
  {
    const std::lock_guard lock(known->mutex);
    if (known->fd == region.fd && known->start <= place && place < known->end) {
      return std::min(end, known->end - region.fd_offset);
    }
  }
  Result<std::uint64_t> hole = NextHole(region.fd, place);
  if (!hole.ok() || hole.value() == kUnknown) return end;
  // At least one byte further, also when others change the file between the two calls.
  const std::uint64_t stop = std::max(hole.value(), place + 1);
  const std::lock_guard lock(known->mutex);
  known->fd = region.fd;
  known->start = place;
  known->end = stop;
  return std::min(end, stop - region.fd_offset);
}

void RunsInFile(const Region& region, PageRun range, StoredExtent* known,
                std::vector<PageRun>* runs) {
  const ByteRange bytes = BytesOf(region, range);
  std::uint64_t position = bytes.start;
  while ((position = NextStored(region, position, bytes.end)) < bytes.end) {
    const std::uint64_t stop = StoredEnd(region, position, bytes.end, known);
    AppendTouched(region, range, {position, stop}, runs);
    position = stop;
  }
}

}  // namespace

PresenceFinder::PresenceFinder(PagemapMethod best) : method_(PagemapMethod::kNone) {
  if (best != PagemapMethod::kNone) pagemap_fd_ = OpenPagemap();
  method_ = UsableMethod(pagemap_fd_, best);
}

PresenceFinder::~PresenceFinder() {
  if (pagemap_fd_ >= 0) ::close(pagemap_fd_);
}

std::uint64_t PresenceFinder::NextPresent(const Region& region, std::uint64_t page,
                                          std::uint64_t limit) const {
  CHKPT_CHECK(region.first_page <= page && page <= limit && limit <= region.pages().end());
  if (page == limit) return limit;
  const PageRun range = {page, limit - page};
  switch (PresenceOf(region)) {
    case Presence::kAll: break;
    case Presence::kSeek: return NextInFile(region, range);
    case Presence::kPagemap:
      if (method_ != PagemapMethod::kNone)
        return NextInPagemap(method_, pagemap_fd_, region, range);
      break;
  }
  return page;
}

void PresenceFinder::PresentRuns(const Region& region, PageRun range,
                                 std::vector<PageRun>* runs) const {
  CHKPT_CHECK(region.first_page <= range.first && range.count <= region.page_count() &&
              range.first - region.first_page <= region.page_count() - range.count);
  runs->clear();
  if (range.count == 0) return;
  switch (PresenceOf(region)) {
    case Presence::kAll: break;
    case Presence::kSeek: return RunsInFile(region, range, &stored_, runs);
    case Presence::kPagemap:
      if (method_ != PagemapMethod::kNone)
        return RunsInPagemap(method_, pagemap_fd_, region, range, runs);
      break;
  }
  runs->push_back(range);
}

}  // namespace chkpt

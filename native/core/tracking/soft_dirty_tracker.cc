#include "core/tracking/soft_dirty_tracker.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <string>
#include <utility>

#include "core/memory/mapping.h"
#include "core/memory/pagemap.h"
#include "core/memory/process_maps.h"

namespace chkpt {
namespace {

constexpr std::size_t kEntriesAtOnce = 8192;  // 32 MiB of memory

// A page that was just made is soft-dirty, where there is such a thing.
bool KernelHasSoftDirty() {
  const int fd = OpenPagemapOf(0);
  if (fd < 0) return false;
  const std::uint64_t bytes = SystemPageBytes();
  void* page = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  std::uint64_t entry = 0;
  if (page != MAP_FAILED) {
    *static_cast<volatile std::uint8_t*>(page) = 1;
    ReadPagemapEntries(fd, reinterpret_cast<std::uintptr_t>(page), {&entry, 1});
    ::munmap(page, bytes);
  }
  ::close(fd);
  return (entry & kEntryIsSoftDirty) != 0;
}

std::optional<std::uint64_t> AddressIn(int process, const Region& region) {
  if (process == 0 && region.host != nullptr) {
    return reinterpret_cast<std::uintptr_t>(region.host);
  }
  struct stat status;
  if (region.fd < 0 || ::fstat(region.fd, &status) != 0) return std::nullopt;
  return FindFileMapping(process, {.device_major = gnu_dev_major(status.st_dev),
                                   .device_minor = gnu_dev_minor(status.st_dev),
                                   .inode = status.st_ino,
                                   .offset = region.fd_offset,
                                   .bytes = region.bytes});
}

}  // namespace

SoftDirtyTracker::SoftDirtyTracker(std::shared_ptr<GuestMemory> memory)
    : DirtyTracker(memory, true), copied_(std::move(memory)) {}

SoftDirtyTracker::~SoftDirtyTracker() {
  if (pagemap_fd_ >= 0) ::close(pagemap_fd_);
  if (clear_fd_ >= 0) ::close(clear_fd_);
}

Result<std::unique_ptr<DirtyTracker>> SoftDirtyTracker::Open(std::shared_ptr<GuestMemory> memory,
                                                             int process) {
  if (!KernelHasSoftDirty() || SystemPageBytes() != kPageBytes) {
    return Error{.code = ErrorCode::kUnsupported,
                 .message = "this kernel keeps no soft-dirty bits (CONFIG_MEM_SOFT_DIRTY)"};
  }
  std::unique_ptr<SoftDirtyTracker> tracker(new SoftDirtyTracker(std::move(memory)));
  Status found = tracker->Find(process);
  if (!found.ok()) return found.error();
  return std::unique_ptr<DirtyTracker>(std::move(tracker));
}

Status SoftDirtyTracker::Find(int process) {
  for (const Region& region : memory()->regions()) {
    const std::optional<std::uint64_t> address = AddressIn(process, region);
    if (!address || *address % kPageBytes != 0) {
      return Error{.code = ErrorCode::kUnsupported,
                   .message = "process " + std::to_string(process) +
                              " has not mapped this memory in one piece",
                   .page = region.first_page};
    }
    places_.push_back({&region, *address, ContentMap(region.page_count())});
  }
  const std::string folder = "/proc/" + (process == 0 ? "self" : std::to_string(process));
  pagemap_fd_ = OpenPagemapOf(process);
  if (pagemap_fd_ < 0) return SystemError(errno, folder + "/pagemap");
  clear_fd_ = ::open((folder + "/clear_refs").c_str(), O_WRONLY | O_CLOEXEC);
  if (clear_fd_ < 0) return SystemError(errno, folder + "/clear_refs");
  return Ok();
}

Status SoftDirtyTracker::Clear() {
  ssize_t done;
  do {
    done = ::pwrite(clear_fd_, "4", 1, 0);
  } while (done < 0 && errno == EINTR);
  return done == 1 ? Ok() : Status(SystemError(errno, "clear_refs"));
}

Status SoftDirtyTracker::Reset(const Cancelled& cancelled) {
  copied_.Clear();
  for (Place& place : places_) {
    place.entries.Clear();
    Status looked = Look(&place, nullptr, cancelled);
    if (!looked.ok()) return looked;
  }
  return Clear();
}

Status SoftDirtyTracker::Collect(DirtyBitmap* found, const Cancelled& cancelled) {
  copied_.Take([this](PageRun run) {
    for (Place& place : places_) {
      const std::uint64_t first = std::max(run.first, place.region->first_page);
      const std::uint64_t end = std::min(run.end(), place.region->pages().end());
      if (first < end) place.entries.Set({first - place.region->first_page, end - first});
    }
  });
  for (Place& place : places_) {
    Status looked = Look(&place, found, cancelled);
    if (!looked.ok()) return looked;
  }
  return Clear();
}

Status SoftDirtyTracker::Look(Place* place, DirtyBitmap* found, const Cancelled& cancelled) {
  const Region& region = *place->region;
  std::vector<std::uint64_t> entries(kEntriesAtOnce);
  std::vector<PageRun> runs;
  for (std::uint64_t page = 0; page < region.page_count();) {
    if (cancelled()) return AbortedError();
    const std::size_t wanted = static_cast<std::size_t>(
        std::min<std::uint64_t>(kEntriesAtOnce, region.page_count() - page));
    const std::size_t count = ReadPagemapEntries(pagemap_fd_, place->address + page * kPageBytes,
                                                 std::span(entries).first(wanted));
    if (count == 0) return SystemError(errno, "pagemap");
    DirtyBitmap data(count);
    if (found != nullptr && region.presence == Presence::kSeek) {
      finder_.PresentRuns(region, {region.first_page + page, count}, &runs);
      for (const PageRun& run : runs)
        data.MarkRun({run.first - region.first_page - page, run.count});
    }
    for (std::size_t i = 0; i < count; ++i) {
      const bool has_entry = (entries[i] & (kEntryIsPresent | kEntryIsSwapped)) != 0;
      bool written = (entries[i] & kEntryIsSoftDirty) != 0;
      if (!has_entry) {
        runs.clear();
        place->entries.TakeOut({page + i, 1}, &runs);
        written = written || !runs.empty() || data.IsMarked(i);
      } else {
        place->entries.Set({page + i, 1});
      }
      if (written && found != nullptr) found->Mark(region.first_page + page + i);
    }
    page += count;
  }
  return Ok();
}

}  // namespace chkpt

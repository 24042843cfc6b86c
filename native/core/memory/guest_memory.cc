// The table of regions: checks, and one factory per kind of memory. Access is in
// guest_memory_access.cc.
#include "core/memory/guest_memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cinttypes>
#include <cstdio>

#include "core/memory/file_access.h"
#include "core/memory/mapping.h"
#include "core/memory/process_maps.h"

namespace chkpt {
namespace {

Error RegionError(std::size_t index, const RegionSpec& spec, const char* what) {
  char text[160];
  std::snprintf(text, sizeof text, "region %zu (base 0x%" PRIx64 ", %" PRIu64 " bytes) %s", index,
                spec.base, spec.bytes, what);
  return Error{.code = ErrorCode::kFormat, .message = text};
}

Region NewRegion(const RegionSpec& spec, Backing backing, Presence presence) {
  Region region;
  region.base = spec.base;
  region.bytes = spec.bytes;
  region.backing = backing;
  region.presence = presence;
  return region;
}

template <typename Spec>
Status CheckRegionsOf(std::span<const Spec> specs) {
  std::vector<RegionSpec> regions;
  regions.reserve(specs.size());
  for (const Spec& spec : specs) regions.push_back(spec.region);
  return GuestMemory::CheckRegions(regions);
}

Result<Region> AllocateRegion(const RegionSpec& spec, const GuestMemory::AllocateOptions& options) {
  Region region = NewRegion(spec, options.backing, Presence::kPagemap);
  region.fresh = true;
  if (options.backing == Backing::kMemfd) {
    Result<MemfdMapping> mapping = MapMemfd(spec.bytes, options.huge_pages);
    if (!mapping.ok()) return mapping.error();
    region.host = mapping.value().host;
    region.fd = mapping.value().fd;
    region.presence = Presence::kSeek;
    return region;
  }
  Result<std::uint8_t*> host = options.backing == Backing::kHugetlb
                                   ? MapHugetlb(spec.bytes)
                                   : MapAnonymous(spec.bytes, options.huge_pages);
  if (!host.ok()) return host.error();
  region.host = host.value();
  return region;
}

// Refuses descriptors on which pread and pwrite would not do what the region promises.
Status CheckAccessMode(const GuestMemory::FileSpec& file) {
  const int flags = ::fcntl(file.fd, F_GETFL);
  if (flags < 0) return SystemError(errno, "memory file descriptor " + std::to_string(file.fd));
  const int mode = flags & O_ACCMODE;
  if (mode == O_WRONLY || (file.writable && mode == O_RDONLY)) {
    return Error{.code = ErrorCode::kPermission,
                 .message = mode == O_WRONLY ? "the memory file is not open for reading"
                                             : "the memory file is not open for writing"};
  }
  // Linux appends with pwrite, whatever the offset, in this mode.
  if (file.writable && (flags & O_APPEND) != 0) {
    return Error{.code = ErrorCode::kUnsupported,
                 .message = "the memory file is open in append mode"};
  }
  return Ok();
}

// Checks that the file holds the region; with `extend` makes it so. Gives the size that it had
// before.
Result<std::uint64_t> CheckFileBytes(const GuestMemory::FileSpec& file, bool extend) {
  Result<std::uint64_t> file_bytes = FileBytes(file.fd);
  if (!file_bytes.ok()) return file_bytes;
  // No file offset exceeds this; offset plus bytes cannot overflow below it.
  const bool possible = file.fd_offset <= static_cast<std::uint64_t>(INT64_MAX) - kMemoryBytesMax;
  const std::uint64_t needed = file.fd_offset + file.region.bytes;
  if (possible && file_bytes.value() >= needed) return file_bytes;
  if (possible && extend) {
    if (::ftruncate(file.fd, static_cast<off_t>(needed)) == 0) return file_bytes;
    return SystemError(errno, "extending a memory file to " + std::to_string(needed) + " bytes");
  }
  return Error{.code = ErrorCode::kMemoryShort,
               .message = "the memory file has " + std::to_string(file_bytes.value()) +
                          " bytes; its region has " + std::to_string(file.region.bytes) +
                          " from offset " + std::to_string(file.fd_offset)};
}

// True when the range is certainly zeros: behind the old end of the file, or a hole.
bool IsFreshRange(const GuestMemory::FileSpec& file, std::uint64_t old_file_bytes) {
  if (old_file_bytes <= file.fd_offset) return true;
  Result<std::uint64_t> data = NextData(file.fd, file.fd_offset);
  return data.ok() && data.value() >= file.fd_offset + file.region.bytes;
}

Result<int> Duplicate(int fd) {
  const int duplicate = ::fcntl(fd, F_DUPFD_CLOEXEC, 0);
  if (duplicate < 0)
    return SystemError(errno, "duplicating memory file descriptor " + std::to_string(fd));
  return duplicate;
}

Region FileRegion(const GuestMemory::FileSpec& file, Backing backing) {
  Region region = NewRegion(file.region, backing, Presence::kSeek);
  region.fd_offset = file.fd_offset;
  region.writable = file.writable;
  return region;
}

Result<Region> MapRegion(const GuestMemory::FileSpec& file) {
  if (file.fd_offset % kPageBytes != 0) {
    return Error{.code = ErrorCode::kFormat,
                 .message = "offset " + std::to_string(file.fd_offset) +
                            " of a mapped memory file is not a multiple of 4096"};
  }
  Result<std::uint64_t> file_bytes = CheckFileBytes(file, false);
  if (!file_bytes.ok()) return file_bytes.error();
  Result<int> fd = Duplicate(file.fd);
  if (!fd.ok()) return fd.error();
  Result<std::uint8_t*> host =
      MapFile(fd.value(), file.fd_offset, file.region.bytes, file.writable);
  if (!host.ok()) {
    ::close(fd.value());
    return host.error();
  }
  Region region = FileRegion(file, Backing::kMapped);
  region.host = host.value();
  region.fd = fd.value();
  return region;
}

Result<Region> OpenRegion(const GuestMemory::FileSpec& file, bool fresh) {
  Status mode = CheckAccessMode(file);
  if (!mode.ok()) return mode.error();
  Result<std::uint64_t> file_bytes = CheckFileBytes(file, fresh && file.writable);
  if (!file_bytes.ok()) return file_bytes.error();
  Result<int> fd = Duplicate(file.fd);
  if (!fd.ok()) return fd.error();
  Region region = FileRegion(file, Backing::kFile);
  region.fd = fd.value();
  // A caller who is wrong about a new file must not get a load that leaves old bytes where zeros
  // belong.
  region.fresh = fresh && IsFreshRange(file, file_bytes.value());
  return region;
}

}  // namespace

Status GuestMemory::CheckRegions(std::span<const RegionSpec> specs) {
  if (specs.empty() || specs.size() > kRegionCountMax) {
    return Error{.code = ErrorCode::kFormat,
                 .message = "memory has " + std::to_string(specs.size()) + " regions; 1 to " +
                            std::to_string(kRegionCountMax) + " are allowed"};
  }
  std::uint64_t end = 0;
  std::uint64_t total = 0;
  for (std::size_t i = 0; i < specs.size(); ++i) {
    const RegionSpec& spec = specs[i];
    if (spec.bytes == 0) return RegionError(i, spec, "is empty");
    if (spec.base % kPageBytes != 0 || spec.bytes % kPageBytes != 0) {
      return RegionError(i, spec, "is not aligned to 4096 bytes");
    }
    if (spec.base > kAddressMax || spec.bytes > kAddressMax - spec.base) {
      return RegionError(i, spec, "ends above address 2^52");
    }
    if (spec.base < end)
      return RegionError(i, spec, "overlaps the region before it or is not in ascending order");
    end = spec.base + spec.bytes;
    // Neither addend exceeds 2^52.
    total += spec.bytes;
    if (total > kMemoryBytesMax) return RegionError(i, spec, "brings memory above 16 TiB");
  }
  return Ok();
}

Result<std::shared_ptr<GuestMemory>> GuestMemory::Allocate(std::span<const RegionSpec> specs,
                                                           AllocateOptions options) {
  CHKPT_CHECK(options.backing == Backing::kAnonymous || options.backing == Backing::kMemfd ||
              options.backing == Backing::kHugetlb);
  Status checked = CheckRegions(specs);
  if (!checked.ok()) return checked.error();
  const std::shared_ptr<GuestMemory> memory(new GuestMemory());
  for (const RegionSpec& spec : specs) {
    Result<Region> region = AllocateRegion(spec, options);
    if (!region.ok()) return region.error();
    memory->Append(region.value());
  }
  return memory;
}

Result<std::shared_ptr<GuestMemory>> GuestMemory::Map(std::span<const FileSpec> files) {
  Status checked = CheckRegionsOf(files);
  if (!checked.ok()) return checked.error();
  const std::shared_ptr<GuestMemory> memory(new GuestMemory());
  for (const FileSpec& file : files) {
    Result<Region> region = MapRegion(file);
    if (!region.ok()) return region.error();
    memory->Append(region.value());
  }
  return memory;
}

Result<std::shared_ptr<GuestMemory>> GuestMemory::OpenFiles(std::span<const FileSpec> files,
                                                            bool fresh) {
  Status checked = CheckRegionsOf(files);
  if (!checked.ok()) return checked.error();
  const std::shared_ptr<GuestMemory> memory(new GuestMemory());
  for (const FileSpec& file : files) {
    Result<Region> region = OpenRegion(file, fresh);
    if (!region.ok()) return region.error();
    memory->Append(region.value());
  }
  return memory;
}

Result<std::shared_ptr<GuestMemory>> GuestMemory::Attach(std::span<const AttachSpec> specs) {
  Status checked = CheckRegionsOf(specs);
  if (!checked.ok()) return checked.error();
  const ProcessMaps maps = ProcessMaps::OfThisProcess();
  const std::shared_ptr<GuestMemory> memory(new GuestMemory());
  for (const AttachSpec& spec : specs) {
    if (spec.host_bytes < spec.region.bytes) {
      return Error{.code = ErrorCode::kMemoryShort,
                   .message = "attached memory has " + std::to_string(spec.host_bytes) +
                              " bytes; its region has " + std::to_string(spec.region.bytes)};
    }
    CHKPT_CHECK(spec.host != nullptr);
    const bool anonymous =
        maps.IsPrivateAnonymous(reinterpret_cast<std::uintptr_t>(spec.host), spec.region.bytes);
    Region region =
        NewRegion(spec.region, Backing::kAttached, anonymous ? Presence::kPagemap : Presence::kAll);
    region.host = spec.host;
    memory->Append(region);
  }
  return memory;
}

Result<std::shared_ptr<GuestMemory>> GuestMemory::Describe(std::span<const RegionSpec> specs) {
  Status checked = CheckRegions(specs);
  if (!checked.ok()) return checked.error();
  const std::shared_ptr<GuestMemory> memory(new GuestMemory());
  for (const RegionSpec& spec : specs) {
    Region region = NewRegion(spec, Backing::kFile, Presence::kAll);
    region.writable = false;
    memory->Append(region);
  }
  return memory;
}

Result<std::shared_ptr<GuestMemory>> GuestMemory::CloneOf(const GuestMemory& image,
                                                          std::shared_ptr<void> keeper) {
  const std::shared_ptr<GuestMemory> memory(new GuestMemory());
  memory->keeper_ = std::move(keeper);
  for (const Region& source : image.regions()) {
    CHKPT_CHECK(source.backing == Backing::kMemfd);
    // Pages of the image that are not mapped here have content, too.
    Region region = NewRegion({source.base, source.bytes}, Backing::kClone, Presence::kAll);
    Result<std::uint8_t*> host = MapFilePrivately(source.fd, source.fd_offset, source.bytes);
    if (!host.ok()) return host.error();
    region.host = host.value();
    memory->Append(region);
  }
  return memory;
}

Status GuestMemory::ResetClone() {
  for (const Region& region : regions_) {
    CHKPT_CHECK(region.backing == Backing::kClone);
    NoteWritten(region.pages());
    if (::madvise(region.host, region.bytes, MADV_DONTNEED) != 0) {
      return SystemError(errno, "dropping what was written to a clone");
    }
  }
  return Ok();
}

Region Region::Part(PageRun part) const {
  CHKPT_CHECK(part.first >= first_page && part.end() <= pages().end());
  const std::uint64_t skipped = (part.first - first_page) * kPageBytes;
  Region region = *this;
  region.base += skipped;
  region.bytes = part.count * kPageBytes;
  region.first_page = part.first;
  if (host != nullptr) region.host += skipped;
  region.fd_offset += skipped;
  return region;
}

GuestMemory::~GuestMemory() {
  for (const Region& region : regions_) {
    if (region.host != nullptr && region.backing != Backing::kAttached)
      Unmap(region.host, region.bytes);
    if (region.fd >= 0) ::close(region.fd);
  }
}

void GuestMemory::Append(Region region) {
  region.first_page = page_count_;
  page_count_ += region.page_count();
  regions_.push_back(region);
}

std::size_t GuestMemory::RegionOfPage(std::uint64_t page) const {
  CHKPT_CHECK(page < page_count_);
  const auto after =
      std::upper_bound(regions_.begin(), regions_.end(), page,
                       [](std::uint64_t value, const Region& r) { return value < r.first_page; });
  return static_cast<std::size_t>(after - regions_.begin()) - 1;
}

void GuestMemory::MarkUsed() {
  // Several writers may do this at once.
  for (Region& region : regions_)
    std::atomic_ref(region.fresh).store(false, std::memory_order_relaxed);
}

void GuestMemory::MarkUsed(std::size_t region_index) {
  std::atomic_ref(regions_[region_index].fresh).store(false, std::memory_order_relaxed);
}

void GuestMemory::PageLogs::Add(std::shared_ptr<DirtyBitmap> log) {
  const std::lock_guard lock(mutex_);
  logs_.push_back(std::move(log));
  any_ = true;
}

void GuestMemory::PageLogs::Remove(const DirtyBitmap* log) {
  const std::lock_guard lock(mutex_);
  std::erase_if(logs_, [log](const auto& each) { return each.get() == log; });
  any_ = !logs_.empty();
}

void GuestMemory::PageLogs::Mark(PageRun run) const {
  if (!any_) return;
  const std::lock_guard lock(mutex_);
  for (const auto& log : logs_) log->MarkRun(run);
}

void GuestMemory::AddWriteLog(std::shared_ptr<DirtyBitmap> log) {
  CHKPT_CHECK(log->page_count() == page_count_);
  write_logs_.Add(std::move(log));
}

void GuestMemory::RemoveWriteLog(const DirtyBitmap* log) { write_logs_.Remove(log); }

void GuestMemory::NoteWritten(PageRun run) { write_logs_.Mark(run); }

void GuestMemory::AddCopyLog(std::shared_ptr<DirtyBitmap> log) {
  CHKPT_CHECK(log->page_count() == page_count_);
  copy_logs_.Add(std::move(log));
}

void GuestMemory::RemoveCopyLog(const DirtyBitmap* log) { copy_logs_.Remove(log); }

void GuestMemory::NoteCopied(PageRun run) const { copy_logs_.Mark(run); }

}  // namespace chkpt

// GuestMemory: guest-physical memory as a table of regions, allocated here, mapped from a file,
// attached from outside, or accessed as a file without mapping it.
//
// Units: addresses and `bytes` are bytes; page numbers count pages through all regions in table
// order (docs/format.md section 6) and never mix with addresses.
//
// Ownership: owns its mappings and descriptors (not attached memory). Shared: every pipeline that
// works on a memory holds a shared_ptr, so it is unmapped after the last one is done.
//
// Thread safety: the table is immutable after creation. Content is the guest's: volatile,
// unsynchronised.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "core/base/result.h"
#include "core/base/units.h"
#include "core/bitmap/dirty_bitmap.h"

namespace chkpt {

enum class Backing : std::uint8_t {
  kAnonymous,  // private anonymous, MADV_HUGEPAGE unless told otherwise
  kMemfd,      // shared memfd, mapped
  kHugetlb,    // private anonymous MAP_HUGETLB, 2 MiB pages
  kMapped,     // MAP_SHARED of a caller's file or descriptor
  kAttached,   // caller's memory of this process; the caller keeps it alive
  kClone,      // MAP_PRIVATE of a memfd whose pages others share
  kFile,       // pread/pwrite on a descriptor, never mapped: no SIGBUS when others cut the file
};

// How untouched memory is told from memory that must be read, without reading it.
enum class Presence : std::uint8_t {
  kPagemap,  // PAGEMAP_SCAN, or /proc/self/pagemap where the kernel has no such ioctl
  kSeek,     // SEEK_DATA / SEEK_HOLE on the descriptor
  kAll,      // unknown: everything counts as present
};

struct RegionSpec {
  std::uint64_t base = 0;   // guest-physical address, multiple of 4096
  std::uint64_t bytes = 0;  // multiple of 4096, not zero
};

struct Region {
  std::uint64_t base = 0;
  std::uint64_t bytes = 0;
  std::uint64_t first_page = 0;  // page number of the first page
  std::uint8_t* host = nullptr;  // null for kFile
  int fd = -1;                   // kMemfd, kMapped, kFile
  std::uint64_t fd_offset = 0;   // bytes in the file where the region starts
  Backing backing = Backing::kAnonymous;
  Presence presence = Presence::kAll;
  bool writable = true;
  // True while nobody has written: zero pages need not be written by a load. Set for kAnonymous,
  // kMemfd and kHugetlb at creation (kFile: when the file was created empty); a load or Write()
  // clears it.
  bool fresh = false;
  // True while pages that are not in memory have a content that comes when they are touched: then
  // every page counts as present.
  bool missing = false;

  std::uint64_t page_count() const { return bytes / kPageBytes; }
  PageRun pages() const { return {first_page, page_count()}; }
  // These pages of it as if they were a region; page numbers stay. REQUIRES: they are in it.
  Region Part(PageRun part) const;
};

class GuestMemory {
 public:
  // Checks sorted, non-overlapping, aligned, not empty, limits of units.h. Error: kFormat with a
  // clear message.
  static Status CheckRegions(std::span<const RegionSpec> specs);

  struct AllocateOptions {
    Backing backing = Backing::kAnonymous;  // kAnonymous, kMemfd or kHugetlb
    bool huge_pages = true;                 // MADV_HUGEPAGE on kAnonymous and kMemfd
  };
  // One mapping per region, aligned to 2 MiB so that huge pages fit. MADV_DONTFORK and
  // MADV_DONTDUMP on all of them. Nothing is reserved, except hugetlb pages: those would be a
  // SIGBUS at first touch. The size of a memfd is sealed, so nobody can cut it under the guest.
  // Errors: kFormat (also: hugetlb region not a multiple of 2 MiB), kNoMemory (also: no huge pages
  // reserved).
  static Result<std::shared_ptr<GuestMemory>> Allocate(std::span<const RegionSpec> specs,
                                                       AllocateOptions options);

  struct FileSpec {
    RegionSpec region;
    // Duplicated; the caller keeps its own. Both share one file position, which finding holes
    // moves.
    int fd = -1;
    std::uint64_t fd_offset = 0;  // Map: a multiple of 4096
    bool writable = false;
  };
  // MAP_SHARED of descriptors (a QEMU memory-backend, /dev/shm files, a memfd of another process).
  // Regular files and block devices.
  // Errors: kFormat, kMemoryShort when a file is shorter than fd_offset + bytes, kPermission,
  // kNoMemory, kUnsupported (neither file nor block device).
  static Result<std::shared_ptr<GuestMemory>> Map(std::span<const FileSpec> files);
  // The same files without mapping them. With `fresh` the files are new and all zeros: a writable
  // one is extended to what its regions need, and a region that holds data nevertheless is not
  // marked fresh. Errors: as Map, and kUnsupported for a writable descriptor in append mode.
  static Result<std::shared_ptr<GuestMemory>> OpenFiles(std::span<const FileSpec> files,
                                                        bool fresh);

  struct AttachSpec {
    RegionSpec region;
    std::uint8_t* host = nullptr;
    std::uint64_t host_bytes = 0;  // at least region.bytes, else kMemoryShort
  };
  // Presence is kPagemap only where /proc/self/maps shows private anonymous memory over the whole
  // range; a shared or file-backed mapping can have content in pages this process never touched.
  static Result<std::shared_ptr<GuestMemory>> Attach(std::span<const AttachSpec> specs);

  // A region table without memory behind it, for verifying: regions have host == nullptr and
  // fd == -1, are read-only, and reading them is kUnsupported.
  static Result<std::shared_ptr<GuestMemory>> Describe(std::span<const RegionSpec> specs);

  // The content of `image` (kMemfd), shared page by page until it is written here; `keeper` goes
  // after the mappings. What `image` holds may still arrive, but must not change. Errors:
  // kNoMemory.
  static Result<std::shared_ptr<GuestMemory>> CloneOf(const GuestMemory& image,
                                                      std::shared_ptr<void> keeper);
  // Drops what was written to a clone. Error: kIo, then it may have been dropped in part.
  // REQUIRES: made by CloneOf; nobody uses it.
  Status ResetClone();

  ~GuestMemory();
  GuestMemory(const GuestMemory&) = delete;
  GuestMemory& operator=(const GuestMemory&) = delete;

  std::span<const Region> regions() const { return regions_; }
  std::uint64_t page_count() const { return page_count_; }
  std::uint64_t byte_count() const { return page_count_ * kPageBytes; }
  // Index into regions() of the region with this page. REQUIRES: page < page_count().
  std::size_t RegionOfPage(std::uint64_t page) const;

  // Copies guest-physical ranges; a range may cross regions that touch, not holes between them.
  // A range that is refused is not copied in part. A range of no bytes is always legal.
  // Errors: kFormat (range not in memory), kPermission (not writable), kIo / kMemoryShort (kFile).
  Status Read(std::uint64_t address, std::span<std::uint8_t> target) const;
  Status Write(std::uint64_t address, std::span<const std::uint8_t> source);

  // Copies pages [first, first + count) of one region into `target`, by memcpy or pread.
  // REQUIRES: the run lies in one region; target has count * 4096 bytes.
  Status CopyOut(PageRun run, std::uint8_t* target) const;
  // Writes them back, by memcpy or pwrite. Does not clear `fresh`: a load calls MarkUsed() once.
  Status CopyIn(PageRun run, const std::uint8_t* source);
  // Makes the pages read as zeros and gives their memory back where it can (MADV_DONTNEED on
  // private anonymous, fallocate PUNCH_HOLE on files and memfd, else memset/pwrite).
  Status Zero(PageRun run);

  // See Region::missing; of all regions.
  void SetMissing(bool missing);

  // No region is fresh any more; this one is not.
  void MarkUsed();
  void MarkUsed(std::size_t region_index);

  // From here on Write, CopyIn and Zero mark what they have changed in `log`, after the change: a
  // mark made before could be taken before the change is there. Any number of logs. Pipelines that
  // write through Region::host do not come by here: they call NoteWritten.
  // REQUIRES: log->page_count() == page_count().
  void AddWriteLog(std::shared_ptr<DirtyBitmap> log);
  void RemoveWriteLog(const DirtyBitmap* log);
  // REQUIRES: the run lies in memory.
  void NoteWritten(PageRun run);

  // From here on Read and CopyOut mark what they have copied in `log`: somebody has a content of
  // these pages now, which may be gone again when the page is next looked at. Pipelines that copy
  // from Region::host call NoteCopied; pages of zeros may be left out. As for write logs.
  void AddCopyLog(std::shared_ptr<DirtyBitmap> log);
  void RemoveCopyLog(const DirtyBitmap* log);
  void NoteCopied(PageRun run) const;

 private:
  GuestMemory() = default;
  // Takes over `region` and numbers its pages.
  void Append(Region region);
  std::shared_ptr<void> keeper_;  // of a clone
  std::vector<Region> regions_;
  std::uint64_t page_count_ = 0;

  // Bitmaps of others that are told of runs.
  class PageLogs {
   public:
    void Add(std::shared_ptr<DirtyBitmap> log);
    void Remove(const DirtyBitmap* log);
    void Mark(PageRun run) const;

   private:
    std::atomic<bool> any_{false};  // so that memory without logs takes no lock
    mutable std::mutex mutex_;
    std::vector<std::shared_ptr<DirtyBitmap>> logs_;
  };
  PageLogs write_logs_;
  PageLogs copy_logs_;
};

// Reads everything of `fd` at `offset`, retrying EINTR and short reads. Early end of file:
// kMemoryShort.
Status ReadAll(int fd, std::uint64_t offset, std::span<std::uint8_t> target);
// Writes everything, retrying EINTR and short writes.
Status WriteAll(int fd, std::uint64_t offset, std::span<const std::uint8_t> source);

}  // namespace chkpt

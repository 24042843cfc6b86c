// SoftDirtyTracker: the soft-dirty bits that the kernel keeps for each page of a process:
// /proc/PID/clear_refs and bit 55 of /proc/PID/pagemap. For the memory of another process (QEMU),
// where the kernel has them (CONFIG_MEM_SOFT_DIRTY); that is tried, not read off a version.
//
// Reading and clearing are two steps, so a write in between would be lost: the process must stand
// still during Arm and Harvest. Clearing is for the whole process: one tracker for one process.
//
// A page without an entry has no bit. It counts as written when the file has data there or when it
// had an entry before.
//
// Source: Documentation/admin-guide/mm/soft-dirty.rst. Ownership: owns its descriptors.
// Thread safety: as DirtyTracker.
#pragma once

#include <memory>
#include <vector>

#include "core/memory/presence.h"
#include "core/tracking/content_map.h"
#include "core/tracking/copied_pages.h"
#include "core/tracking/dirty_tracker.h"

namespace chkpt {

class SoftDirtyTracker final : public DirtyTracker {
 public:
  // `process` has the files of the memory mapped; 0 is this process, whose own memory will do.
  // Errors: kUnsupported (this kernel has no such bits, memory that the process has not mapped in
  // one piece), kPermission.
  static Result<std::unique_ptr<DirtyTracker>> Open(std::shared_ptr<GuestMemory> memory,
                                                    int process);
  ~SoftDirtyTracker() override;

  TrackerKind kind() const override { return TrackerKind::kSoftDirty; }

 private:
  struct Place {
    const Region* region = nullptr;
    std::uint64_t address = 0;  // in the process
    ContentMap entries;         // pages that had an entry
  };

  explicit SoftDirtyTracker(std::shared_ptr<GuestMemory> memory);
  Status Find(int process);
  Status Clear();
  Status Reset(const Cancelled& cancelled) override;
  Status Collect(DirtyBitmap* found, const Cancelled& cancelled) override;
  // `found` is null while arming.
  Status Look(Place* place, DirtyBitmap* found, const Cancelled& cancelled);

  CopiedPages copied_;
  const PresenceFinder finder_;
  std::vector<Place> places_;
  int pagemap_fd_ = -1;
  int clear_fd_ = -1;
};

}  // namespace chkpt

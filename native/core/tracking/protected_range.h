// ProtectedRange: one region under asynchronous write protection, and how its page table is read.
//
// A page of the host is protected (its entry has the write-protect bit, or is a marker), written
// (the bit is gone), or has no entry. PAGEMAP_SCAN takes the written ones and protects them in one
// step. What must be thought about is the page without an entry:
//
// private memory  has no content there. So untouched pages get no markers, and a page that had
//                 content at the last harvest and has no entry now was dropped: told by ContentMap.
//                 The shared zero page counts as no content. What was copied since counts as
//                 content (copied_pages.h).
// shared memory   may have content in the file: a page that was written and then dropped from the
//                 page table, by madvise or by reclaim, has no entry, and no trace of the write. So
//                 every page gets a marker, and a page without an entry counts as written.
// hugetlb         as private; but a dropped page leaves a marker there.
//
// With a protector whose faults are handled (write_guard.h) PAGEMAP_SCAN only looks, and what it
// found is protected in a second step: a page that is written in between was told already. Entries
// of the zero page were not told, so those stay as they are until they are written.
//
// Source: fs/proc/task_mmu.c, Documentation/admin-guide/mm/pagemap.rst (PAGEMAP_SCAN, Linux 6.7).
//
// Thread safety: none; the tracker holds a lock.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "core/base/result.h"
#include "core/bitmap/dirty_bitmap.h"
#include "core/memory/guest_memory.h"
#include "core/memory/pagemap.h"
#include "core/tracking/content_map.h"
#include "core/tracking/write_protector.h"

namespace chkpt {

class ProtectedRange {
 public:
  enum class Kind : std::uint8_t { kPrivate, kShared, kHugetlb };

  // What all ranges of a tracker use; must outlive them.
  struct Tools {
    int pagemap_fd = -1;
    // The kernel calls pages without an entry written (6.18 does, 6.7 not everywhere): then a full
    // range needs no look at what is there.
    bool holes_are_told = false;
  };

  // Not registered yet.
  ProtectedRange(const Region& region, Kind kind, WriteProtector* userfault, const Tools* tools);

  AddressRange addresses() const { return addresses_; }
  Kind kind() const { return kind_; }
  Status Register() { return userfault_->Register(addresses_); }
  void Unregister() { userfault_->Unregister(addresses_); }
  // From now on under a protector whose faults are handled, which has all of it protected. What had
  // content stays known.
  void HandOver(WriteProtector* userfault) {
    userfault_ = userfault;
    is_handled_ = true;
  }

  // What becomes of pages that are told as written.
  enum class Written : std::uint8_t { kProtect, kLeave };

  // Errors of both: kAborted, kMemoryDetached (somebody replaced the mapping), kIo.
  Status Arm(const std::function<bool()>& cancelled);
  // What is left as it is will be told again; what was dropped is told once.
  Status Harvest(Written written, DirtyBitmap* found, const std::function<bool()>& cancelled);

  // Somebody has a content of these pages, as far as they are of this region: without one at the
  // next harvest they were dropped.
  void NoteCopied(PageRun run);

  // Marks the pages of a range of addresses, as far as they are of this region.
  void Mark(AddressRange range, DirtyBitmap* found) const;

  // Error: kUnsupported, with the reason why this region cannot be protected.
  static Result<Kind> KindOf(const Region& region);
  // Addresses of a region, rounded outwards to pages of the host.
  static AddressRange AddressesOf(const Region& region);
  // Pages of the region that a range of addresses touches; none: count 0.
  static PageRun PagesOf(const Region& region, AddressRange range);

 private:
  // Calls `visit(range found)` for what `query` finds, and `looked(end)` after each call of the
  // kernel.
  template <typename Visit, typename Looked>
  Status Scan(const PagemapQuery& query, AddressRange range, const std::function<bool()>& cancelled,
              Visit visit, Looked looked);
  Status HarvestWritten(AddressRange range, DirtyBitmap* found,
                        const std::function<bool()>& cancelled);
  Status HarvestContent(AddressRange range, DirtyBitmap* found,
                        const std::function<bool()>& cancelled);
  Status HarvestGaps(DirtyBitmap* found, const std::function<bool()>& cancelled);
  // `found` is null while arming.
  // Protects what was told as written, where looking at it did not.
  void ProtectTold(const PagemapRange& range, Status* status);
  void NoteContent(const PagemapRange& range, DirtyBitmap* found);
  void NoteGap(AddressRange range, DirtyBitmap* found);
  PageRun HostPages(AddressRange range) const;

  const Region& region_;
  const Kind kind_;
  WriteProtector* userfault_;
  bool is_handled_ = false;
  Written written_ = Written::kProtect;  // of the call under way
  const Tools* const tools_;
  const AddressRange addresses_;  // rounded outwards to pages of the host
  ContentMap content_;            // by page of the host; not for kShared
  std::vector<PagemapRange> ranges_;
  std::vector<PageRun> dropped_;
};

}  // namespace chkpt

// DirtyTracker: finds the pages of a memory that were written since it looked last. One
// interface, one class for each way; docs/dirty-tracking.md compares them.
//
// Units: page numbers of the memory. Ownership: holds the memory, not the other way round. Ends
// what it started (threads, descriptors, registrations) in its destructor.
//
// Thread safety: Arm and Harvest may be called by any thread, one after the other; a second one
// waits. Mark runs on any thread at any time. The guest may run during all of them.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>

#include "core/base/result.h"
#include "core/bitmap/dirty_bitmap.h"
#include "core/memory/guest_memory.h"

namespace chkpt {

// Order and names match TrackerKind of src/memory/dirty-tracker.ts.
enum class TrackerKind : std::uint8_t {
  kKvmLog,
  kKvmRing,
  kWriteProtect,
  kSoftDirty,
  kDigest,
  kReported,
};

class WriteGuard;

class DirtyTracker {
 public:
  // Asked now and then by long work; true ends it with kAborted.
  using Cancelled = std::function<bool()>;

  virtual ~DirtyTracker();
  DirtyTracker(const DirtyTracker&) = delete;
  DirtyTracker& operator=(const DirtyTracker&) = delete;

  virtual TrackerKind kind() const = 0;

  // Everything counts as clean from here on. After an error nothing is tracked until the next Arm
  // that succeeds. Errors: kAborted, and those of the class.
  Status Arm(const Cancelled& cancelled);

  // Marks in `set` every page that may have been written since Arm or the last Harvest. After an
  // error `set` is as it was, and what was found already is in the next one: no page is lost.
  // Errors: kClosed when it is not armed, kAborted, and those of the class.
  // REQUIRES: set->page_count() is that of the memory.
  Status Harvest(DirtyBitmap* set, const Cancelled& cancelled);

  // The same for who is going to write those pages: all of it is told again by the next Harvest,
  // and where tracking makes writes dear these pages stay as they are. Errors: as Harvest.
  Status Look(DirtyBitmap* set, const Cancelled& cancelled);

  // The guard of a tracker that has the memory's write protection for itself; null: the others do
  // not. From the first call on the tracker hears of each write, so that a live save need not take
  // the memory away from it; a first write of a page costs the guest more from then on. Stays
  // frozen and protected by turns as its user says, while the tracker goes on. Errors: as
  // WriteGuard::Open; kClosed when it is not armed. Then nothing is tracked until the next Arm.
  // REQUIRES: the guest stands still, and Harvest was called since it does.
  Result<std::shared_ptr<WriteGuard>> ShareGuard();

  // Nanoseconds that the first write of a page costs the guest because it is tracked; nothing when
  // that is not known. Any thread, as Harvest.
  std::optional<double> FirstWriteCost();

  // What the embedder knows to be written, whatever the kind.
  void Mark(PageRun run) { found_->MarkRun(run); }

  const std::shared_ptr<GuestMemory>& memory() const { return memory_; }

 protected:
  // With `own_writes` what GuestMemory itself writes is marked, too.
  DirtyTracker(std::shared_ptr<GuestMemory> memory, bool own_writes);

  virtual Result<std::shared_ptr<WriteGuard>> MakeGuard() { return std::shared_ptr<WriteGuard>(); }
  virtual std::optional<double> MeasureFirstWrite() { return std::nullopt; }
  // Makes everything clean.
  virtual Status Reset(const Cancelled& cancelled) = 0;
  // Marks what was written in `found` and makes it clean again. What was made clean must be marked
  // also when this fails.
  virtual Status Collect(DirtyBitmap* found, const Cancelled& cancelled) = 0;
  // Marks what was written in `found`; it may stay dirty.
  virtual Status Inspect(DirtyBitmap* found, const Cancelled& cancelled) {
    return Collect(found, cancelled);
  }

 private:
  const std::shared_ptr<GuestMemory> memory_;
  const std::shared_ptr<DirtyBitmap> found_;  // found, and not yet harvested
  std::mutex mutex_;
  bool armed_ = false;
};

inline Error AbortedError() {
  return Error{.code = ErrorCode::kAborted, .message = "dirty tracking cancelled"};
}

}  // namespace chkpt

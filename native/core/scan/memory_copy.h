// MemoryCopy: makes one memory equal to another one, as often as wanted, so that a guest which
// stands still for the last time only can run on while the copy is saved.
//
// Ownership: shares the target. Nobody else writes to it.
//
// Thread safety: one Update at a time. The source may be written meanwhile: each page is then
// copied as it was at some moment of the call.
#pragma once

#include <functional>
#include <memory>

#include "core/base/result.h"
#include "core/bitmap/dirty_bitmap.h"
#include "core/memory/guest_memory.h"

namespace chkpt {

class MemoryCopy {
 public:
  // REQUIRES: `target` is fresh memory of this process: nothing has been written to it.
  explicit MemoryCopy(std::shared_ptr<GuestMemory> target);
  MemoryCopy(const MemoryCopy&) = delete;
  MemoryCopy& operator=(const MemoryCopy&) = delete;

  // Copies every page that may hold something, and makes those zero that no longer do. Untouched
  // memory is neither read nor written. `cancelled` is asked for each chunk. After an error the
  // target is a mixture that the next call puts right.
  // Errors: kFormat (other regions than the target), kIo, kMemoryShort, kAborted.
  Status Update(const GuestMemory& source, unsigned threads, std::function<bool()> cancelled);

 private:
  // Takes written_.
  Status ZeroOthers(DirtyBitmap& seen);

  const std::shared_ptr<GuestMemory> target_;
  std::unique_ptr<DirtyBitmap> written_;  // pages of the target that may hold something
};

}  // namespace chkpt

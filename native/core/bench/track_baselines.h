// What trackers and page sets are compared with: the kernel's call alone, and a loop over bits.
#pragma once

#include <cstdint>

#include "core/base/result.h"
#include "core/bench/baselines.h"
#include "core/bitmap/dirty_bitmap.h"
#include "core/memory/guest_memory.h"

namespace chkpt {

// Writes a word into `per_mille` of the pages, spread at random by `seed`. All regions are mapped.
void DirtyPages(const GuestMemory& memory, unsigned per_mille, std::uint64_t seed);

// One PAGEMAP_SCAN after the other over all regions, taking written pages and protecting them, and
// nothing else. REQUIRES: a write-protect tracker has armed the memory; it loses these pages.
// Errors: kUnsupported. The result counts pages.
Result<Measured> MeasureBareScan(const GuestMemory& memory);

// Runs of the set, found bit by bit, and as DirtyBitmap finds them. The result sums up the runs, so
// that both can be compared.
Measured MeasureBitLoop(const DirtyBitmap& set);
Measured MeasureRuns(const DirtyBitmap& set);

}  // namespace chkpt

// Whole-memory passes on several threads: counts and a digest, for reports, tests and the demo. For
// memory nobody writes to. Untouched memory is not read.
#pragma once

#include <atomic>
#include <cstdint>

#include "core/base/result.h"
#include "core/memory/guest_memory.h"

namespace chkpt {

struct ScanTotals {
  std::uint64_t pages = 0;
  std::uint64_t present = 0;  // pages that had to be looked at
  std::uint64_t zero = 0;     // untouched pages included
  std::uint64_t fill = 0;
};

// Errors: kIo, kMemoryShort (file regions), kAborted.
Result<ScanTotals> ScanMemory(const GuestMemory& memory, unsigned threads,
                              const std::atomic<bool>& cancelled);

// Pages that may hold something; costs page-table walks only.
Result<std::uint64_t> CountPresent(const GuestMemory& memory, const std::atomic<bool>& cancelled);

// 64-bit digest of region table and content: equal content gives equal digests whatever the backing
// or the threads.
Result<std::uint64_t> DigestMemory(const GuestMemory& memory, unsigned threads,
                                   const std::atomic<bool>& cancelled);

// Reads a byte of every page with bytes in the range: what comes when it is touched has come then.
// Errors: those of GuestMemory::Read.
Status TouchMemory(const GuestMemory& memory, std::uint64_t address, std::uint64_t bytes);

}  // namespace chkpt

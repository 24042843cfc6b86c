// Guest-physical ranges to and from a place in a file, for formats that keep memory between other
// things: neither end need be aligned in the file.
//
// Nothing is mapped, and one buffer of 1 MiB goes between: what is written is a copy that nobody
// changes. Zeros stay holes, and pages that are not in memory are not read.
#pragma once

#include <atomic>
#include <cstdint>

#include "core/base/result.h"
#include "core/memory/guest_memory.h"

namespace chkpt {

// Writes the range to `fd` at `position`, where the file holds nothing yet, and extends the file to
// the end of the range. Errors: kFormat (not whole pages, or not in memory), kAborted, kNoSpace,
// kIo, those of GuestMemory::CopyOut.
Status CopyRangeToFile(const GuestMemory& memory, std::uint64_t address, std::uint64_t bytes,
                       int fd, std::uint64_t position, const std::atomic<bool>& cancelled);

// Reads the range from `fd` at `position`. Zeros of the file are not written.
// Errors: kFormat, kAborted, kMemoryShort (the file ends before the range does), kIo, those of
// GuestMemory::Write.
// REQUIRES: the range is zero; nobody uses it.
Status CopyRangeFromFile(GuestMemory& memory, std::uint64_t address, std::uint64_t bytes, int fd,
                         std::uint64_t position, const std::atomic<bool>& cancelled);

}  // namespace chkpt

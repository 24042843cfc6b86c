// What it costs to touch memory that is not there: of a lazy load, and of the bare kernel mechanism
// under it.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/base/result.h"
#include "core/memory/guest_memory.h"

namespace chkpt {

// Reads one byte of each page, in order, on this thread; nanoseconds for each. Pages that do not
// exist are left out. REQUIRES: mapped memory.
std::vector<double> TouchPages(const GuestMemory& memory, std::span<const std::uint32_t> pages);

// Touches `count` pages of new memory whose faults another thread serves with a page that is ready:
// poll, read, UFFDIO_COPY, nothing else. Nanoseconds for each. Errors: those of Userfault.
Result<std::vector<double>> MeasureFaultRoundTrip(std::size_t count);

}  // namespace chkpt

// What write protection costs a writer: one first write of a protected page, beyond an ordinary
// write.
#pragma once

#include <optional>

#include "core/tracking/write_protector.h"

namespace chkpt {

// Measured on pages of this function's own, of the same kind of memory; takes as long as some
// hundred faults. Nanoseconds; nothing when the pages cannot be had or protected. `shared`: of a
// memfd, else private.
// REQUIRES: `protector` is asynchronous; for a `shared` one somebody hears of removals.
std::optional<double> MeasureFaultCost(WriteProtector* protector, bool shared);

}  // namespace chkpt

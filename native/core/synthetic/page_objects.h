// Object pages: what kernel slab caches and the heaps of interpreters look like. Structures of one
// layout after the other, with pointers whose high halves are equal, reference counts, flags, small
// integers, short names and zeros. Compresses about 4:1 with LZ4 at 64 KiB.
//
// Thread safety: free function over its arguments.
#pragma once

#include <cstdint>

#include "core/synthetic/page_random.h"

namespace chkpt {

// REQUIRES: kPageBytes at `target`.
void WriteObjectPage(const PageSeeds& seeds, std::uint8_t* target);

}  // namespace chkpt

// Deterministic guest-like memory: the mix of page contents measured on a booted Linux guest with
// work in it, so that benchmarks and the demo mean something without a real image. Content depends
// on (seed, page number) only, never on the number of threads.
#pragma once

#include <cstdint>

#include "core/memory/guest_memory.h"

namespace chkpt {

// Shares of pages in 1/1000; the rest is text-like. The default is the mix of a measured guest
// (bench/corpus): 27.8 % zero, 0.3 % fill, 4.3 % duplicates of an earlier page, and stored pages
// that LZ4 compresses about 2.3:1 at 64 KiB, at the speed and with the match lengths of the real
// ones.
struct GuestLikeMix {
  std::uint32_t zero = 278;
  std::uint32_t fill = 3;
  std::uint32_t duplicate = 43;
  std::uint32_t random = 80;    // incompressible: compressed or encrypted files, keys
  std::uint32_t code = 175;     // machine-code-like
  std::uint32_t pointer = 240;  // kernel objects and heaps: pointers, small integers, zeros
};

// Writes the pages of every region with a host mapping. Zero pages are not touched in fresh memory.
// Pages come in runs (extents) as in a real guest, not independently of each other. Memory that is
// a multiple of 32 MiB has the shares of the mix exactly.
//
// Errors: kFormat when the shares add up to more than 1000, kPermission when a region is read-only.
Status FillGuestLike(GuestMemory& memory, std::uint64_t seed, const GuestLikeMix& mix,
                     unsigned threads);

}  // namespace chkpt

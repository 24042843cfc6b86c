// Guest pages as contexts of a live migration of Palacios: for each page a frame that opens
// `memory_page`, one record of that tag with 4096 bytes, and the frame that closes it; 4153 bytes a
// page. The numbers of the pages are not in it.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/base/result.h"
#include "core/memory/guest_memory.h"

namespace chkpt {

inline constexpr std::size_t kPalaciosPageBytes = 4153;
// What is encoded or placed at once: 256 pages.
inline constexpr std::uint64_t kPalaciosPagesMax = 256;

// Each page is copied once. Errors: those of GuestMemory::CopyOut.
// REQUIRES: the run lies in memory and has 1 to kPalaciosPagesMax pages.
Result<std::vector<std::uint8_t>> EncodePalaciosPages(const GuestMemory& memory, PageRun run);

// Puts pages in their place, one behind the other from `first` on. Nothing is placed before all
// frames were checked. Errors: kFormat with the page whose frame is none; those of
// GuestMemory::CopyIn.
// REQUIRES: `bytes` is as long as 1 to kPalaciosPagesMax frames; the pages lie in memory.
Status PlacePalaciosPages(GuestMemory& memory, std::uint64_t first,
                          std::span<const std::uint8_t> bytes);

}  // namespace chkpt

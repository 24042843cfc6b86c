// A few pages that a thread waits for, as bytes of their own: no stream has to be opened for them.
//
//   u64 first page · u32 pages, 1 to 16 · u32 n · n bytes
//
// n is 0: zeros; that of the pages: as they are; less: an LZ4 block. Little-endian. Whoever carries
// them sees to their integrity.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/base/result.h"
#include "core/memory/guest_memory.h"
#include "core/parallel/page_placer.h"

namespace chkpt {

// Nobody writes to the pages meanwhile. Errors: those of GuestMemory::CopyOut.
// REQUIRES: the run lies in one region and has 1 to kBlockPages pages.
Result<std::vector<std::uint8_t>> EncodePageRun(const GuestMemory& memory, PageRun run);

// Puts pages in their place. Nothing is placed before everything was checked. Errors: kFormat,
// kDecode, those of the placer.
Status PlacePageRun(std::span<const std::uint8_t> bytes, const GuestMemory& memory,
                    PagePlacer& placer);

}  // namespace chkpt

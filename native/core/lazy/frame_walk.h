// A walk over the headers of all frames before END: proves, after a lazy load, what an eager one
// proves on the way. Payloads of blocks were verified when they were fetched.
#pragma once

#include <atomic>
#include <cstdint>
#include <span>
#include <vector>

#include "core/base/result.h"
#include "core/lazy/block_decoder.h"

namespace chkpt {

// Header digests of the frames from `first_offset` to `end_offset`, in order. Checks digests,
// sequence, that PAGE_BLOCK frames stand exactly where the layer's map has them, and that frames of
// memory cover every page once, in order. `notes`, by block, or empty: what is known of a block's
// frame already is not read again. Errors: kDigest, kFormat, kLimit, those of the source,
// kAborted.
Result<std::vector<std::uint64_t>> WalkFrames(const Layer& layer, const BlockLayout& layout,
                                              std::uint64_t page_count, std::uint64_t first_offset,
                                              std::uint64_t end_offset,
                                              std::span<const FrameNote> notes,
                                              const std::atomic<bool>& cancelled);

}  // namespace chkpt

// Hands out the chunks of a guest memory in order, skipping memory that was never touched without
// reading it.
//
// Thread safety: Claim may be called from any number of threads.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "core/base/units.h"
#include "core/memory/guest_memory.h"
#include "core/memory/presence.h"

namespace chkpt {

// One piece of work: a chunk (up to 2 MiB) with something present in it, and the untouched memory
// before it.
struct ChunkTicket {
  std::uint64_t order = 0;           // 0, 1, 2 … without gaps
  std::vector<PageRun> zero_before;  // ascending; whole blocks; each within one region
  const Region* region = nullptr;    // null: the end of memory, nothing but zero_before
  PageRun pages;
};

class ChunkCursor {
 public:
  ChunkCursor(const GuestMemory& memory, const PresenceFinder& finder);

  // The next chunk; false when the end was already handed out, or `cancelled` became true.
  bool Claim(ChunkTicket* ticket, const std::atomic<bool>& cancelled);

 private:
  const GuestMemory& memory_;
  const PresenceFinder& finder_;
  std::mutex mutex_;
  std::uint64_t next_order_ = 0;
  std::size_t region_index_ = 0;
  std::uint64_t page_ = 0;
  bool ended_ = false;
};

}  // namespace chkpt

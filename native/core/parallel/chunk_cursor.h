// Hands out the chunks of a guest memory in order, skipping without reading it what was never
// touched, or, for an increment, what was not changed.
//
// Thread safety: Claim may be called from any number of threads.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "core/base/units.h"
#include "core/memory/guest_memory.h"
#include "core/memory/presence.h"

namespace chkpt {

// One piece of work: a chunk (up to 2 MiB) with something to look at, and the memory before it that
// was skipped.
struct ChunkTicket {
  std::uint64_t order = 0;          // 0, 1, 2 … without gaps
  std::vector<PageRun> run_before;  // ascending; whole blocks; each within one region
  const Region* region = nullptr;   // null: the end of memory, nothing but run_before
  PageRun pages;
};

class ChunkCursor {
 public:
  // `changed`: the pages to look at; empty: those that are present, or with `all` every page.
  ChunkCursor(const GuestMemory& memory, const PresenceFinder& finder,
              std::span<const std::uint64_t> changed, bool all);

  // The next chunk; false when the end was already handed out, or `cancelled` became true.
  bool Claim(ChunkTicket* ticket, const std::atomic<bool>& cancelled);

 private:
  // First page to look at from `page` on; the region's end when there is none or `cancelled`.
  std::uint64_t NextPage(const Region& region, std::uint64_t page,
                         const std::atomic<bool>& cancelled) const;

  const GuestMemory& memory_;
  const PresenceFinder& finder_;
  const std::span<const std::uint64_t> changed_;
  const bool all_;
  std::mutex mutex_;
  std::uint64_t next_order_ = 0;
  std::size_t region_index_ = 0;
  std::uint64_t page_ = 0;
  bool ended_ = false;
};

}  // namespace chkpt

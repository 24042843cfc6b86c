#include "core/parallel/chunk_cursor.h"

#include <algorithm>

namespace chkpt {
namespace {

// One presence query covers at most this much, so that cancelling never waits for a scan of
// terabytes.
constexpr std::uint64_t kQueryPages = (std::uint64_t{16} << 30) / kPageBytes;

}  // namespace

ChunkCursor::ChunkCursor(const GuestMemory& memory, const PresenceFinder& finder)
    : memory_(memory), finder_(finder) {}

bool ChunkCursor::Claim(ChunkTicket* ticket, const std::atomic<bool>& cancelled) {
  const std::lock_guard lock(mutex_);
  ticket->zero_before.clear();
  ticket->region = nullptr;
  if (ended_) return false;
  while (region_index_ < memory_.regions().size()) {
    const Region& region = memory_.regions()[region_index_];
    const std::uint64_t region_end = region.pages().end();
    const std::uint64_t from = page_;
    std::uint64_t present = from;
    while (present < region_end) {
      if (cancelled.load(std::memory_order_relaxed)) return false;
      const std::uint64_t limit = std::min(region_end, present + kQueryPages);
      present = finder_.NextPresent(region, present, limit);
      if (present < limit) break;
    }
    const std::uint64_t in_region = present - region.first_page;
    const std::uint64_t chunk = present == region_end
                                    ? region_end
                                    : region.first_page + in_region / kChunkPages * kChunkPages;
    if (chunk > from) ticket->zero_before.push_back({from, chunk - from});
    if (chunk < region_end) {
      ticket->region = &region;
      ticket->pages = {chunk, std::min<std::uint64_t>(kChunkPages, region_end - chunk)};
      page_ = ticket->pages.end();
      ticket->order = next_order_++;
      return true;
    }
    ++region_index_;
    page_ = region_end;
  }
  ended_ = true;
  ticket->order = next_order_++;
  return true;
}

}  // namespace chkpt

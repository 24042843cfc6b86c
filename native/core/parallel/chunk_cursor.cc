#include "core/parallel/chunk_cursor.h"

#include <algorithm>

#include "core/bitmap/dirty_bitmap.h"

namespace chkpt {
namespace {

// One presence query covers at most this much, so that cancelling never waits for a scan of
// terabytes.
constexpr std::uint64_t kQueryPages = (std::uint64_t{16} << 30) / kPageBytes;

}  // namespace

ChunkCursor::ChunkCursor(const GuestMemory& memory, const PresenceFinder& finder,
                         std::span<const std::uint64_t> changed, bool all)
    : memory_(memory), finder_(finder), changed_(changed), all_(all) {}

std::uint64_t ChunkCursor::NextPage(const Region& region, std::uint64_t page,
                                    const std::atomic<bool>& cancelled) const {
  const std::uint64_t end = region.pages().end();
  if (!changed_.empty()) return std::min(end, FirstMarked(changed_, page, end));
  if (all_) return page;
  while (page < end && !cancelled.load(std::memory_order_relaxed)) {
    const std::uint64_t limit = std::min(end, page + kQueryPages);
    page = finder_.NextPresent(region, page, limit);
    if (page < limit) return page;
  }
  return end;
}

bool ChunkCursor::Claim(ChunkTicket* ticket, const std::atomic<bool>& cancelled) {
  const std::lock_guard lock(mutex_);
  ticket->run_before.clear();
  ticket->region = nullptr;
  if (ended_) return false;
  while (region_index_ < memory_.regions().size()) {
    const Region& region = memory_.regions()[region_index_];
    const std::uint64_t region_end = region.pages().end();
    const std::uint64_t from = page_;
    const std::uint64_t next = NextPage(region, from, cancelled);
    if (cancelled.load(std::memory_order_relaxed)) return false;
    const std::uint64_t in_region = next - region.first_page;
    const std::uint64_t chunk =
        next == region_end ? region_end : region.first_page + in_region / kChunkPages * kChunkPages;
    if (chunk > from) ticket->run_before.push_back({from, chunk - from});
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

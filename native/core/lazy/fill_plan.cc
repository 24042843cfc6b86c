#include "core/lazy/fill_plan.h"

#include <algorithm>

namespace chkpt {
namespace {

// A list in pieces this small is shared well among threads.
constexpr std::size_t kListedAtOnce = 16;

}  // namespace

FillPlan::FillPlan(const BlockLayout& layout, std::vector<std::uint32_t> first,
                   std::uint64_t bytes_per_second)
    : layout_(layout), first_(std::move(first)), bytes_per_second_(bytes_per_second) {
  std::erase_if(first_, [&](std::uint32_t block) { return block >= layout.block_count(); });
}

std::vector<std::uint64_t> FillPlan::Next() {
  const std::lock_guard lock(mutex_);
  const std::size_t listed = next_listed_;
  if (listed < first_.size()) {
    const std::size_t end = std::min(first_.size(), listed + kListedAtOnce);
    next_listed_ = end;
    return {first_.begin() + static_cast<std::ptrdiff_t>(listed),
            first_.begin() + static_cast<std::ptrdiff_t>(end)};
  }
  std::vector<std::uint64_t> blocks;
  if (next_block_ == layout_.block_count()) return blocks;
  const std::size_t region = layout_.RegionOfBlock(next_block_);
  const std::uint64_t first = layout_.FirstBlockOf(region);
  const std::uint64_t end =
      std::min(layout_.FirstBlockOf(region + 1),
               first + ((next_block_ - first) / kChunkBlocks + 1) * kChunkBlocks);
  for (; next_block_ < end; ++next_block_) blocks.push_back(next_block_);
  return blocks;
}

FillPlan::Clock::time_point FillPlan::Book(std::uint64_t bytes) {
  if (bytes_per_second_ == 0) return {};
  const std::lock_guard lock(mutex_);
  const auto cost = std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(
      static_cast<double>(bytes) / static_cast<double>(bytes_per_second_)));
  paid_until_ = std::max(paid_until_, Clock::now()) + cost;
  return paid_until_;
}

}  // namespace chkpt

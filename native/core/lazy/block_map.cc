#include "core/lazy/block_map.h"

#include <algorithm>

namespace chkpt {
namespace {

constexpr std::uint32_t kInRun = 0xffffffff;

std::uint64_t BlocksOf(std::uint64_t pages) { return (pages + kBlockPages - 1) / kBlockPages; }

// Index of the last of `firsts` that is not above `value`. REQUIRES: firsts[0] <= value.
std::size_t LastNotAbove(std::span<const std::uint64_t> firsts, std::uint64_t value) {
  const auto above = std::upper_bound(firsts.begin(), firsts.end(), value);
  return static_cast<std::size_t>(above - firsts.begin()) - 1;
}

Error IndexError(const char* message, const IndexGroup& group) {
  return Error{.code = ErrorCode::kFormat,
               .message = message,
               .offset = group.offset,
               .page = group.first_page};
}

}  // namespace

BlockLayout::BlockLayout(std::span<const Region> regions) : first_blocks_{0} {
  for (const Region& region : regions) {
    regions_.push_back(region.pages());
    first_blocks_.push_back(first_blocks_.back() + BlocksOf(region.page_count()));
  }
}

std::size_t BlockLayout::RegionOfBlock(std::uint64_t block) const {
  return LastNotAbove({first_blocks_.data(), regions_.size()}, block);
}

PageRun BlockLayout::PagesOf(std::uint64_t block) const {
  const std::size_t region = RegionOfBlock(block);
  const std::uint64_t first =
      regions_[region].first + (block - first_blocks_[region]) * kBlockPages;
  return {first, std::min<std::uint64_t>(kBlockPages, regions_[region].end() - first)};
}

std::uint64_t BlockLayout::BlockOf(std::uint64_t page) const {
  const auto above = std::upper_bound(
      regions_.begin(), regions_.end(), page,
      [](std::uint64_t value, const PageRun& region) { return value < region.first; });
  const std::size_t region = static_cast<std::size_t>(above - regions_.begin()) - 1;
  return first_blocks_[region] + (page - regions_[region].first) / kBlockPages;
}

Result<BlockMap> BlockMap::Read(const FrameReader& reader, const BlockLayout& layout,
                                std::span<const Region> regions, std::span<const IndexGroup> groups,
                                std::uint64_t end_offset) {
  BlockMap map;
  std::vector<std::uint8_t> buffer;
  const std::uint64_t page_count = regions.back().pages().end();
  std::uint64_t next_page = 0;
  for (const IndexGroup& group : groups) {
    if (group.first_page < next_page || group.first_page >= page_count) {
      return IndexError("the index names page groups out of order", group);
    }
    const auto above = std::upper_bound(
        regions.begin(), regions.end(), group.first_page,
        [](std::uint64_t value, const Region& region) { return value < region.first_page; });
    const PageRun run = BlockIndex::GroupOf(*(above - 1), group.first_page);
    if (run != PageRun{group.first_page, group.page_count}) {
      return IndexError("the index names pages that are no group", group);
    }
    next_page = run.end();
    Result<VerifiedFrame> frame = reader.Read(group.offset, &buffer);
    if (!frame.ok()) return frame.error();
    const FrameHeader& header = frame.value().header;
    if (header.type != static_cast<std::uint32_t>(FrameType::kBlockIndex) ||
        header.arg0 != run.first || header.arg1 != run.count ||
        header.payload_bytes != 8 + 4 * BlocksOf(run.count)) {
      return IndexError("not the block index that the index has here", group);
    }
    Group& added = map.groups_.emplace_back();
    added.first_block = layout.BlockOf(run.first);
    added.offsets.reserve(BlocksOf(run.count));
    const std::uint8_t* payload = frame.value().payload.data();
    const std::uint64_t base = Load<std::uint64_t>(payload);
    for (std::uint64_t i = 0; i < BlocksOf(run.count); ++i) {
      const std::uint32_t entry = Load<std::uint32_t>(payload + 8 + 4 * i);
      const std::uint64_t distance = 8 * std::uint64_t{entry};
      if (entry != kInRun && (base % 8 != 0 || base > end_offset || distance > end_offset - base)) {
        return IndexError("a block index names a place outside the stream", group);
      }
      added.offsets.push_back(entry == kInRun ? kUnknown : base + distance);
    }
  }
  return map;
}

std::optional<std::uint64_t> BlockMap::Find(std::uint64_t block) const {
  const auto above =
      std::upper_bound(groups_.begin(), groups_.end(), block,
                       [](std::uint64_t value, const Group& g) { return value < g.first_block; });
  if (above == groups_.begin()) return std::nullopt;
  const Group& group = *(above - 1);
  const std::uint64_t index = block - group.first_block;
  if (index >= group.offsets.size() || group.offsets[index] == kUnknown) return std::nullopt;
  return group.offsets[index];
}

}  // namespace chkpt

#include "core/format/block_index.h"

#include <algorithm>

#include "core/base/bytes.h"

namespace chkpt {
namespace {

constexpr std::uint32_t kInZeroRun = 0xffffffff;

}  // namespace

PageRun BlockIndex::GroupOf(const Region& region, std::uint64_t page) {
  const std::uint64_t first =
      region.first_page + (page - region.first_page) / kGroupPages * kGroupPages;
  return {first, std::min<std::uint64_t>(kGroupPages, region.pages().end() - first)};
}

void BlockIndex::Begin(PageRun group) {
  group_ = group;
  offsets_.assign((group.count + kBlockPages - 1) / kBlockPages, kUnknown);
}

void BlockIndex::Note(std::uint64_t page, std::uint64_t offset) {
  offsets_[(page - group_.first) / kBlockPages] = offset;
}

void BlockIndex::Encode(std::uint8_t* payload) const {
  const std::uint64_t base = *std::min_element(offsets_.begin(), offsets_.end());
  Store<std::uint64_t>(payload, base);
  for (std::size_t i = 0; i < offsets_.size(); ++i) {
    const std::uint64_t entry = (offsets_[i] - base) / 8;
    // 8192 blocks of at most 66 KiB, and the frames between them, are far below 32 GiB.
    CHKPT_CHECK(offsets_[i] == kUnknown || entry < kInZeroRun);
    Store<std::uint32_t>(payload + 8 + 4 * i,
                         offsets_[i] == kUnknown ? kInZeroRun : static_cast<std::uint32_t>(entry));
  }
}

bool BlockIndex::Describes(std::span<const std::uint8_t> payload) const {
  if (payload.size() != payload_bytes()) return false;
  const std::uint64_t base = Load<std::uint64_t>(payload.data());
  for (std::size_t i = 0; i < offsets_.size(); ++i) {
    const std::uint32_t entry = Load<std::uint32_t>(payload.data() + 8 + 4 * i);
    const bool in_zero_run = entry == kInZeroRun;
    if (in_zero_run != (offsets_[i] == kUnknown)) return false;
    if (!in_zero_run && base + 8 * std::uint64_t{entry} != offsets_[i]) return false;
  }
  return true;
}

}  // namespace chkpt

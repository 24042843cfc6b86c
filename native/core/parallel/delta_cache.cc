#include "core/parallel/delta_cache.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "core/base/check.h"
#include "core/codec/page_delta.h"
#include "core/format/frame.h"

namespace chkpt {
namespace {

// Places that are looked at for one page: what holds the lock stays short.
constexpr int kLooks = 8;
// Below it huge pages take more than they save.
constexpr std::uint64_t kHugeBytes = 16u << 20;

}  // namespace

Result<std::shared_ptr<DeltaCache>> DeltaCache::Create(std::uint64_t page_count,
                                                       std::uint64_t version_count) {
  CHKPT_CHECK(version_count >= 1 && version_count <= kVersionsMax);
  version_count = std::min(version_count, page_count);
  auto slots = Buffer::Map(page_count * sizeof(Slot), false);
  if (!slots.ok()) return slots.error();
  const std::uint64_t bytes = version_count * kPageBytes;
  auto versions = Buffer::Map(bytes, bytes >= kHugeBytes);
  if (!versions.ok()) return versions.error();
  return std::shared_ptr<DeltaCache>(new DeltaCache(
      page_count, version_count, std::move(slots.value()), std::move(versions.value())));
}

DeltaCache::DeltaCache(std::uint64_t page_count, std::uint64_t version_count,
                       std::shared_ptr<Buffer> slots, std::shared_ptr<Buffer> bytes)
    : page_count_(page_count),
      version_count_(version_count),
      slots_buffer_(std::move(slots)),
      bytes_(std::move(bytes)),
      slot_of_page_(reinterpret_cast<Slot*>(slots_buffer_->data())) {}

DeltaCache::Sent DeltaCache::Exchange(std::uint64_t round, std::uint64_t page, std::uint8_t* copy) {
  Slot slot = 0;
  bool is_base = false;
  {
    const std::lock_guard lock(mutex_);
    slot = slot_of_page_[page];
    if (slot == 0) {
      slot = Claim(round, page);
    } else {
      // In this state nobody takes its place.
      is_base = versions_[slot - 1].round < round;
      versions_[slot - 1].round = round;
    }
  }
  if (slot == 0) return {};
  std::uint8_t* const base = BytesOf(slot);
  const std::size_t changed = is_base ? ChangedWords(base, copy) : kPageWords;
  if (changed == 0) {
    unchanged_.fetch_add(1, std::memory_order_relaxed);
    return {.kind = Kind::kUnchanged};
  }
  if (changed > kChangedWordsMax) {
    std::memcpy(base, copy, kPageBytes);
    return {};
  }
  ExchangeForDelta(base, copy);
  deltas_.fetch_add(1, std::memory_order_relaxed);
  return {.kind = Kind::kDelta, .digest = PayloadDigest({base, kPageBytes})};
}

DeltaCache::Slot DeltaCache::Claim(std::uint64_t round, std::uint64_t page) {
  std::size_t index = versions_.size();
  if (index < version_count_) {
    versions_.emplace_back();
  } else {
    int looks = 0;
    for (;; ++looks) {
      if (looks == kLooks) return 0;
      index = hand_;
      hand_ = hand_ + 1 == version_count_ ? 0 : hand_ + 1;
      const Version& version = versions_[index];
      if (version.page == kUnknown || version.round + 1 < round) break;
    }
    Free(static_cast<Slot>(index + 1));
  }
  versions_[index] = {.page = page, .round = round};
  ++kept_;
  return slot_of_page_[page] = static_cast<Slot>(index + 1);
}

void DeltaCache::Free(Slot slot) {
  Version& version = versions_[slot - 1];
  if (version.page == kUnknown) return;
  slot_of_page_[version.page] = 0;
  version.page = kUnknown;
  --kept_;
}

void DeltaCache::Drop(std::uint64_t page) {
  const std::lock_guard lock(mutex_);
  if (const Slot slot = slot_of_page_[page]; slot != 0) Free(slot);
}

void DeltaCache::Forget(const DirtyBitmap& pages) {
  const std::lock_guard lock(mutex_);
  for (std::size_t i = 0; i < versions_.size(); ++i) {
    const std::uint64_t page = versions_[i].page;
    if (page != kUnknown && pages.IsMarked(page)) Free(static_cast<Slot>(i + 1));
  }
}

DeltaCache::Counts DeltaCache::counts() const {
  const std::lock_guard lock(mutex_);
  return {.deltas = deltas_.load(std::memory_order_relaxed),
          .unchanged = unchanged_.load(std::memory_order_relaxed),
          .versions = kept_};
}

}  // namespace chkpt

#include "core/tracking/side_pages.h"

#include <algorithm>

#include "core/memory/mapping.h"

namespace chkpt {
namespace {

constexpr std::uint64_t kSegmentBytes = kHugePageBytes;

}  // namespace

SidePages::SidePages(std::uint64_t byte_count_max)
    : segments_(static_cast<std::size_t>(std::max<std::uint64_t>(
          1, (std::min(byte_count_max, kMemoryBytesMax) + kSegmentBytes - 1) / kSegmentBytes))) {}

SidePages::~SidePages() {
  for (std::size_t i = 0; i < segment_count_; ++i) Unmap(segments_[i], kSegmentBytes);
}

bool SidePages::Grow() {
  if (segment_count_ == segments_.size()) return false;
  Result<std::uint8_t*> segment = MapAnonymous(kSegmentBytes, true);
  if (!segment.ok()) return false;
  const auto first = static_cast<std::uint32_t>(segment_count_ * kSegmentPages);
  segments_[segment_count_++] = segment.value();
  for (std::uint32_t i = kSegmentPages; i > 0; --i) free_.push_back(first + i - 1);
  return true;
}

Status SidePages::Reserve(std::uint64_t byte_count) {
  const std::lock_guard lock(mutex_);
  while (segment_count_ * kSegmentBytes < byte_count && segment_count_ < segments_.size()) {
    if (!Grow()) {
      return Error{.code = ErrorCode::kNoMemory, .message = "no memory for pages set aside"};
    }
    std::uint8_t* const segment = segments_[segment_count_ - 1];
    for (std::uint64_t at = 0; at < kSegmentBytes; at += kPageBytes) {
      *static_cast<volatile std::uint8_t*>(segment + at) = 0;
    }
  }
  return Ok();
}

std::optional<std::uint32_t> SidePages::Take() {
  const std::lock_guard lock(mutex_);
  if (free_.empty() && !Grow()) return std::nullopt;
  const std::uint32_t slot = free_.back();
  free_.pop_back();
  peak_ = std::max(peak_, ++taken_);
  return slot;
}

void SidePages::GiveBack(std::uint32_t slot) {
  const std::lock_guard lock(mutex_);
  free_.push_back(slot);
  --taken_;
}

std::uint64_t SidePages::peak_bytes() const {
  const std::lock_guard lock(mutex_);
  return peak_ * kPageBytes;
}

}  // namespace chkpt

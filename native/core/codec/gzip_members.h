// How guest memory is cut into gzip members, and the table that finds them in their file.
//
// A file is the members of one region, one behind the other: `member_bytes` of memory each, the
// last such member what is left, and the last 16 KiB of the region as four members of 4 KiB. gem5
// reads 16 KiB at a time and stops when it has all: damage behind the last member that it has read
// to its end would go unseen.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "core/base/units.h"

namespace chkpt::gzip {

inline constexpr std::size_t kMemberBytes = 256u << 10;
// What tables of files may ask for.
inline constexpr std::size_t kMemberBytesMax = 4u << 20;

// One member of a file.
struct Member {
  std::uint32_t bytes = 0;   // compressed
  std::uint64_t digest = 0;  // XXH3 of those
  friend bool operator==(const Member&, const Member&) = default;
};

class MemberLayout {
 public:
  // REQUIRES: both are whole pages, not zero; member_bytes <= kMemberBytesMax.
  MemberLayout(std::uint64_t region_bytes, std::size_t member_bytes)
      : region_bytes_(region_bytes),
        member_bytes_(member_bytes),
        large_bytes_(region_bytes - std::min(region_bytes, kSmallMembers * kPageBytes)),
        large_count_((large_bytes_ + member_bytes - 1) / member_bytes) {}

  std::uint64_t count() const { return large_count_ + (region_bytes_ - large_bytes_) / kPageBytes; }
  // Of the memory in the member. Units: bytes from the start of the region.
  std::uint64_t StartOf(std::uint64_t index) const {
    if (index < large_count_) return index * member_bytes_;
    return large_bytes_ + (index - large_count_) * kPageBytes;
  }
  std::size_t BytesOf(std::uint64_t index) const {
    if (index >= large_count_) return kPageBytes;
    return static_cast<std::size_t>(
        std::min<std::uint64_t>(member_bytes_, large_bytes_ - index * member_bytes_));
  }

 private:
  static constexpr std::uint64_t kSmallMembers = 4;

  const std::uint64_t region_bytes_;
  const std::uint64_t member_bytes_;
  const std::uint64_t large_bytes_;  // before the small members
  const std::uint64_t large_count_;
};

}  // namespace chkpt::gzip

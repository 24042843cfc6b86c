// SidePages: where pages wait that a guest wants to overwrite before they were encoded. Grows by 2
// MiB when it is needed, up to a limit; what is given back is used again.
//
// Units: slots, one page each. Thread safety: any.
#pragma once

#include <cstdint>
#include <mutex>
#include <optional>
#include <vector>

#include "core/base/result.h"
#include "core/base/units.h"

namespace chkpt {

class SidePages {
 public:
  // At most `byte_count_max`, rounded up to 2 MiB.
  explicit SidePages(std::uint64_t byte_count_max);
  ~SidePages();
  SidePages(const SidePages&) = delete;
  SidePages& operator=(const SidePages&) = delete;

  // Makes that much memory ready, so that Take need not wait for the kernel. Error: kNoMemory.
  Status Reserve(std::uint64_t byte_count);
  // Nothing at the limit, or when the system has no memory.
  std::optional<std::uint32_t> Take();
  void GiveBack(std::uint32_t slot);
  // REQUIRES: taken.
  std::uint8_t* data(std::uint32_t slot) const {
    return segments_[slot / kSegmentPages] + slot % kSegmentPages * kPageBytes;
  }

  // Most bytes that were taken at one time.
  std::uint64_t peak_bytes() const;

 private:
  static constexpr std::uint32_t kSegmentPages = 512;
  bool Grow();

  mutable std::mutex mutex_;
  // As many as there may be; set before a slot of theirs is given out.
  std::vector<std::uint8_t*> segments_;
  std::size_t segment_count_ = 0;
  std::vector<std::uint32_t> free_;
  std::uint64_t taken_ = 0;
  std::uint64_t peak_ = 0;
};

}  // namespace chkpt

// Slabs: page-aligned native buffers that JavaScript sees without a copy. A fixed number of them is
// the back-pressure of a pipeline and the bound on its memory.
//
// Ownership: SlabMemory owns one mapping cut into equal slabs. JavaScript views keep it alive
// through a shared_ptr, so a view outlives its pipeline safely.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "core/base/result.h"
#include "core/base/units.h"

namespace chkpt {

// 256 MiB of guest memory: below it a load is over before huge pages have paid.
inline constexpr std::uint64_t kHugeSlabPages = (256u << 20) / kPageBytes;

class SlabMemory {
 public:
  // slab_bytes is rounded up to whole pages. `huge_pages` makes the first touch and the giving back
  // cheap and takes up to 2 MiB more: for guests of kHugeSlabPages and more. Error: kNoMemory.
  static Result<std::shared_ptr<SlabMemory>> Allocate(std::size_t slab_count,
                                                      std::size_t slab_bytes, bool huge_pages);
  ~SlabMemory();
  SlabMemory(const SlabMemory&) = delete;
  SlabMemory& operator=(const SlabMemory&) = delete;

  std::size_t slab_count() const { return slab_count_; }
  std::size_t slab_bytes() const { return slab_bytes_; }
  // REQUIRES: index < slab_count().
  std::uint8_t* slab(std::size_t index) const { return base_ + index * slab_bytes_; }

 private:
  SlabMemory(std::uint8_t* base, std::size_t slab_count, std::size_t slab_bytes)
      : base_(base), slab_count_(slab_count), slab_bytes_(slab_bytes) {}
  std::uint8_t* const base_;
  const std::size_t slab_count_;
  const std::size_t slab_bytes_;
};

}  // namespace chkpt

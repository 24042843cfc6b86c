#include "core/parallel/slab_pool.h"

#include "core/memory/mapping.h"

namespace chkpt {

Result<std::shared_ptr<SlabMemory>> SlabMemory::Allocate(std::size_t slab_count,
                                                         std::size_t slab_bytes, bool huge_pages) {
  slab_bytes = (slab_bytes + kPageBytes - 1) / kPageBytes * kPageBytes;
  auto base = MapAnonymous(slab_count * slab_bytes, huge_pages);
  if (!base.ok()) return base.error();
  return std::shared_ptr<SlabMemory>(new SlabMemory(base.value(), slab_count, slab_bytes));
}

SlabMemory::~SlabMemory() { Unmap(base_, slab_count_ * slab_bytes_); }

}  // namespace chkpt

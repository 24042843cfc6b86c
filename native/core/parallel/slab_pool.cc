#include "core/parallel/slab_pool.h"

#include <sys/mman.h>

#include <cerrno>

#include "core/base/units.h"

namespace chkpt {

Result<std::shared_ptr<SlabMemory>> SlabMemory::Allocate(std::size_t slab_count,
                                                         std::size_t slab_bytes) {
  slab_bytes = (slab_bytes + kPageBytes - 1) / kPageBytes * kPageBytes;
  void* base = mmap(nullptr, slab_count * slab_bytes, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (base == MAP_FAILED) return SystemError(errno, "cannot allocate slabs");
  // Guest data passes through: not for core dumps, not for children.
  madvise(base, slab_count * slab_bytes, MADV_DONTDUMP);
  madvise(base, slab_count * slab_bytes, MADV_DONTFORK);
  return std::shared_ptr<SlabMemory>(
      new SlabMemory(static_cast<std::uint8_t*>(base), slab_count, slab_bytes));
}

SlabMemory::~SlabMemory() { munmap(base_, slab_count_ * slab_bytes_); }

}  // namespace chkpt

// One region of guest memory into a file of gzip members, on several threads.
//
//   claim member ─► presence ─► copy out ─► zero? ─► DEFLATE of the copy, CRC, digest
//                ─► (in order) place in the file ─► write
//
// Untouched memory is not read, and members of zeros are all one that was made before. The file
// does not depend on the number of threads. Bounded memory: two buffers of a member for each
// thread, and two more; a thread takes a free one before it claims, so the oldest member that was
// claimed always has one.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "core/base/result.h"
#include "core/codec/gzip_members.h"
#include "core/memory/guest_memory.h"
#include "core/memory/presence.h"
#include "core/parallel/slab_output.h"

namespace chkpt::gzip {

struct SaveOptions {
  unsigned threads = 1;
  std::size_t member_bytes = kMemberBytes;
  PagemapMethod presence = PagemapMethod::kScan;
  // Pages of the region that are done, when wanted.
  std::atomic<std::uint64_t>* pages_done = nullptr;
};

// Blocks until it is done, on threads of its own. `cancelled` is asked for each member, by any of
// them. The members in order. Errors: kIo, kNoSpace and others of the output, kMemoryShort,
// kAborted; the file then holds anything.
Result<std::vector<Member>> SaveRegion(const GuestMemory& memory, const Region& region,
                                       const SlabOutput& output, const SaveOptions& options,
                                       const std::function<bool()>& cancelled);

}  // namespace chkpt::gzip

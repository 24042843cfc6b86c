// A file of gzip members into one region of guest memory. Untrusted input.
//
// With a table of its members on several threads, each member's digest verified before it is
// decoded. Without one, as for files that gem5 wrote, which are one member however large, on one
// thread: CRC and length of each member are verified after it was decoded. Either way exactly the
// region's bytes, and nothing behind the last member.
//
// Pages of zeros are not written to memory that is fresh. Bounded memory: about 1 MiB for each
// thread.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>

#include "core/base/result.h"
#include "core/codec/gzip_members.h"
#include "core/memory/guest_memory.h"

namespace chkpt::gzip {

struct LoadOptions {
  unsigned threads = 1;  // of LoadMembers
  std::size_t member_bytes = kMemberBytes;
  // Pages of the region that are done, when wanted.
  std::atomic<std::uint64_t>* pages_done = nullptr;
};

// Both block until they are done; `cancelled` is asked for each member or piece, by any thread.
// After an error the region holds anything. Errors: kFormat, kTruncated, kTrailingData, kDecode,
// kDigest, kLimit; kIo, kPermission, kAborted. With a table they name the offset of the member.

// REQUIRES: as many members as the layout of the region has.
Status LoadMembers(GuestMemory& memory, const Region& region, int fd,
                   std::span<const Member> members, const LoadOptions& options,
                   const std::function<bool()>& cancelled);

// `file_bytes`: what is there to read.
Status LoadStream(GuestMemory& memory, const Region& region, int fd, std::uint64_t file_bytes,
                  const LoadOptions& options, const std::function<bool()>& cancelled);

}  // namespace chkpt::gzip

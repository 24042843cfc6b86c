// Files that hold guest memory: their size, what they store, and holes in them. ReadAll and
// WriteAll are declared in guest_memory.h.
//
// Thread safety: any number of threads on one descriptor. NextData and NextHole move the file
// position of the open file, which duplicates share; nothing here uses that position.
#pragma once

#include <cstdint>

#include "core/base/result.h"

namespace chkpt {

// Bytes of a regular file or a block device. Error: kUnsupported for anything else.
Result<std::uint64_t> FileBytes(int fd);

// First byte at or after `offset` that the file stores; kUnknown when there is none up to the end
// of the file. Error: the file system cannot tell.
Result<std::uint64_t> NextData(int fd, std::uint64_t offset);
// First byte at or after `offset` that the file does not store; the end of the file at the latest.
Result<std::uint64_t> NextHole(int fd, std::uint64_t offset);

// Makes the range a hole without changing the size of the file. False when the file system cannot.
bool PunchHole(int fd, std::uint64_t offset, std::uint64_t bytes);
// Writes zeros over the range.
Status WriteZeros(int fd, std::uint64_t offset, std::uint64_t bytes);

}  // namespace chkpt

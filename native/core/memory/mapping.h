// Address space for guest memory: how each kind of backing is mapped.
//
// All mappings are kept out of child processes (MADV_DONTFORK: a fork would make every page of a
// running guest copy on write) and out of core dumps. The caller owns what is returned and gives it
// back with Unmap.
#pragma once

#include <cstdint>

#include "core/base/result.h"

namespace chkpt {

inline constexpr std::uint64_t kHugePageBytes = std::uint64_t{2} << 20;

// Page size of this kernel: 4096 on x86-64, up to 64 KiB elsewhere.
std::uint64_t SystemPageBytes();

// Private anonymous memory without reservation, aligned to 2 MiB. `huge_pages` asks for transparent
// huge pages.
Result<std::uint8_t*> MapAnonymous(std::uint64_t bytes, bool huge_pages);

// Private hugetlb memory of 2 MiB pages, reserved from the pool now: without that, the first touch
// of a page that the pool cannot give would be a SIGBUS. Errors: kFormat (bytes not a multiple of 2
// MiB), kNoMemory (pool too small).
Result<std::uint8_t*> MapHugetlb(std::uint64_t bytes);

struct MemfdMapping {
  std::uint8_t* host = nullptr;
  int fd = -1;
};
// A new memfd of `bytes`, mapped shared and aligned to 2 MiB. Its size is sealed: whoever gets the
// descriptor cannot cut the file under the guest.
Result<MemfdMapping> MapMemfd(std::uint64_t bytes, bool huge_pages);

// A range of a caller's file, mapped shared.
Result<std::uint8_t*> MapFile(int fd, std::uint64_t offset, std::uint64_t bytes, bool writable);

// The same, writable and aligned to 2 MiB; what is written stays in this mapping.
Result<std::uint8_t*> MapFilePrivately(int fd, std::uint64_t offset, std::uint64_t bytes);

void Unmap(std::uint8_t* host, std::uint64_t bytes);

// Makes a range of private anonymous memory of MapAnonymous read as zeros and frees its pages.
void DiscardAnonymous(std::uint8_t* host, std::uint64_t bytes);

}  // namespace chkpt

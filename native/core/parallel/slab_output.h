// Where the threads of a save write slabs themselves: one stretch of an open file, or nowhere.
//
// Slabs are written at their place in the stream, in any order and several at a time. The
// descriptor is a duplicate: whoever opened the file may close it at any moment.
//
// Thread safety: any number of threads.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "core/base/owned_fd.h"
#include "core/base/result.h"

namespace chkpt {

class SlabOutput {
 public:
  // Into the file of `fd`, from `position` on. Error: the descriptor cannot be duplicated.
  static Result<std::shared_ptr<SlabOutput>> Open(int fd, std::uint64_t position);
  // Throws everything away.
  static std::shared_ptr<SlabOutput> Discard();

  // `offset`: bytes from the start. Errors: as SystemError, with errno.
  Status Write(std::uint64_t offset, std::span<const std::uint8_t> bytes) const;

 private:
  SlabOutput(OwnedFd file, std::uint64_t position) : file_(std::move(file)), position_(position) {}

  // Has the kernel begin to write the pages out, so that a flush at the end waits for less.
  void StartWriteback(std::uint64_t offset, std::size_t bytes) const;

  const OwnedFd file_;  // -1: nowhere
  const std::uint64_t position_;
};

}  // namespace chkpt

// Where the bytes of a checkpoint are, for threads that must not wait for anybody else: files, read
// with pread (never mapped: a file that somebody cuts is an error, not a SIGBUS), or memory.
//
// Thread safety: Read from any thread.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "core/base/owned_fd.h"
#include "core/base/result.h"

namespace chkpt {

class BlockSource {
 public:
  virtual ~BlockSource() = default;
  // All of `target`, from `offset` of the stream on. Errors: kTruncated (the stream ends before),
  // kIo, kAborted.
  virtual Status Read(std::uint64_t offset, std::span<std::uint8_t> target) = 0;
  // The same bytes where they are, when they are memory in one piece that does not change as long
  // as the source lives. Empty: Read has to be called.
  virtual std::span<const std::uint8_t> View(std::uint64_t /*offset*/, std::size_t /*bytes*/) {
    return {};
  }
  // Reads under way, and all later ones, end with kAborted. Files and memory need none of it: their
  // reads end by themselves.
  virtual void Cancel() {}
  // Of a source whose bytes its owner has to be asked for, which takes long: how many there are.
  // Readers then ask once for all that they may need, and nobody waits who must not.
  virtual std::optional<std::uint64_t> asked_bytes() const { return std::nullopt; }
};

// Extents of the stream, one behind the other from offset 0 on.
class ExtentSource final : public BlockSource {
 public:
  struct Extent {
    std::uint64_t bytes = 0;
    int fd = -1;                                    // -1: in memory
    std::uint64_t fd_offset = 0;                    // where it starts in the file
    const std::uint8_t* memory = nullptr;           // the caller keeps it alive and unchanged
    std::shared_ptr<BlockSource> source = nullptr;  // all of another one, instead of both
  };
  // Descriptors are duplicated, each once; the caller keeps its own. Errors: kFormat, kIo.
  static Result<std::unique_ptr<ExtentSource>> Open(std::span<const Extent> extents);
  ExtentSource(const ExtentSource&) = delete;
  ExtentSource& operator=(const ExtentSource&) = delete;

  std::uint64_t byte_count() const { return starts_.back(); }
  Status Read(std::uint64_t offset, std::span<std::uint8_t> target) override;
  std::span<const std::uint8_t> View(std::uint64_t offset, std::size_t bytes) override;

 private:
  ExtentSource() = default;
  std::map<int, OwnedFd> files_;  // by the caller's descriptor
  std::vector<Extent> extents_;
  std::vector<std::uint64_t> starts_ = {0};  // of each extent, and the end of the last one
};

}  // namespace chkpt

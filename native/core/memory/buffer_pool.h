// Buffers that are used again: slabs, staging, scratch and tables of one pipeline go to the next.
// The first touch of memory costs more than all that is done with it, above all where a host takes
// back what its guest frees; and each new buffer that JavaScript sees counts towards its next
// garbage collection.
//
// Ownership: a Buffer lives as long as anybody holds it: pool, pipeline or a JavaScript view. So a
// view that is kept too long sees bytes of a later use or zeros, never an unmapped page. Who cannot
// be sure that nobody else reads or writes a buffer (I/O still under way, the view was transferred)
// does not give it back: it is then freed with its last holder.
//
// Content: what the last use left, except in a buffer that was never given back, which is zeros.
// Nothing leaves the process: buffers are kept out of core dumps and child processes.
//
// Thread safety: all of it from any thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "core/base/result.h"
#include "core/base/units.h"

namespace chkpt {

// 256 MiB of guest memory: below it a save or load is over before huge pages have paid.
inline constexpr std::uint64_t kHugeBufferPages = (256u << 20) / kPageBytes;

// One mapping of its own, aligned to 2 MiB.
class Buffer {
 public:
  // `bytes` is rounded up to whole pages. `huge_pages` makes the first touch and the giving back
  // cheap and takes up to 2 MiB more. Error: kNoMemory.
  static Result<std::shared_ptr<Buffer>> Map(std::uint64_t bytes, bool huge_pages);
  ~Buffer();
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  std::uint8_t* data() const { return data_; }
  std::uint64_t bytes() const { return bytes_; }
  bool huge_pages() const { return huge_pages_; }
  // False: zeros, as long as the holder has not written.
  bool used_before() const { return used_before_; }

  // Somebody else may read or write it from now on: no pool takes it back.
  void Spoil() { spoiled_ = true; }
  bool spoiled() const { return spoiled_; }

  // Frees the pages; the buffer reads as zeros then. REQUIRES: nobody uses it; views may exist.
  void Discard();

 private:
  friend class BufferPool;
  Buffer(std::uint8_t* data, std::uint64_t bytes, bool huge_pages)
      : data_(data), bytes_(bytes), huge_pages_(huge_pages) {}
  void CountIn(std::shared_ptr<std::atomic<std::uint64_t>> counter);
  void CountOut();

  std::uint8_t* const data_;
  const std::uint64_t bytes_;
  const bool huge_pages_;
  std::atomic<bool> spoiled_{false};
  bool used_before_ = false;  // written by the pool, while nobody uses the buffer
  std::shared_ptr<std::atomic<std::uint64_t>> counter_;  // bytes of all buffers of a pool
};

class BufferPool {
 public:
  // Most bytes of all buffers, used or not, while any lie idle: what a save or a load of two
  // threads takes. Of what lies idle as much as is above is freed, oldest first.
  static constexpr std::uint64_t kIdleBytesMax = 24u << 20;

  BufferPool() = default;
  BufferPool(const BufferPool&) = delete;
  BufferPool& operator=(const BufferPool&) = delete;

  // An idle buffer of this size, the newest, or a new one, for which as much of what lies idle is
  // freed, oldest first: a load after a save does not have the save's buffers on top of its own.
  // Without `huge_pages` either kind is given. Error: kNoMemory.
  Result<std::shared_ptr<Buffer>> Take(std::uint64_t bytes, bool huge_pages);

  // REQUIRES: nobody uses the buffer any more; views of it may still exist.
  void GiveBack(std::shared_ptr<Buffer> buffer);

  std::uint64_t idle_bytes() const;

 private:
  // The oldest idle buffers, at least `bytes` of them and all that is above the bound when
  // `new_bytes` come. REQUIRES: mutex_ is held.
  std::vector<std::shared_ptr<Buffer>> TakeOldest(std::uint64_t bytes, std::uint64_t new_bytes);

  const std::shared_ptr<std::atomic<std::uint64_t>> all_bytes_ =
      std::make_shared<std::atomic<std::uint64_t>>(0);
  mutable std::mutex mutex_;
  std::vector<std::shared_ptr<Buffer>> idle_;  // oldest first
  std::uint64_t idle_bytes_ = 0;
};

// A buffer that goes back to its pool at the end of this object's life.
class PooledBuffer {
 public:
  // Error: kNoMemory.
  static Result<PooledBuffer> Take(std::shared_ptr<BufferPool> pool, std::uint64_t bytes,
                                   bool huge_pages);
  ~PooledBuffer();
  PooledBuffer(PooledBuffer&&) = default;
  PooledBuffer& operator=(PooledBuffer&&) = delete;

  std::uint8_t* data() const { return buffer_->data(); }
  std::uint64_t bytes() const { return buffer_->bytes(); }
  bool used_before() const { return buffer_->used_before(); }

 private:
  PooledBuffer(std::shared_ptr<BufferPool> pool, std::shared_ptr<Buffer> buffer)
      : pool_(std::move(pool)), buffer_(std::move(buffer)) {}

  std::shared_ptr<BufferPool> pool_;
  std::shared_ptr<Buffer> buffer_;  // null: moved from
};

}  // namespace chkpt

#include "core/memory/buffer_pool.h"

#include <algorithm>

#include "core/memory/mapping.h"

namespace chkpt {
namespace {

std::uint64_t WholePages(std::uint64_t bytes) {
  return (bytes + kPageBytes - 1) / kPageBytes * kPageBytes;
}

}  // namespace

Result<std::shared_ptr<Buffer>> Buffer::Map(std::uint64_t bytes, bool huge_pages) {
  auto data = MapAnonymous(WholePages(bytes), huge_pages);
  if (!data.ok()) return data.error();
  return std::shared_ptr<Buffer>(new Buffer(data.value(), WholePages(bytes), huge_pages));
}

Buffer::~Buffer() { Unmap(data_, bytes_); }

Result<std::shared_ptr<Buffer>> BufferPool::Take(std::uint64_t bytes, bool huge_pages) {
  std::vector<std::shared_ptr<Buffer>> freed;  // after the lock: unmapping takes its time
  {
    const std::lock_guard lock(mutex_);
    const auto found = std::find_if(idle_.rbegin(), idle_.rend(), [&](const auto& buffer) {
      return buffer->bytes() == WholePages(bytes) && (buffer->huge_pages() || !huge_pages);
    });
    if (found != idle_.rend()) {
      std::shared_ptr<Buffer> buffer = std::move(*found);
      idle_.erase(std::next(found).base());
      idle_bytes_ -= buffer->bytes();
      return buffer;
    }
    FreeIdle(WholePages(bytes), &freed);
  }
  return Buffer::Map(bytes, huge_pages);
}

void BufferPool::GiveBack(std::shared_ptr<Buffer> buffer) {
  if (buffer->spoiled()) return;
  std::vector<std::shared_ptr<Buffer>> freed;  // after the lock: unmapping takes its time
  const std::lock_guard lock(mutex_);
  buffer->used_before_ = true;
  idle_bytes_ += buffer->bytes();
  idle_.push_back(std::move(buffer));
  if (idle_bytes_ > kIdleBytesMax) FreeIdle(idle_bytes_ - kIdleBytesMax, &freed);
}

void BufferPool::FreeIdle(std::uint64_t bytes, std::vector<std::shared_ptr<Buffer>>* freed) {
  std::uint64_t done = 0;
  auto kept = idle_.begin();
  for (; kept != idle_.end() && done < bytes; ++kept) {
    done += (*kept)->bytes();
    freed->push_back(std::move(*kept));
  }
  idle_.erase(idle_.begin(), kept);
  idle_bytes_ -= done;
}

std::uint64_t BufferPool::idle_bytes() const {
  const std::lock_guard lock(mutex_);
  return idle_bytes_;
}

Result<PooledBuffer> PooledBuffer::Take(std::shared_ptr<BufferPool> pool, std::uint64_t bytes,
                                        bool huge_pages) {
  auto buffer = pool->Take(bytes, huge_pages);
  if (!buffer.ok()) return buffer.error();
  return PooledBuffer(std::move(pool), std::move(buffer.value()));
}

PooledBuffer::~PooledBuffer() {
  if (buffer_ != nullptr) pool_->GiveBack(std::move(buffer_));
}

}  // namespace chkpt

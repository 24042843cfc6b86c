#include "core/memory/buffer_pool.h"

#include <algorithm>

#include "core/memory/mapping.h"

namespace chkpt {
namespace {

std::uint64_t WholePages(std::uint64_t bytes) {
  return (bytes + kPageBytes - 1) / kPageBytes * kPageBytes;
}

// The pages go at once. What is left of them is address space, until the garbage collector comes to
// the last view.
void Free(std::vector<std::shared_ptr<Buffer>> buffers) {
  for (const auto& buffer : buffers) {
    if (buffer.use_count() > 1) buffer->Discard();
  }
}

}  // namespace

Result<std::shared_ptr<Buffer>> Buffer::Map(std::uint64_t bytes, bool huge_pages) {
  auto data = MapAnonymous(WholePages(bytes), huge_pages);
  if (!data.ok()) return data.error();
  return std::shared_ptr<Buffer>(new Buffer(data.value(), WholePages(bytes), huge_pages));
}

Buffer::~Buffer() {
  Unmap(data_, bytes_);
  CountOut();
}

void Buffer::Discard() {
  DiscardAnonymous(data_, bytes_);
  CountOut();
}

void Buffer::CountIn(std::shared_ptr<std::atomic<std::uint64_t>> counter) {
  counter_ = std::move(counter);
  *counter_ += bytes_;
}

void Buffer::CountOut() {
  if (counter_ != nullptr) *counter_ -= bytes_;
  counter_ = nullptr;
}

Result<std::shared_ptr<Buffer>> BufferPool::Take(std::uint64_t bytes, bool huge_pages) {
  std::vector<std::shared_ptr<Buffer>> oldest;
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
    oldest = TakeOldest(WholePages(bytes), WholePages(bytes));
  }
  Free(std::move(oldest));  // without the lock: it takes its time
  auto mapped = Buffer::Map(bytes, huge_pages);
  if (mapped.ok()) mapped.value()->CountIn(all_bytes_);
  return mapped;
}

void BufferPool::GiveBack(std::shared_ptr<Buffer> buffer) {
  if (buffer->spoiled()) return;
  std::vector<std::shared_ptr<Buffer>> oldest;
  {
    const std::lock_guard lock(mutex_);
    buffer->used_before_ = true;
    idle_bytes_ += buffer->bytes();
    idle_.push_back(std::move(buffer));
    oldest = TakeOldest(0, 0);
  }
  Free(std::move(oldest));
}

std::vector<std::shared_ptr<Buffer>> BufferPool::TakeOldest(std::uint64_t bytes,
                                                            std::uint64_t new_bytes) {
  std::vector<std::shared_ptr<Buffer>> taken;
  const std::uint64_t wanted = *all_bytes_ + new_bytes;
  if (wanted > kIdleBytesMax) bytes = std::max(bytes, wanted - kIdleBytesMax);
  std::uint64_t done = 0;
  auto kept = idle_.begin();
  for (; kept != idle_.end() && done < bytes; ++kept) {
    done += (*kept)->bytes();
    taken.push_back(std::move(*kept));
  }
  idle_.erase(idle_.begin(), kept);
  idle_bytes_ -= done;
  return taken;
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

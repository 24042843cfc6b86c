#include "core/lazy/shared_image.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <utility>

namespace chkpt {
namespace {

constexpr std::uint64_t kStopId = 0;

Status Watch(int epoll_fd, int fd, std::uint64_t id) {
  epoll_event event = {};
  event.events = EPOLLIN;
  event.data.u64 = id;
  if (::epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0) return Ok();
  return SystemError(errno, "waiting for faults of a clone");
}

}  // namespace

// A clone as the threads see it: where it is mapped, and who waits in it.
struct SharedImage::CloneRecord {
  std::unique_ptr<Userfault> userfault;
  std::vector<Region> regions;
  const GuestMemory* memory = nullptr;  // compared only
  std::uint32_t owner_thread = 0;

  std::mutex mutex;
  bool released = false;
  std::vector<std::uint64_t> held;  // damaged blocks in which somebody sleeps

  std::uint8_t* HostOf(const BlockLayout& layout, std::uint64_t block) const {
    const Region& region = regions[layout.RegionOfBlock(block)];
    return region.host + (layout.PagesOf(block).first - region.first_page) * kPageBytes;
  }
};

// What a clone holds: the image, and its place in it.
class SharedImage::Keeper {
 public:
  Keeper(std::shared_ptr<SharedImage> image, std::uint64_t id)
      : image_(std::move(image)), id_(id) {}
  ~Keeper() { image_->Forget(id_); }
  Keeper(const Keeper&) = delete;
  Keeper& operator=(const Keeper&) = delete;

 private:
  const std::shared_ptr<SharedImage> image_;
  const std::uint64_t id_;
};

Result<std::shared_ptr<SharedImage>> SharedImage::Start(std::span<const RegionSpec> regions,
                                                        std::vector<LazyLayer> layers,
                                                        LazyOptions options,
                                                        std::function<void()> notify) {
  auto memory = GuestMemory::Allocate(regions, {.backing = Backing::kMemfd, .huge_pages = false});
  if (!memory.ok()) return memory.error();
  for (const LazyLayer& layer : layers) {
    if (!layer.source->asked_bytes()) continue;
    return Error{.code = ErrorCode::kUnsupported, .message = "who serves clones must not wait"};
  }
  const unsigned threads = options.handler_threads;
  options.handler_threads = 1;  // nobody touches the image itself
  options.poison = false;
  auto loader = LazyLoader::Start(memory.value(), std::move(layers), std::move(options), notify);
  if (!loader.ok()) return loader.error();
  std::shared_ptr<SharedImage> image(new SharedImage(
      std::move(memory.value()), std::move(loader.value()), threads, std::move(notify)));
  if (image->stop_fd_ < 0 || image->epoll_fd_ < 0) return SystemError(errno, "making an epoll");
  Status watched = Watch(image->epoll_fd_, image->stop_fd_, kStopId);
  if (!watched.ok()) return watched.error();
  return image;
}

SharedImage::SharedImage(std::shared_ptr<GuestMemory> memory, std::unique_ptr<LazyLoader> loader,
                         unsigned threads, std::function<void()> notify)
    : memory_(std::move(memory)),
      loader_(std::move(loader)),
      thread_count_(threads),
      stop_fd_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
      epoll_fd_(::epoll_create1(EPOLL_CLOEXEC)),
      threads_(std::move(notify)) {}

SharedImage::~SharedImage() {
  Cancel();
  Join();
  if (stop_fd_ >= 0) ::close(stop_fd_);
  if (epoll_fd_ >= 0) ::close(epoll_fd_);
}

Result<std::shared_ptr<GuestMemory>> SharedImage::Clone(std::uint32_t owner_thread) {
  auto userfault = Userfault::Open();
  if (!userfault.ok()) return userfault.error();
  auto record = std::make_shared<CloneRecord>();
  record->userfault = std::move(userfault.value());
  record->owner_thread = owner_thread;
  std::uint64_t id = 0;
  {
    const std::lock_guard lock(mutex_);
    if (cancelled_) return Error{.code = ErrorCode::kClosed, .message = "the image is closed"};
    id = next_id_++;
    clones_.emplace(id, record);
    // With the first clone: until then there is nothing to serve.
    for (unsigned i = 0; i < thread_count_ && !serving_; ++i) threads_.Start([this] { Serve(); });
    serving_ = true;
  }
  auto keeper = std::make_shared<Keeper>(shared_from_this(), id);
  auto memory = GuestMemory::CloneOf(*memory_, std::move(keeper));
  if (!memory.ok()) return memory;
  {
    const std::lock_guard lock(mutex_);
    record->memory = memory.value().get();
    record->regions.assign(memory.value()->regions().begin(), memory.value()->regions().end());
  }
  for (const Region& region : record->regions) {
    Status registered = record->userfault->Register(region.host, region.bytes);
    if (!registered.ok()) return registered.error();
  }
  Status watched = Watch(epoll_fd_, record->userfault->fd(), id);
  if (!watched.ok()) return watched.error();
  return memory;
}

std::shared_ptr<SharedImage::CloneRecord> SharedImage::Find(std::uint64_t id) const {
  const std::lock_guard lock(mutex_);
  const auto found = clones_.find(id);
  return found == clones_.end() ? nullptr : found->second;
}

void SharedImage::Forget(std::uint64_t id) {
  std::shared_ptr<CloneRecord> record;
  const std::lock_guard lock(mutex_);
  const auto found = clones_.find(id);
  if (found == clones_.end()) return;
  static_cast<void>(::epoll_ctl(epoll_fd_, EPOLL_CTL_DEL, found->second->userfault->fd(), nullptr));
  record = std::move(found->second);
  clones_.erase(found);
}

void SharedImage::Serve() {
  LazyLoader::Fetcher fetcher(*loader_);
  while (!cancelled_) {
    epoll_event event = {};
    const int count = ::epoll_wait(epoll_fd_, &event, 1, -1);
    if (count < 0 && errno != EINTR) return;
    if (count <= 0) continue;
    if (event.data.u64 == kStopId) return;
    // Another thread may have taken the fault, or the clone may be gone.
    const std::shared_ptr<CloneRecord> clone = Find(event.data.u64);
    if (clone == nullptr) continue;
    if (const auto fault = clone->userfault->Next()) ServeFault(*clone, *fault, fetcher);
  }
}

void SharedImage::ServeFault(CloneRecord& clone, const Userfault::Fault& fault,
                             LazyLoader::Fetcher& fetcher) {
  const Region* found = nullptr;
  for (const Region& region : clone.regions) {
    if (fault.address >= region.host && fault.address < region.host + region.bytes) found = &region;
  }
  if (found == nullptr) return;
  const BlockLayout& layout = loader_->layout();
  const std::uint64_t page =
      found->first_page + static_cast<std::uint64_t>(fault.address - found->host) / kPageBytes;
  const std::uint64_t block = layout.BlockOf(page);
  std::uint8_t* const host = clone.HostOf(layout, block);
  const std::uint64_t bytes = layout.PagesOf(block).count * kPageBytes;
  if (loader_->IsZero(block)) {
    static_cast<void>(clone.userfault->Zero(host, bytes));
    return;
  }
  switch (fetcher.Require(block)) {
    case BlockStates::State::kPresent: clone.userfault->Wake(host, bytes); return;
    case BlockStates::State::kDamaged: break;
    default: return;  // the image ends
  }
  {
    const std::lock_guard lock(clone.mutex);
    const bool is_owner = fault.thread == clone.owner_thread && fault.thread != 0;
    if (!clone.released && !is_owner) return clone.held.push_back(block);
  }
  Quarantine(clone, block);
}

void SharedImage::Quarantine(CloneRecord& clone, std::uint64_t block) {
  static constexpr auto kPattern = [] {
    std::array<std::uint8_t, kBlockBytes> bytes{};
    bytes.fill(LazyLoader::kDamagePattern);
    return bytes;
  }();
  const BlockLayout& layout = loader_->layout();
  static_cast<void>(clone.userfault->Copy(clone.HostOf(layout, block), kPattern.data(),
                                          layout.PagesOf(block).count * kPageBytes));
}

std::shared_ptr<SharedImage::CloneRecord> SharedImage::FindOf(const GuestMemory& clone) const {
  const std::lock_guard lock(mutex_);
  for (const auto& [id, record] : clones_) {
    if (record->memory == &clone) return record;
  }
  return nullptr;
}

void SharedImage::Hold(const GuestMemory& memory) {
  const std::shared_ptr<CloneRecord> clone = FindOf(memory);
  if (clone == nullptr) return;
  const std::lock_guard lock(clone->mutex);
  clone->released = false;
}

void SharedImage::Release(const GuestMemory& memory) {
  const std::shared_ptr<CloneRecord> clone = FindOf(memory);
  if (clone == nullptr) return;
  std::vector<std::uint64_t> held;
  {
    const std::lock_guard lock(clone->mutex);
    clone->released = true;
    held = std::exchange(clone->held, {});
  }
  for (const std::uint64_t block : held) Quarantine(*clone, block);
}

void SharedImage::Cancel() {
  {
    const std::lock_guard lock(mutex_);
    cancelled_ = true;
  }
  const std::uint64_t one = 1;
  if (stop_fd_ >= 0) static_cast<void>(!::write(stop_fd_, &one, sizeof one));
  loader_->Cancel();
}

void SharedImage::Join() {
  threads_.Join();
  loader_->Join();
  // Whoever sleeps in a clone goes on.
  const std::lock_guard lock(mutex_);
  for (const auto& [id, record] : clones_) {
    for (const Region& region : record->regions) {
      static_cast<void>(record->userfault->Unregister(region.host, region.bytes));
    }
  }
}

}  // namespace chkpt

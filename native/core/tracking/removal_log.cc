#include "core/tracking/removal_log.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>

namespace chkpt {
namespace {

// More news than this join to one range: a balloon drops page by page.
constexpr std::size_t kRemovalsMax = 4096;

bool Touch(const AddressRange& a, const AddressRange& b) {
  return a.start <= b.end && b.start <= a.end;
}

}  // namespace

Result<std::unique_ptr<RemovalLog>> RemovalLog::Start(WriteProtector* userfault) {
  const int stop_fd = ::eventfd(0, EFD_CLOEXEC);
  if (stop_fd < 0) return SystemError(errno, "eventfd");
  return std::unique_ptr<RemovalLog>(new RemovalLog(userfault, stop_fd));
}

RemovalLog::RemovalLog(WriteProtector* userfault, int stop_fd)
    : userfault_(userfault), stop_fd_(stop_fd) {
  if (userfault != nullptr) thread_ = std::thread([this] { Hear(); });
}

RemovalLog::~RemovalLog() {
  if (userfault_ == nullptr) return;
  const std::uint64_t one = 1;
  while (::write(stop_fd_, &one, sizeof one) < 0 && errno == EINTR) {
  }
  thread_.join();
  ::close(stop_fd_);
}

void RemovalLog::Hear() {
  pollfd polled[2] = {{userfault_->fd(), POLLIN, 0}, {stop_fd_, POLLIN, 0}};
  for (;;) {
    if (::poll(polled, 2, -1) < 0 && errno != EINTR) return;
    DrainEvents();
    if ((polled[1].revents & POLLIN) != 0) return;
  }
}

void RemovalLog::DrainEvents() {
  for (;;) {
    // The lock is held before the news is taken: who is heard is in the list when he goes on.
    const std::lock_guard lock(mutex_);
    const std::optional<AddressRange> range = userfault_->NextRemoval();
    if (!range) return;
    Add(*range);
  }
}

void RemovalLog::Note(AddressRange range) {
  const std::lock_guard lock(mutex_);
  Add(range);
}

void RemovalLog::Add(AddressRange range) {
  const auto now = std::chrono::steady_clock::now();
  if (!removals_.empty() &&
      (removals_.size() >= kRemovalsMax || Touch(removals_.back().range, range))) {
    Removal& last = removals_.back();
    last = {{std::min(last.range.start, range.start), std::max(last.range.end, range.end)}, now};
  } else {
    removals_.push_back({range, now});
  }
}

std::vector<AddressRange> RemovalLog::Take() {
  const std::lock_guard lock(mutex_);
  const auto now = std::chrono::steady_clock::now();
  std::vector<AddressRange> ranges;
  for (const Removal& removal : removals_) ranges.push_back(removal.range);
  std::erase_if(removals_, [now](const Removal& each) { return now - each.told >= kGrace; });
  return ranges;
}

}  // namespace chkpt

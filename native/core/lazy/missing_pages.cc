#include "core/lazy/missing_pages.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

#include "core/lazy/lazy_loader.h"

namespace chkpt {
namespace {

// What is in the pages is gone, and who touches them faults. Never by writing zeros: those would be
// there, and nothing could come in their place.
bool Drop(const Region& region, PageRun run) {
  const std::uint64_t offset = (run.first - region.first_page) * kPageBytes;
  const std::uint64_t bytes = run.count * kPageBytes;
  if (region.backing == Backing::kAnonymous) {
    return ::madvise(region.host + offset, bytes, MADV_DONTNEED) == 0;
  }
  return ::fallocate(region.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                     static_cast<off_t>(region.fd_offset + offset), static_cast<off_t>(bytes)) == 0;
}

}  // namespace

Result<std::unique_ptr<MissingPages>> MissingPages::Start(std::shared_ptr<GuestMemory> memory,
                                                          const DirtyBitmap& missing,
                                                          std::uint32_t owner_thread,
                                                          std::function<void()> notify) {
  CHKPT_CHECK(missing.page_count() == memory->page_count());
  if (const char* reason = LazyLoader::WhyNot(*memory)) {
    return Error{.code = ErrorCode::kUnsupported, .message = reason};
  }
  auto userfault = Userfault::Open();
  if (!userfault.ok()) return userfault.error();
  std::unique_ptr<MissingPages> pages(new MissingPages(
      std::move(memory), std::move(userfault.value()), owner_thread, std::move(notify)));
  if (pages->stop_fd_ < 0) return SystemError(errno, "making an eventfd");
  missing.MergeTo(&pages->missing_);
  pages->left_ = pages->missing_.CountMarked();
  pages->threads_.Start([raw = pages.get()] { raw->Control(); });
  return pages;
}

MissingPages::MissingPages(std::shared_ptr<GuestMemory> memory,
                           std::unique_ptr<Userfault> userfault, std::uint32_t owner_thread,
                           std::function<void()> notify)
    : memory_(std::move(memory)),
      userfault_(std::move(userfault)),
      owner_thread_(owner_thread),
      notify_(std::move(notify)),
      missing_(memory_->page_count()),
      claimed_(memory_->page_count()),
      told_(memory_->page_count()),
      stop_fd_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
      threads_(notify_) {}

MissingPages::~MissingPages() {
  Cancel();
  Join();
  for (const Region& region : memory_->regions()) {
    static_cast<void>(userfault_->Unregister(region.host, region.bytes));
  }
  memory_->SetMissing(false);
  if (stop_fd_ >= 0) ::close(stop_fd_);
}

void MissingPages::Control() {
  Status taken = TakeOut();
  if (!taken.ok()) return Fail(std::move(taken.error()));
  started_ = true;
  notify_();
  Serve();
}

void MissingPages::Fail(Error error) {
  {
    const std::lock_guard lock(mutex_);
    if (!error_) error_ = std::move(error);
  }
  notify_();
}

Status MissingPages::TakeOut() {
  memory_->MarkUsed();
  memory_->SetMissing(true);
  for (const Region& region : memory_->regions()) {
    Status registered = userfault_->Register(region.host, region.bytes);
    if (!registered.ok()) return registered;
  }
  std::array<PageRun, 256> runs;
  for (std::uint64_t from = 0;;) {
    const std::size_t count = missing_.Runs(from, runs);
    for (std::size_t i = 0; i < count; ++i) {
      // A run of pages may go through several regions.
      for (PageRun run = runs[i]; run.count > 0;) {
        const Region& region = memory_->regions()[memory_->RegionOfPage(run.first)];
        const PageRun piece{run.first, std::min(run.end(), region.pages().end()) - run.first};
        if (!Drop(region, piece)) {
          return Error{.code = ErrorCode::kUnsupported,
                       .message = "pages of this memory cannot be taken out: is it locked?",
                       .system_errno = errno,
                       .page = piece.first};
        }
        memory_->NoteWritten(piece);
        run = {piece.end(), run.count - piece.count};
      }
    }
    if (count < runs.size()) return Ok();
    from = runs[count - 1].end();
  }
}

std::vector<std::uint64_t> MissingPages::TakeWanted() {
  const std::lock_guard lock(mutex_);
  return std::exchange(wanted_, {});
}

void MissingPages::WantAgain() {
  std::array<PageRun, 256> runs;
  std::vector<std::uint64_t> again;
  for (std::uint64_t from = 0;;) {
    const std::size_t count = told_.Runs(from, runs);
    for (std::size_t i = 0; i < count; ++i) {
      for (std::uint64_t page = runs[i].first; page < runs[i].end(); ++page) {
        if (missing_.IsMarked(page)) again.push_back(page);
      }
    }
    if (count < runs.size()) break;
    from = runs[count - 1].end();
  }
  if (again.empty()) return;
  {
    const std::lock_guard lock(mutex_);
    wanted_.insert(wanted_.end(), again.begin(), again.end());
  }
  notify_();
}

template <typename Put>
Status MissingPages::PlaceClaimed(PageRun run, Put put) {
  for (std::uint64_t page = run.first; page < run.end();) {
    std::uint64_t end = page;
    while (end < run.end() && missing_.IsMarked(end) && claimed_.MarkNew(end)) ++end;
    if (end == page) {
      ++page;
      continue;
    }
    Status placed = put(page, (end - page) * kPageBytes);
    if (!placed.ok()) {
      for (std::uint64_t again = page; again < end; ++again) claimed_.Clear(again);
      return placed;
    }
    // What is in its place first: a fault of a page that is not missing gets zeros.
    for (std::uint64_t here = page; here < end; ++here) missing_.Clear(here);
    // Who gave the page back and touched it again in between would sleep.
    userfault_->Wake(HostOf(page), (end - page) * kPageBytes);
    memory_->NoteWritten({page, end - page});
    NoteWaits({page, end - page});
    const std::uint64_t count = end - page;
    if (left_.fetch_sub(count, std::memory_order_acq_rel) == count) notify_();
    page = end;
  }
  return Ok();
}

Status MissingPages::Place(PageRun run, const std::uint8_t* bytes) {
  return PlaceClaimed(run, [&](std::uint64_t page, std::uint64_t count) {
    return userfault_->Copy(HostOf(page), bytes + (page - run.first) * kPageBytes, count);
  });
}

Status MissingPages::PlaceZero(PageRun run) {
  return PlaceClaimed(run, [&](std::uint64_t page, std::uint64_t count) {
    return userfault_->Zero(HostOf(page), count);
  });
}

std::optional<Error> MissingPages::error() const {
  const std::lock_guard lock(mutex_);
  return error_;
}

void MissingPages::Release() {
  released_ = true;
  std::array<PageRun, 256> runs;
  for (std::uint64_t from = 0;;) {
    const std::size_t count = told_.Runs(from, runs);
    for (std::size_t i = 0; i < count; ++i) {
      for (std::uint64_t page = runs[i].first; page < runs[i].end(); ++page) {
        if (missing_.IsMarked(page)) PutPattern(page);
      }
    }
    if (count < runs.size()) return;
    from = runs[count - 1].end();
  }
}

void MissingPages::Cancel() {
  stopped_ = true;
  const std::uint64_t one = 1;
  if (stop_fd_ >= 0) static_cast<void>(!::write(stop_fd_, &one, sizeof one));
}

void MissingPages::Serve() {
  pollfd waits[2] = {{userfault_->fd(), POLLIN, 0}, {stop_fd_, POLLIN, 0}};
  while (!stopped_) {
    if (const auto fault = userfault_->Next()) {
      ServeFault(*fault);
      continue;
    }
    if (::poll(waits, 2, -1) < 0 && errno != EINTR) return;
    if (waits[1].revents != 0) return;
  }
}

void MissingPages::ServeFault(const Userfault::Fault& fault) {
  faults_.fetch_add(1, std::memory_order_relaxed);
  const auto regions = memory_->regions();
  const auto found = std::ranges::find_if(regions, [&](const Region& region) {
    return fault.address >= region.host && fault.address < region.host + region.bytes;
  });
  if (found == regions.end()) return;
  const std::uint64_t page =
      found->first_page + static_cast<std::uint64_t>(fault.address - found->host) / kPageBytes;
  if (!missing_.IsMarked(page)) {
    // Zero when it was sent, and never touched; or given back by the guest since.
    static_cast<void>(userfault_->Zero(HostOf(page), kPageBytes));
    return;
  }
  if (fault.thread == owner_thread_ && owner_thread_ != 0) {
    Fail({.code = ErrorCode::kUnsupported,
          .message = "the thread that fetches pages has touched one that is missing",
          .page = page});
    return PutPattern(page);
  }
  Want(page);
  if (released_) PutPattern(page);
}

void MissingPages::Want(std::uint64_t page) {
  if (!told_.MarkNew(page)) return;
  {
    const std::lock_guard lock(mutex_);
    wanted_.push_back(page);
    waiting_.emplace(page, Clock::now());
  }
  notify_();
}

void MissingPages::NoteWaits(PageRun run) {
  const std::lock_guard lock(mutex_);
  if (waiting_.empty()) return;
  const Clock::time_point now = Clock::now();
  for (std::uint64_t page = run.first; page < run.end(); ++page) {
    const auto found = waiting_.find(page);
    if (found == waiting_.end()) continue;
    const auto waited = std::chrono::duration_cast<std::chrono::microseconds>(now - found->second);
    if (waits_.size() < kWaitsMax) waits_.push_back(static_cast<std::uint32_t>(waited.count()));
    waiting_.erase(found);
  }
}

std::vector<std::uint32_t> MissingPages::waits() const {
  const std::lock_guard lock(mutex_);
  return waits_;
}

void MissingPages::PutPattern(std::uint64_t page) {
  static constexpr auto kPattern = [] {
    std::array<std::uint8_t, kPageBytes> bytes{};
    bytes.fill(LazyLoader::kDamagePattern);
    return bytes;
  }();
  static_cast<void>(userfault_->Copy(HostOf(page), kPattern.data(), kPageBytes));
}

std::uint8_t* MissingPages::HostOf(std::uint64_t page) const {
  const Region& region = memory_->regions()[memory_->RegionOfPage(page)];
  return region.host + (page - region.first_page) * kPageBytes;
}

}  // namespace chkpt

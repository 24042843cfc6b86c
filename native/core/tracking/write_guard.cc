#include "core/tracking/write_guard.h"

#include <poll.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <string>
#include <utility>

#include "core/base/second_thread.h"
#include "core/memory/mapping.h"
#include "core/memory/presence.h"

namespace chkpt {
namespace {

using Kind = ProtectedRange::Kind;

constexpr unsigned kThreads = 2;
// The kernel is asked for no more at a time: other calls that change the address space wait as
// long.
constexpr std::uint64_t kAtOnce = std::uint64_t{16} << 20;
constexpr std::size_t kFoundAtOnce = 4096;
// Touched at once, in huge pages, for the pages that the guest has written by the time it stops.
constexpr std::uint64_t kReserveBytes = std::uint64_t{8} << 20;
// Copying a page while the guest stands still costs less than protecting it again, which wants a
// flush of translation buffers. With more pages than that one pass of protection over all is
// cheaper.
constexpr std::uint64_t kSetAsidePagesMax = 4096;
// From here on the look at a region is worth a second thread.
constexpr std::uint64_t kPartedBytesMin = std::uint64_t{128} << 20;
// Pages between two that are protected again in one call.
constexpr std::uint64_t kGapPagesMax = 256;

constexpr PagemapQuery kFindContent = {.any_of = kPageIsPresent | kPageIsSwapped,
                                       .returned = kPageIsWritten | kPageIsSwapped | kPageIsZero};
constexpr PagemapQuery kFindWritten = {.required = kPageIsWritten, .returned = kPageIsWritten};

void SetBits(std::vector<std::uint64_t>* words, PageRun pages) {
  for (std::uint64_t page = pages.first; page < pages.end();) {
    const std::uint64_t end = std::min(pages.end(), (page / 64 + 1) * 64);
    const std::uint64_t width = end - page;
    const std::uint64_t mask = width == 64 ? ~std::uint64_t{0} : ((std::uint64_t{1} << width) - 1);
    (*words)[static_cast<std::size_t>(page / 64)] |= mask << (page % 64);
    page = end;
  }
}

// Where two threads part a region, so that no word of bits is of both; the end: one does it all.
std::uint64_t MiddleOf(const Region& region, AddressRange addresses, std::uint64_t host_page) {
  if (addresses.end - addresses.start < kPartedBytesMin) return addresses.end;
  const std::uint64_t page = (region.first_page + region.pages().count / 2) / 64 * 64;
  const std::uint64_t middle =
      reinterpret_cast<std::uintptr_t>(region.host) + (page - region.first_page) * kPageBytes;
  return middle % host_page == 0 ? middle : addresses.end;
}

Error Aborted() { return Error{.code = ErrorCode::kAborted, .message = "live save cancelled"}; }

}  // namespace

Status WriteGuard::Check(const GuestMemory& memory) {
  for (const Region& region : memory.regions()) {
    Result<Kind> kind = ProtectedRange::KindOf(region);
    if (!kind.ok()) return kind.error();
    if (region.backing == Backing::kMapped) {
      return Error{.code = ErrorCode::kUnsupported,
                   .message = "other processes may write to a mapped file, and would not be seen",
                   .page = region.first_page};
    }
  }
  Result<WriteProtector> protector = WriteProtector::OpenHandled();
  if (!protector.ok()) return protector.error();
  return Ok();
}

Result<std::unique_ptr<WriteGuard>> WriteGuard::Open(std::shared_ptr<GuestMemory> memory,
                                                     Options options) {
  Status possible = Check(*memory);
  if (!possible.ok()) return possible.error();
  Result<WriteProtector> protector = WriteProtector::OpenHandled();
  if (!protector.ok()) return protector.error();
  const int pagemap_fd = OpenPagemap();
  if (pagemap_fd < 0) return SystemError(errno, "/proc/self/pagemap");
  const int stop_fd = ::eventfd(0, EFD_CLOEXEC);
  if (stop_fd < 0) {
    const int error = errno;
    ::close(pagemap_fd);
    return SystemError(error, "eventfd");
  }
  std::unique_ptr<WriteGuard> guard(new WriteGuard(
      std::move(memory), std::move(options), std::move(protector.value()), pagemap_fd, stop_fd));
  if (UsableMethod(pagemap_fd, PagemapMethod::kScan) != PagemapMethod::kScan) {
    return Error{.code = ErrorCode::kUnsupported,
                 .message = "this kernel has no PAGEMAP_SCAN (Linux 6.7)"};
  }
  Status registered = guard->Register();
  if (!registered.ok()) return registered.error();
  return guard;
}

WriteGuard::WriteGuard(std::shared_ptr<GuestMemory> memory, Options options,
                       WriteProtector protector, int pagemap_fd, int stop_fd)
    : memory_(std::move(memory)),
      options_(std::move(options)),
      protector_(std::move(protector)),
      pagemap_fd_(pagemap_fd),
      stop_fd_(stop_fd) {}

Status WriteGuard::Register() {
  for (const Region& region : memory_->regions()) {
    const Kind kind = ProtectedRange::KindOf(region).value();
    const Range range = {.region = &region,
                         .kind = kind,
                         .addresses = ProtectedRange::AddressesOf(region),
                         .host_page = kind == Kind::kHugetlb ? kHugePageBytes : SystemPageBytes()};
    Status registered = protector_.Register(range.addresses);
    if (!registered.ok()) {
      registered.error().page = region.first_page;
      return registered;
    }
    ranges_.push_back(range);
  }
  for (unsigned i = 0; i < kThreads; ++i) threads_.emplace_back([this] { Serve(); });
  return Ok();
}

WriteGuard::~WriteGuard() {
  Thaw();
  // While the threads still serve, or a madvise would wait for ever. Piece by piece: the kernel
  // holds the lock of the address space meanwhile.
  for (const Range& range : ranges_) {
    for (std::uint64_t at = range.addresses.start; at < range.addresses.end;) {
      const std::uint64_t end = std::min(at / kAtOnce * kAtOnce + kAtOnce, range.addresses.end);
      protector_.Unregister({at, end});
      at = end;
    }
  }
  const std::uint64_t one = 1;
  while (::write(stop_fd_, &one, sizeof one) < 0 && errno == EINTR) {
  }
  for (std::thread& thread : threads_) thread.join();
  ::close(stop_fd_);
  ::close(pagemap_fd_);
}

Status WriteGuard::Protect(const Cancelled& cancelled) {
  for (const Range& range : ranges_) {
    for (std::uint64_t at = range.addresses.start; at < range.addresses.end; at += kAtOnce) {
      if (cancelled()) return Aborted();
      Status status = protector_.Protect({at, std::min(at + kAtOnce, range.addresses.end)});
      if (!status.ok()) return status;
    }
  }
  return Ok();
}

// --- freezing -----------------------------------------------------------------------------------

Result<std::unique_ptr<KeptPages>> WriteGuard::MakeRoom(const GuestMemory& memory,
                                                        std::uint64_t side_byte_count_max) {
  return KeptPages::Create(memory, side_byte_count_max, kReserveBytes);
}

Status WriteGuard::Freeze(const DirtyBitmap* changed, std::unique_ptr<KeptPages> room,
                          const Cancelled& cancelled) {
  const std::unique_lock lock(serving_);
  if (kept_ != nullptr) {
    return Error{.code = ErrorCode::kUnsupported,
                 .message = "another live save of this memory is under way"};
  }
  kept_ = std::move(room);
  image_.assign(static_cast<std::size_t>((memory_->page_count() + 63) / 64), 0);
  Unprotected unprotected;
  for (const Range& range : ranges_) {
    Status found = FindImage(range, &unprotected, cancelled);
    if (!found.ok()) return found;
  }
  std::vector<std::uint64_t> wanted;
  if (changed != nullptr) {
    wanted.resize(changed->word_count());
    changed->Copy(wanted);
  }
  kept_->KeepAll(image_, wanted);
  faults_ = 0;
  Status safe = SetAside(unprotected);
  if (!safe.ok()) return safe;
  const std::lock_guard news(news_);
  lost_.reset();
  state_.store(static_cast<int>(State::kFrozen), std::memory_order_release);
  return Ok();
}

// Which pages have content, and which of them are not protected: written, or new, since Protect.
Status WriteGuard::FindImage(const Range& range, Unprotected* unprotected,
                             const Cancelled& cancelled) {
  if (range.kind == Kind::kShared) {
    const PresenceFinder finder;
    std::vector<PageRun> runs;
    finder.PresentRuns(*range.region, range.region->pages(), &runs);
    for (const PageRun& run : runs) SetBits(&image_, run);
  }
  const AddressRange all = range.addresses;
  const std::uint64_t middle = MiddleOf(*range.region, all, range.host_page);
  if (middle == all.end) return FindImageIn(range, all, unprotected, cancelled);
  // The guest stands still: its processor is free.
  Unprotected upper;
  Status found_upper = Ok();
  const std::function<void()> look_above = [&] {
    found_upper = FindImageIn(range, {middle, all.end}, &upper, cancelled);
  };
  SecondThread other(look_above);
  Status found = FindImageIn(range, {all.start, middle}, unprotected, cancelled);
  other.Finish();
  if (!found.ok()) return found;
  unprotected->written.insert(unprotected->written.end(), upper.written.begin(),
                              upper.written.end());
  unprotected->torn.insert(unprotected->torn.end(), upper.torn.begin(), upper.torn.end());
  return found_upper;
}

Status WriteGuard::FindImageIn(const Range& range, AddressRange part, Unprotected* unprotected,
                               const Cancelled& cancelled) {
  const Region& region = *range.region;
  const bool is_shared = range.kind == Kind::kShared;
  // Guest pages that start amid a page of the host.
  const bool is_shifted =
      reinterpret_cast<std::uintptr_t>(region.host) % range.host_page % kPageBytes != 0;
  std::vector<PagemapRange> found(kFoundAtOnce);
  for (std::uint64_t at = part.start; at < part.end;) {
    if (cancelled()) return Aborted();
    const auto walk =
        ScanPagemap(pagemap_fd_, is_shared ? kFindWritten : kFindContent, at, part.end, found);
    if (!walk && errno == EINTR) continue;
    if (!walk) return SystemError(errno, "PAGEMAP_SCAN");
    if (walk->end <= at) {
      return Error{.code = ErrorCode::kIo, .message = "PAGEMAP_SCAN does not get on"};
    }
    for (const PagemapRange& each : std::span(found).first(walk->count)) {
      const bool is_written = (each.categories & kPageIsWritten) != 0;
      const bool is_marker =
          range.kind == Kind::kHugetlb && !is_written && (each.categories & kPageIsSwapped) != 0;
      if ((each.categories & kPageIsZero) != 0 || is_marker) continue;
      const PageRun pages = ProtectedRange::PagesOf(region, {each.start, each.end});
      if (pages.count == 0) continue;
      if (!is_shared) SetBits(&image_, pages);
      if (is_written) unprotected->written.push_back(pages);
      if (is_shifted) {
        unprotected->torn.push_back(pages.first);
        unprotected->torn.push_back(pages.end() - 1);
      }
    }
    at = walk->end;
  }
  return Ok();
}

Status WriteGuard::SetAside(const Unprotected& found) {
  for (const std::uint64_t page : found.torn) {
    if (kept_->SaveAside(page)) continue;
    return Error{.code = ErrorCode::kSnapshotLost,
                 .message = "no more pages may be set aside",
                 .page = page};
  }
  const std::vector<PageRun>& written = found.written;
  std::uint64_t count = 0;
  for (const PageRun& run : written) {
    for (std::uint64_t page = run.first; page < run.end() && count <= kSetAsidePagesMax; ++page) {
      count += kept_->Has(page) ? 1 : 0;
    }
  }
  if (count > kSetAsidePagesMax) return ProtectSpans(written);
  for (const PageRun& run : written) {
    for (std::uint64_t page = run.first; page < run.end(); ++page) {
      if (!kept_->SaveAside(page)) return ProtectSpans(written);
    }
  }
  return Ok();
}

// What lies between is protected already, or is no part of the image.
Status WriteGuard::ProtectSpans(const std::vector<PageRun>& written) {
  for (std::size_t i = 0; i < written.size();) {
    const Range& range = RangeOfPage(written[i].first);
    PageRun span = written[i++];
    while (i < written.size() && written[i].end() <= range.region->pages().end() &&
           written[i].first <= span.end() + kGapPagesMax) {
      span.count = written[i++].end() - span.first;
    }
    const std::uint64_t host = reinterpret_cast<std::uintptr_t>(range.region->host);
    const std::uint64_t start = host + (span.first - range.region->first_page) * kPageBytes;
    const std::uint64_t end = start + span.count * kPageBytes;
    const std::uint64_t page = range.host_page;
    Status status =
        protector_.Protect({std::max(range.addresses.start, start / page * page),
                            std::min(range.addresses.end, (end + page - 1) / page * page)});
    if (!status.ok()) return status;
  }
  return Ok();
}

void WriteGuard::Thaw() {
  {
    const std::lock_guard news(news_);
    state_.store(static_cast<int>(State::kOpen), std::memory_order_release);
  }
  // Threads that still keep a page are waited for.
  const std::unique_lock lock(serving_);
  if (kept_ == nullptr) return;
  last_ = counts();
  kept_.reset();
}

// --- encoding -----------------------------------------------------------------------------------

Status WriteGuard::Release(PageRun pages) {
  {
    const std::lock_guard news(news_);
    if (lost_) return *lost_;
    kept_->LetGo(pages);
  }
  kept_->GiveBack(pages);
  if (options_.keeps_protection) return Ok();
  const AddressRange inner = InnerAddresses(pages);
  while (inner.start < inner.end && !protector_.TryUnprotect(inner)) ::sched_yield();
  return Ok();
}

// Whole pages of the host only: what is shared with other pages stays.
AddressRange WriteGuard::InnerAddresses(PageRun pages) const {
  const Range& range = RangeOfPage(pages.first);
  const std::uint64_t host = reinterpret_cast<std::uintptr_t>(range.region->host);
  const std::uint64_t start = host + (pages.first - range.region->first_page) * kPageBytes;
  const std::uint64_t end = start + pages.count * kPageBytes;
  const std::uint64_t page = range.host_page;
  return {(start + page - 1) / page * page, end / page * page};
}

const WriteGuard::Range& WriteGuard::RangeOfPage(std::uint64_t page) const {
  return ranges_[memory_->RegionOfPage(page)];
}

// --- faults -------------------------------------------------------------------------------------

void WriteGuard::Serve() {
  pollfd polled[2] = {{protector_.fd(), POLLIN, 0}, {stop_fd_, POLLIN, 0}};
  std::vector<std::uint64_t> waiting;
  for (;;) {
    const int timeout = waiting.empty() ? -1 : 1;
    if (::poll(polled, 2, timeout) < 0 && errno != EINTR) return;
    while (Hear(&waiting)) {
    }
    // What cannot be served now is tried again after the removal that is in its way was heard.
    std::erase_if(waiting, [this](std::uint64_t address) { return ServeFault(address); });
    if ((polled[1].revents & POLLIN) != 0) return;
  }
}

bool WriteGuard::Hear(std::vector<std::uint64_t>* waiting) {
  const std::lock_guard lock(news_);
  const std::optional<WriteProtector::News> news = protector_.Next();
  if (!news) return false;
  if (news->is_removal) {
    HearRemoval(news->range);
    return true;
  }
  waiting->push_back(news->range.start);
  return false;  // serve it before the next one is taken: another thread may do that
}

// REQUIRES: news_ is held.
void WriteGuard::HearRemoval(AddressRange removed) {
  if (options_.on_removal) options_.on_removal(removed);
  if (state_.load(std::memory_order_acquire) != static_cast<int>(State::kFrozen)) return;
  for (const Range& range : ranges_) {
    const PageRun pages = ProtectedRange::PagesOf(*range.region, removed);
    for (std::uint64_t page = pages.first; page < pages.end(); ++page) {
      if (!kept_->Has(page) || kept_->Saved(page) != nullptr) continue;
      return Lose("pages were given back (madvise) before they were saved", page);
    }
  }
}

// True when the thread that writes was let on.
bool WriteGuard::ServeFault(std::uint64_t address) {
  const auto in_range = [&](const Range& range) {
    return range.addresses.start <= address && address < range.addresses.end;
  };
  // Who changes what is kept may himself wait for a removal to be heard.
  const std::shared_lock lock(serving_, std::try_to_lock);
  if (!lock) return false;
  const auto range = std::find_if(ranges_.begin(), ranges_.end(), in_range);
  if (range == ranges_.end()) return true;
  faults_.fetch_add(1, std::memory_order_relaxed);
  const std::uint64_t start = address / range->host_page * range->host_page;
  const AddressRange host_page = {start, start + range->host_page};
  if (state_.load(std::memory_order_acquire) == static_cast<int>(State::kFrozen)) {
    const PageRun pages = ProtectedRange::PagesOf(*range->region, host_page);
    for (std::uint64_t page = pages.first; page < pages.end(); ++page) {
      if (kept_->SaveAside(page)) continue;
      const std::lock_guard news(news_);
      Lose("the guest writes faster than its memory is saved, and no more may be set aside", page);
      break;
    }
  }
  return protector_.TryUnprotect(host_page);
}

// REQUIRES: news_ is held.
void WriteGuard::Lose(std::string why, std::uint64_t page) {
  if (state_.load() != static_cast<int>(State::kFrozen)) return;
  lost_ = Error{.code = ErrorCode::kSnapshotLost, .message = std::move(why), .page = page};
  state_.store(static_cast<int>(State::kLost), std::memory_order_release);
}

WriteGuard::Counts WriteGuard::counts() const {
  if (kept_ == nullptr) return last_;
  return {.faults = faults_.load(std::memory_order_relaxed),
          .saved_pages = kept_->saved_pages(),
          .side_bytes_peak = kept_->side_bytes_peak()};
}

}  // namespace chkpt

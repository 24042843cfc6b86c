#include "core/tracking/protected_range.h"

#include <algorithm>
#include <cerrno>

#include "core/memory/mapping.h"
#include "core/tracking/dirty_tracker.h"

namespace chkpt {
namespace {

constexpr std::size_t kRangesAtOnce = 4096;
constexpr std::uint64_t kProtectAtOnce = std::uint64_t{256} << 20;

constexpr PagemapQuery kTakeWritten = {.flags = kPagemapProtect | kPagemapOnlyAsync,
                                       .required = kPageIsWritten,
                                       .returned = kPageIsWritten};
constexpr PagemapQuery kTakeContent = {.flags = kPagemapProtect | kPagemapOnlyAsync,
                                       .any_of = kPageIsPresent | kPageIsSwapped,
                                       .returned = kPageIsWritten | kPageIsSwapped | kPageIsZero};
constexpr PagemapQuery kFindEntries = {.flags = kPagemapOnlyAsync,
                                       .any_of = kPageIsPresent | kPageIsSwapped};

Error ScanError(int error) {
  if (error == EPERM) {
    return Error{.code = ErrorCode::kMemoryDetached,
                 .message = "the mapping under a dirty tracker was replaced or unregistered",
                 .system_errno = error};
  }
  return SystemError(error, "PAGEMAP_SCAN");
}

}  // namespace

ProtectedRange::ProtectedRange(const Region& region, Kind kind, WriteProtector* userfault,
                               const Tools* tools)
    : region_(region),
      kind_(kind),
      userfault_(userfault),
      tools_(tools),
      addresses_(AddressesOf(region)),
      content_(kind == Kind::kShared ? 0 : (addresses_.end - addresses_.start) / SystemPageBytes()),
      ranges_(kRangesAtOnce) {}

template <typename Visit, typename Looked>
Status ProtectedRange::Scan(const PagemapQuery& query, AddressRange range,
                            const std::function<bool()>& cancelled, Visit visit, Looked looked) {
  PagemapQuery used = query;
  if (written_ == Written::kLeave) used.flags &= ~kPagemapProtect;
  if (is_handled_) used.flags = 0;
  while (range.start < range.end) {
    if (cancelled()) return AbortedError();
    const auto walk = ScanPagemap(tools_->pagemap_fd, used, range.start, range.end, ranges_);
    if (!walk) {
      if (errno == EINTR) continue;
      return ScanError(errno);
    }
    for (const PagemapRange& each : std::span(ranges_).first(walk->count)) visit(each);
    looked(walk->end);
    if (walk->end <= range.start) {
      return Error{.code = ErrorCode::kIo, .message = "PAGEMAP_SCAN does not get on"};
    }
    range.start = walk->end;
  }
  return Ok();
}

Status ProtectedRange::Arm(const std::function<bool()>& cancelled) {
  written_ = Written::kProtect;
  if (kind_ != Kind::kShared) {
    content_.Clear();
    return HarvestContent(addresses_, nullptr, cancelled);
  }
  for (std::uint64_t at = addresses_.start; at < addresses_.end; at += kProtectAtOnce) {
    if (cancelled()) return AbortedError();
    Status protect = userfault_->Protect({at, std::min(at + kProtectAtOnce, addresses_.end)});
    if (!protect.ok()) return protect;
  }
  return Ok();
}

Status ProtectedRange::Harvest(Written written, DirtyBitmap* found,
                               const std::function<bool()>& cancelled) {
  written_ = written;
  if (kind_ == Kind::kShared) {
    Status done = HarvestWritten(addresses_, found, cancelled);
    if (!done.ok() || tools_->holes_are_told) return done;
    return HarvestGaps(found, cancelled);
  }
  if (kind_ == Kind::kHugetlb || !tools_->holes_are_told || is_handled_) {
    return HarvestContent(addresses_, found, cancelled);
  }
  // Where all had content, a page without an entry was dropped, and is told as written by the fast
  // way of the kernel. It gets a marker then, which it would not have to; elsewhere untouched pages
  // would get them, so there the slower way is taken.
  const std::uint64_t step = kHugePageBytes;
  for (std::uint64_t at = addresses_.start; at < addresses_.end;) {
    const auto full = [&](std::uint64_t start) {
      return content_.HasAll(HostPages({start, std::min(start + step, addresses_.end)}));
    };
    const bool is_full = full(at);
    std::uint64_t end = at + step;
    while (end < addresses_.end && full(end) == is_full) end += step;
    const AddressRange span = {at, std::min(end, addresses_.end)};
    Status done =
        is_full ? HarvestWritten(span, found, cancelled) : HarvestContent(span, found, cancelled);
    if (!done.ok()) return done;
    at = end;
  }
  return Ok();
}

Status ProtectedRange::HarvestWritten(AddressRange range, DirtyBitmap* found,
                                      const std::function<bool()>& cancelled) {
  Status protect = Ok();
  Status scanned = Scan(
      kTakeWritten, range, cancelled,
      [&](const PagemapRange& each) {
        Mark({each.start, each.end}, found);
        ProtectTold(each, &protect);
      },
      [](std::uint64_t) {});
  return scanned.ok() ? std::move(protect) : std::move(scanned);
}

void ProtectedRange::ProtectTold(const PagemapRange& range, Status* status) {
  if (!is_handled_ || written_ == Written::kLeave || !status->ok()) return;
  if ((range.categories & kPageIsWritten) == 0) return;
  // Was not told: a write since the look would be hidden. As a page without an entry it stays open.
  if ((range.categories & kPageIsZero) != 0) return;
  *status = userfault_->Protect({range.start, range.end});
}

Status ProtectedRange::HarvestContent(AddressRange range, DirtyBitmap* found,
                                      const std::function<bool()>& cancelled) {
  std::uint64_t at = range.start;
  Status protect = Ok();
  Status scanned = Scan(
      kTakeContent, range, cancelled,
      [&](const PagemapRange& each) {
        NoteGap({at, each.start}, found);
        NoteContent(each, found);
        ProtectTold(each, &protect);
        at = each.end;
      },
      [&](std::uint64_t end) {
        NoteGap({at, end}, found);
        at = std::max(at, end);
      });
  return scanned.ok() ? std::move(protect) : std::move(scanned);
}

// For kernels that do not call holes written: what has no entry after the written pages were taken.
Status ProtectedRange::HarvestGaps(DirtyBitmap* found, const std::function<bool()>& cancelled) {
  Status protect = Ok();
  std::uint64_t at = addresses_.start;
  const auto take = [&](AddressRange gap) {
    if (gap.start >= gap.end) return;
    Mark(gap, found);
    if (protect.ok() && written_ == Written::kProtect) protect = userfault_->Protect(gap);
  };
  Status scanned = Scan(
      kFindEntries, addresses_, cancelled,
      [&](const PagemapRange& each) {
        take({at, each.start});
        at = each.end;
      },
      [&](std::uint64_t end) {
        take({at, end});
        at = std::max(at, end);
      });
  return scanned.ok() ? std::move(protect) : std::move(scanned);
}

void ProtectedRange::NoteContent(const PagemapRange& range, DirtyBitmap* found) {
  const bool written = (range.categories & kPageIsWritten) != 0;
  const bool is_marker =
      kind_ == Kind::kHugetlb && !written && (range.categories & kPageIsSwapped) != 0;
  if ((range.categories & kPageIsZero) != 0 || is_marker) {
    NoteGap({range.start, range.end}, found);
    return;
  }
  content_.Set(HostPages({range.start, range.end}));
  if (written && found != nullptr) Mark({range.start, range.end}, found);
}

void ProtectedRange::NoteGap(AddressRange range, DirtyBitmap* found) {
  if (range.start >= range.end) return;
  dropped_.clear();
  content_.TakeOut(HostPages(range), &dropped_);
  if (found == nullptr) return;
  const std::uint64_t page = SystemPageBytes();
  for (const PageRun& run : dropped_) {
    const std::uint64_t start = addresses_.start + run.first * page;
    Mark({start, start + run.count * page}, found);
  }
}

PageRun ProtectedRange::HostPages(AddressRange range) const {
  const std::uint64_t page = SystemPageBytes();
  return {(range.start - addresses_.start) / page, (range.end - range.start) / page};
}

void ProtectedRange::NoteCopied(PageRun run) {
  const std::uint64_t first = std::max(run.first, region_.first_page);
  const std::uint64_t last = std::min(run.end(), region_.pages().end());
  if (kind_ == Kind::kShared || first >= last) return;
  const std::uint64_t host = reinterpret_cast<std::uintptr_t>(region_.host);
  const std::uint64_t size = SystemPageBytes();
  const std::uint64_t start = host + (first - region_.first_page) * kPageBytes;
  const std::uint64_t end = host + (last - region_.first_page) * kPageBytes;
  content_.Set(HostPages({start / size * size, (end + size - 1) / size * size}));
}

void ProtectedRange::Mark(AddressRange range, DirtyBitmap* found) const {
  const PageRun pages = PagesOf(region_, range);
  if (pages.count > 0) found->MarkRun(pages);
}

Result<ProtectedRange::Kind> ProtectedRange::KindOf(const Region& region) {
  switch (region.backing) {
    case Backing::kAnonymous: return Kind::kPrivate;
    case Backing::kHugetlb: return Kind::kHugetlb;
    case Backing::kMemfd:
    case Backing::kMapped: return Kind::kShared;
    case Backing::kAttached:
      if (region.presence == Presence::kPagemap) return Kind::kPrivate;
      return Error{.code = ErrorCode::kUnsupported,
                   .message =
                       "attached memory that is not private anonymous cannot be "
                       "write-protected",
                   .page = region.first_page};
    case Backing::kClone:
      return Error{.code = ErrorCode::kUnsupported,
                   .message = "a clone of a shared image is served by another userfaultfd",
                   .page = region.first_page};
    case Backing::kFile: break;
  }
  return Error{.code = ErrorCode::kUnsupported,
               .message = "memory that is not mapped cannot be write-protected",
               .page = region.first_page};
}

AddressRange ProtectedRange::AddressesOf(const Region& region) {
  const std::uint64_t page = SystemPageBytes();
  const std::uint64_t host = reinterpret_cast<std::uintptr_t>(region.host);
  return {host / page * page, (host + region.bytes + page - 1) / page * page};
}

PageRun ProtectedRange::PagesOf(const Region& region, AddressRange range) {
  const std::uint64_t host = reinterpret_cast<std::uintptr_t>(region.host);
  const std::uint64_t start = std::max(range.start, host);
  const std::uint64_t end = std::min(range.end, host + region.bytes);
  if (start >= end) return {};
  const std::uint64_t first = (start - host) / kPageBytes;
  const std::uint64_t last = (end - 1 - host) / kPageBytes;
  return {region.first_page + first, last - first + 1};
}

}  // namespace chkpt

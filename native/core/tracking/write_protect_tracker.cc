#include "core/tracking/write_protect_tracker.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "core/memory/mapping.h"
#include "core/tracking/fault_cost.h"

namespace chkpt {
namespace {

using Kind = ProtectedRange::Kind;

// Tries on memory of its own whether the kernel calls pages without an entry written: one page of a
// page table with entries, and a whole table that does not exist.
bool TryHoles(int pagemap_fd, WriteProtector* userfault) {
  const std::uint64_t bytes = 3 * kHugePageBytes;
  void* mapped = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapped == MAP_FAILED) return false;
  ::madvise(mapped, bytes, MADV_NOHUGEPAGE);
  *static_cast<volatile std::uint8_t*>(mapped) = 1;
  const std::uint64_t start = reinterpret_cast<std::uintptr_t>(mapped);
  bool told = false;
  if (userfault->Register({start, start + bytes}).ok()) {
    PagemapRange found[1];
    const auto walk = ScanPagemap(
        pagemap_fd,
        {.flags = kPagemapOnlyAsync, .required = kPageIsWritten, .returned = kPageIsWritten}, start,
        start + bytes, found);
    told = walk && walk->count == 1 && found[0].start == start && found[0].end == start + bytes;
  }
  ::munmap(mapped, bytes);
  return told;
}

}  // namespace

WriteProtectTracker::WriteProtectTracker(std::shared_ptr<GuestMemory> memory)
    : DirtyTracker(memory, true), copied_(std::move(memory)) {}

Result<std::unique_ptr<DirtyTracker>> WriteProtectTracker::Open(std::shared_ptr<GuestMemory> memory,
                                                                bool trust_holes) {
  std::unique_ptr<WriteProtectTracker> tracker(new WriteProtectTracker(std::move(memory)));
  Status prepared = tracker->Prepare(trust_holes);
  if (!prepared.ok()) return prepared.error();
  Status registered = tracker->RegisterAll();
  if (!registered.ok()) return registered.error();
  return std::unique_ptr<DirtyTracker>(std::move(tracker));
}

WriteProtectTracker::~WriteProtectTracker() {
  // Before the thread that hears of removals ends, or a madvise would wait for it.
  if (guard_ == nullptr) {
    for (const auto& range : ranges_) range->Unregister();
  }
  removals_.reset();
  if (tools_.pagemap_fd >= 0) ::close(tools_.pagemap_fd);
}

Status WriteProtectTracker::Prepare(bool trust_holes) {
  bool needs_private = false;
  bool needs_telling = false;
  for (const Region& region : memory()->regions()) {
    Result<Kind> kind = ProtectedRange::KindOf(region);
    if (!kind.ok()) return kind.error();
    (kind.value() == Kind::kPrivate ? needs_private : needs_telling) = true;
  }
  tools_.pagemap_fd = OpenPagemap();
  if (tools_.pagemap_fd < 0) return SystemError(errno, "/proc/self/pagemap");
  for (const bool telling : {false, true}) {
    if (!(telling ? needs_telling : needs_private)) continue;
    Result<WriteProtector> opened = WriteProtector::Open(telling);
    if (!opened.ok()) return opened.error();
    (telling ? telling_protector_ : private_protector_).emplace(std::move(opened.value()));
  }
  tools_.holes_are_told =
      trust_holes &&
      TryHoles(tools_.pagemap_fd, private_protector_ ? &*private_protector_ : &*telling_protector_);
  if (!needs_telling) return Ok();
  Result<std::unique_ptr<RemovalLog>> removals = RemovalLog::Start(&*telling_protector_);
  if (!removals.ok()) return removals.error();
  removals_ = std::move(removals.value());
  return Ok();
}

Status WriteProtectTracker::RegisterAll() {
  ranges_.clear();
  for (const Region& region : memory()->regions()) {
    const Kind kind = ProtectedRange::KindOf(region).value();
    auto range = std::make_unique<ProtectedRange>(
        region, kind, kind == Kind::kPrivate ? &*private_protector_ : &*telling_protector_,
        &tools_);
    Status registered = range->Register();
    if (!registered.ok()) {
      registered.error().page = region.first_page;
      return registered;
    }
    ranges_.push_back(std::move(range));
  }
  is_registered_ = true;
  return Ok();
}

Result<std::shared_ptr<WriteGuard>> WriteProtectTracker::MakeGuard() {
  if (guard_ != nullptr) return guard_;
  for (const auto& range : ranges_) range->Unregister();
  is_registered_ = false;
  const auto removals = std::make_shared<RemovalLog>();
  WriteGuard::Options options;
  options.keeps_protection = true;
  options.on_removal = [removals](AddressRange range) { removals->Note(range); };
  Result<std::unique_ptr<WriteGuard>> guard = WriteGuard::Open(memory(), std::move(options));
  if (!guard.ok()) return guard.error();
  Status protected_all = guard.value()->Protect([] { return false; });
  if (!protected_all.ok()) return protected_all.error();
  if (removals_ != nullptr) {
    for (const AddressRange& range : removals_->Take()) removals->Note(range);
  }
  removals_ = removals;
  guard_ = std::move(guard.value());
  is_registered_ = true;
  for (const auto& range : ranges_) range->HandOver(guard_->protector());
  return guard_;
}

std::optional<double> WriteProtectTracker::MeasureFirstWrite() {
  // With a guard a thread of it hears of each first write, which takes as long as that thread takes
  // to wake.
  if (guard_ != nullptr) return std::nullopt;
  const bool is_huge = std::ranges::any_of(
      ranges_, [](const auto& range) { return range->kind() == Kind::kHugetlb; });
  if (is_huge || ranges_.empty()) return std::nullopt;
  const bool is_shared = ranges_.front()->kind() == Kind::kShared;
  return MeasureFaultCost(is_shared ? &*telling_protector_ : &*private_protector_, is_shared);
}

Status WriteProtectTracker::Reset(const Cancelled& cancelled) {
  if (!is_registered_) {
    Status registered = RegisterAll();
    if (!registered.ok()) return registered;
  }
  copied_.Clear();
  for (const auto& range : ranges_) {
    Status armed = range->Arm(cancelled);
    if (!armed.ok()) return armed;
  }
  return Ok();
}

Status WriteProtectTracker::Find(ProtectedRange::Written written, DirtyBitmap* found,
                                 const Cancelled& cancelled) {
  if (removals_ != nullptr) {
    for (const AddressRange& removed : removals_->Take()) {
      for (const auto& range : ranges_) {
        if (range->kind() != Kind::kPrivate) range->Mark(removed, found);
      }
    }
  }
  copied_.Take([this](PageRun run) {
    for (const auto& range : ranges_) range->NoteCopied(run);
  });
  for (const auto& range : ranges_) {
    Status harvested = range->Harvest(written, found, cancelled);
    if (!harvested.ok()) return harvested;
  }
  return Ok();
}

}  // namespace chkpt

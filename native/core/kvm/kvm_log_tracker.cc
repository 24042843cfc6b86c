#include "core/kvm/kvm_log_tracker.h"

#ifdef CHKPT_HAVE_KVM

#include <algorithm>
#include <utility>

namespace chkpt {
namespace {

constexpr std::uint64_t kClearPages = 1 << 16;  // 256 MiB: the kernel's lock is held that long

}  // namespace

Result<std::unique_ptr<DirtyTracker>> KvmLogTracker::Open(std::shared_ptr<KvmMachine> machine) {
  if (machine->has_rings()) {
    return Error{.code = ErrorCode::kUnsupported,
                 .message = "the machine was made with dirty rings, KVM keeps no log beside them"};
  }
  if (!machine->ClaimDirtyLog()) {
    return Error{.code = ErrorCode::kUnsupported,
                 .message = "the machine has a tracker of its dirty log already"};
  }
  kvm_enable_cap manual = {};
  manual.cap = KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2;
  // Where KVM can, all pages count as written at first and are protected by Reset, in pieces; else
  // it protects all of them at once when the log begins.
  manual.args[0] = static_cast<std::uint64_t>(std::max(0, machine->system().Check(manual.cap))) &
                   (KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE | KVM_DIRTY_LOG_INITIALLY_SET);
  const bool is_manual =
      manual.args[0] != 0 && KvmIoctl(machine->vm_fd(), KVM_ENABLE_CAP, &manual) == 0;
  return std::unique_ptr<DirtyTracker>(new KvmLogTracker(std::move(machine), is_manual));
}

KvmLogTracker::KvmLogTracker(std::shared_ptr<KvmMachine> machine, bool manual)
    : DirtyTracker(machine->memory(), true), machine_(std::move(machine)), manual_(manual) {}

KvmLogTracker::~KvmLogTracker() {
  static_cast<void>(machine_->SetDirtyLog(false));
  machine_->ReleaseDirtyLog();
}

Status KvmLogTracker::Reset(const Cancelled& cancelled) {
  Status logging = machine_->SetDirtyLog(true);
  if (!logging.ok()) return logging;
  DirtyBitmap old(memory()->page_count());
  return Collect(&old, cancelled);
}

Status KvmLogTracker::Collect(DirtyBitmap* found, const Cancelled& cancelled) {
  std::uint32_t slot = 0;
  for (const Region& region : memory()->regions()) {
    if (cancelled()) return AbortedError();
    Status collected = CollectSlot(slot++, region, found);
    if (!collected.ok()) return collected;
  }
  return Ok();
}

Status KvmLogTracker::CollectSlot(std::uint32_t slot, const Region& region, DirtyBitmap* found) {
  words_.assign(static_cast<std::size_t>((region.page_count() + 63) / 64), 0);
  kvm_dirty_log log = {};
  log.slot = slot;
  log.dirty_bitmap = words_.data();
  if (KvmIoctl(machine_->vm_fd(), KVM_GET_DIRTY_LOG, &log) < 0) {
    return KvmError("KVM_GET_DIRTY_LOG");
  }
  RunIterator runs(words_, region.page_count());
  PageRun run;
  while (runs.Next(&run)) found->MarkRun({region.first_page + run.first, run.count});
  return manual_ ? ClearSlot(slot, region) : Ok();
}

// A page that is written between the two calls is in the set already, and is copied after them.
Status KvmLogTracker::ClearSlot(std::uint32_t slot, const Region& region) {
  for (std::uint64_t page = 0; page < region.page_count(); page += kClearPages) {
    const std::uint64_t count = std::min(kClearPages, region.page_count() - page);
    const auto words = std::span(words_).subspan(static_cast<std::size_t>(page / 64),
                                                 static_cast<std::size_t>((count + 63) / 64));
    if (std::ranges::all_of(words, [](std::uint64_t word) { return word == 0; })) continue;
    kvm_clear_dirty_log clear = {};
    clear.slot = slot;
    clear.first_page = page;
    clear.num_pages = static_cast<std::uint32_t>(count);
    clear.dirty_bitmap = words.data();
    if (KvmIoctl(machine_->vm_fd(), KVM_CLEAR_DIRTY_LOG, &clear) < 0) {
      return KvmError("KVM_CLEAR_DIRTY_LOG");
    }
  }
  return Ok();
}

}  // namespace chkpt

#endif  // CHKPT_HAVE_KVM

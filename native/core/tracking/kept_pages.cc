#include "core/tracking/kept_pages.h"

#include <sched.h>

#include <algorithm>
#include <optional>

#include "core/memory/guest_copy.h"
#include "core/memory/mapping.h"

namespace chkpt {

Result<std::unique_ptr<KeptPages>> KeptPages::Create(const GuestMemory& memory,
                                                     std::uint64_t side_byte_count_max,
                                                     std::uint64_t reserve_byte_count) {
  std::unique_ptr<KeptPages> pages(new KeptPages(memory, side_byte_count_max));
  const std::uint64_t whole = SystemPageBytes();
  const std::uint64_t bytes = memory.page_count() * sizeof(std::uint32_t);
  pages->slot_bytes_ = (bytes + whole - 1) / whole * whole;
  Result<std::uint8_t*> slots = MapAnonymous(pages->slot_bytes_, false);
  if (!slots.ok()) return slots.error();
  pages->slots_ = reinterpret_cast<std::atomic<std::uint32_t>*>(slots.value());
  Status reserved = pages->side_.Reserve(std::min(reserve_byte_count, side_byte_count_max));
  if (!reserved.ok()) return reserved.error();
  return pages;
}

KeptPages::KeptPages(const GuestMemory& memory, std::uint64_t side_byte_count_max)
    : memory_(memory),
      word_count_(static_cast<std::size_t>((memory.page_count() + 63) / 64)),
      words_(std::make_unique<std::atomic<std::uint64_t>[]>(word_count_)),
      side_(side_byte_count_max) {}

KeptPages::~KeptPages() {
  if (slots_ != nullptr) Unmap(reinterpret_cast<std::uint8_t*>(slots_), slot_bytes_);
}

void KeptPages::KeepAll(std::span<const std::uint64_t> image,
                        std::span<const std::uint64_t> wanted) {
  for (std::size_t i = 0; i < word_count_; ++i) {
    words_[i].store(wanted.empty() ? image[i] : image[i] & wanted[i], std::memory_order_relaxed);
  }
}

bool KeptPages::Has(std::uint64_t page) const {
  const std::uint64_t word = words_[static_cast<std::size_t>(page / 64)].load();
  return (word >> (page % 64) & 1) != 0;
}

bool KeptPages::SaveAside(std::uint64_t page) {
  for (;;) {
    if (!Has(page)) return true;
    std::uint32_t slot = kNone;
    if (slots_[page].compare_exchange_strong(slot, kBusy)) break;
    if (slot != kBusy) return true;
    // Another thread copies it, for another page of the host that it lies in. When there is no room
    // for its copy, there has to be for this one.
    ::sched_yield();
  }
  const std::optional<std::uint32_t> taken = side_.Take();
  if (!taken) {
    slots_[page].store(kNone, std::memory_order_release);
    return false;
  }
  const Region& region = memory_.regions()[memory_.RegionOfPage(page)];
  CopyGuest(side_.data(*taken), region.host + (page - region.first_page) * kPageBytes, kPageBytes);
  slots_[page].store(*taken + 1, std::memory_order_release);
  saved_pages_.fetch_add(1, std::memory_order_relaxed);
  return true;
}

const std::uint8_t* KeptPages::Saved(std::uint64_t page) {
  // A write of nothing: unlike a load it cannot be moved before what was read of the page.
  const std::uint32_t slot = slots_[page].fetch_add(0, std::memory_order_acq_rel);
  // Busy: the page was still protected when this was read.
  return slot == kNone || slot == kBusy ? nullptr : side_.data(slot - 1);
}

void KeptPages::LetGo(PageRun pages) {
  for (std::uint64_t page = pages.first; page < pages.end();) {
    const std::uint64_t end = std::min(pages.end(), (page / 64 + 1) * 64);
    const std::uint64_t width = end - page;
    const std::uint64_t mask = width == 64 ? ~std::uint64_t{0} : ((std::uint64_t{1} << width) - 1);
    words_[static_cast<std::size_t>(page / 64)].fetch_and(~(mask << (page % 64)));
    page = end;
  }
}

void KeptPages::GiveBack(PageRun pages) {
  for (std::uint64_t page = pages.first; page < pages.end(); ++page) {
    const std::uint32_t slot = slots_[page].load(std::memory_order_acquire);
    // One that is busy now goes with the rest.
    if (slot == kNone || slot == kBusy) continue;
    slots_[page].store(kNone, std::memory_order_relaxed);
    side_.GiveBack(slot - 1);
  }
}

}  // namespace chkpt

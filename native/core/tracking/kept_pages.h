// KeptPages: the pages of a frozen memory that somebody still wants, and the copies of those that
// were overwritten meanwhile. Each is copied once, by whoever comes first.
//
// Thread safety: any, except KeepAll and the destructor.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>

#include "core/base/result.h"
#include "core/memory/guest_memory.h"
#include "core/tracking/side_pages.h"

namespace chkpt {

class KeptPages {
 public:
  // At most `side_byte_count_max` are copied at a time; `reserve_byte_count` of them are made
  // ready. The memory must outlive it. Error: kNoMemory.
  static Result<std::unique_ptr<KeptPages>> Create(const GuestMemory& memory,
                                                   std::uint64_t side_byte_count_max,
                                                   std::uint64_t reserve_byte_count);
  ~KeptPages();
  KeptPages(const KeptPages&) = delete;
  KeptPages& operator=(const KeptPages&) = delete;

  // Wants the pages of `image` that are in `wanted`; empty: all of them.
  void KeepAll(std::span<const std::uint64_t> image, std::span<const std::uint64_t> wanted);
  bool Has(std::uint64_t page) const;
  // Copies a page that is wanted aside; it cannot change meanwhile. When this returns its copy is
  // there. False when there is no room.
  bool SaveAside(std::uint64_t page);
  // The copy, or null: then what was read of memory before this call is the page.
  const std::uint8_t* Saved(std::uint64_t page);
  // The pages are not wanted any more; then their copies are not.
  void LetGo(PageRun pages);
  void GiveBack(PageRun pages);

  std::uint64_t saved_pages() const { return saved_pages_.load(std::memory_order_relaxed); }
  std::uint64_t side_bytes_peak() const { return side_.peak_bytes(); }

 private:
  static constexpr std::uint32_t kNone = 0;
  static constexpr std::uint32_t kBusy = ~std::uint32_t{0};

  KeptPages(const GuestMemory& memory, std::uint64_t side_byte_count_max);

  const GuestMemory& memory_;
  const std::size_t word_count_;
  const std::unique_ptr<std::atomic<std::uint64_t>[]> words_;
  // Of each page: kNone, kBusy while it is copied, or its slot + 1. Untouched memory until it is
  // needed.
  std::atomic<std::uint32_t>* slots_ = nullptr;
  std::uint64_t slot_bytes_ = 0;
  SidePages side_;
  std::atomic<std::uint64_t> saved_pages_{0};
};

}  // namespace chkpt

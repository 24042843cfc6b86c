// PageMask: a set of pages that takes memory where pages are set, not for the pages there are. For
// sets whose size a peer declares: 16 TiB of pages cost 8 MiB, and each leaf was paid for with a
// frame.
//
// Thread safety: Set and Has from any thread at the same time. Absorb and Clear by one thread, with
// no other call under way.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>

#include "core/base/units.h"

namespace chkpt {

class PageMask {
 public:
  explicit PageMask(std::uint64_t page_count)
      : leaf_count_((page_count + kLeafPages - 1) / kLeafPages),
        leaves_(std::make_unique<std::atomic<Leaf*>[]>(leaf_count_)) {}
  ~PageMask() { Clear(); }
  PageMask(const PageMask&) = delete;
  PageMask& operator=(const PageMask&) = delete;

  // REQUIRES: page < page_count.
  void Set(std::uint64_t page) {
    WordOf(LeafFor(page / kLeafPages), page).fetch_or(BitOf(page), std::memory_order_release);
  }

  bool Has(std::uint64_t page) const {
    Leaf* const leaf = leaves_[page / kLeafPages].load(std::memory_order_acquire);
    if (leaf == nullptr) return false;
    return (WordOf(*leaf, page).load(std::memory_order_acquire) & BitOf(page)) != 0;
  }

  // Moves everything out of `other` into this one. REQUIRES: the same page_count.
  void Absorb(PageMask& other) {
    for (std::uint64_t i = 0; i < leaf_count_; ++i) {
      Leaf* const from = other.leaves_[i].exchange(nullptr);
      Leaf* const to = leaves_[i].load();
      if (from == nullptr) continue;
      if (to == nullptr) {
        leaves_[i].store(from);
        continue;
      }
      for (std::size_t word = 0; word < from->size(); ++word) (*to)[word] |= (*from)[word].load();
      delete from;
    }
  }

  void Clear() {
    for (std::uint64_t i = 0; i < leaf_count_; ++i) delete leaves_[i].exchange(nullptr);
  }

 private:
  static constexpr std::uint64_t kLeafPages = 4096;
  using Leaf = std::array<std::atomic<std::uint64_t>, kLeafPages / 64>;

  static std::uint64_t BitOf(std::uint64_t page) { return std::uint64_t{1} << page % 64; }
  static std::atomic<std::uint64_t>& WordOf(Leaf& leaf, std::uint64_t page) {
    return leaf[page % kLeafPages / 64];
  }

  Leaf& LeafFor(std::uint64_t index) {
    Leaf* leaf = leaves_[index].load(std::memory_order_acquire);
    if (leaf != nullptr) return *leaf;
    auto made = std::make_unique<Leaf>();
    if (leaves_[index].compare_exchange_strong(leaf, made.get(), std::memory_order_acq_rel)) {
      return *made.release();
    }
    return *leaf;
  }

  const std::uint64_t leaf_count_;
  const std::unique_ptr<std::atomic<Leaf*>[]> leaves_;
};

}  // namespace chkpt

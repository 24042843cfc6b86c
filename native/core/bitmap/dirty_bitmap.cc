#include "core/bitmap/dirty_bitmap.h"

#include <algorithm>
#include <bit>

#include "core/base/check.h"

namespace chkpt {
namespace {

constexpr std::uint64_t kWordBits = 64;

constexpr std::uint64_t WordIndex(std::uint64_t page) { return page / kWordBits; }
constexpr std::uint64_t PageBit(std::uint64_t page) { return std::uint64_t{1} << page % kWordBits; }

// Bits at and above the one of `page` in its word.
constexpr std::uint64_t BitsFrom(std::uint64_t page) {
  return ~std::uint64_t{0} << page % kWordBits;
}

// Bits below the one of `end` in the word of the last page before `end`. REQUIRES: end > 0.
constexpr std::uint64_t BitsBelow(std::uint64_t end) {
  return ~std::uint64_t{0} >> (kWordBits - 1 - (end - 1) % kWordBits);
}

// First bit at or after `position` and below `limit` that is set in word_at(i) ^ flip; `limit` if
// there is none. With `flip` all ones that is the first clear bit.
template <typename WordAt>
std::uint64_t FindBit(const WordAt& word_at, std::uint64_t position, std::uint64_t limit,
                      std::uint64_t flip) {
  if (position >= limit) return limit;
  const std::uint64_t last = WordIndex(limit - 1);
  std::uint64_t index = WordIndex(position);
  std::uint64_t word = (word_at(index) ^ flip) & BitsFrom(position);
  while (word == 0) {
    if (index == last) return limit;
    word = word_at(++index) ^ flip;
  }
  return std::min(limit, index * kWordBits + static_cast<std::uint64_t>(std::countr_zero(word)));
}

}  // namespace

// Memory order: who marks a page wrote it before; release in Mark and acquire in Take let the taker
// see that write. Mark always does its read-modify-write: to skip it when the bit is already set
// would let a Take in between clear the bit and copy the page before the write became visible, and
// the write would be lost.

DirtyBitmap::DirtyBitmap(std::uint64_t page_count)
    : page_count_(page_count),
      word_count_(static_cast<std::size_t>(page_count / kWordBits + (page_count % kWordBits != 0))),
      words_(std::make_unique<std::atomic<std::uint64_t>[]>(word_count_)) {
  CHKPT_CHECK(page_count > 0);
}

void DirtyBitmap::Mark(std::uint64_t page) {
  CHKPT_CHECK(page < page_count_);
  words_[WordIndex(page)].fetch_or(PageBit(page), std::memory_order_release);
}

template <typename Visit>
void DirtyBitmap::ForEachWord(PageRun run, Visit visit) const {
  CHKPT_CHECK(run.first <= page_count_ && run.count <= page_count_ - run.first);
  if (run.count == 0) return;
  const std::uint64_t first = WordIndex(run.first);
  const std::uint64_t last = WordIndex(run.end() - 1);
  std::uint64_t bits = BitsFrom(run.first);
  for (std::uint64_t index = first; index < last; ++index) {
    visit(index, bits);
    bits = ~std::uint64_t{0};
  }
  visit(last, bits & BitsBelow(run.end()));
}

void DirtyBitmap::MarkRun(PageRun run) {
  ForEachWord(run, [this](std::size_t i, std::uint64_t mask) {
    words_[i].fetch_or(mask, std::memory_order_release);
  });
}

bool DirtyBitmap::MarkNew(std::uint64_t page) {
  CHKPT_CHECK(page < page_count_);
  const std::uint64_t bit = PageBit(page);
  return (words_[WordIndex(page)].fetch_or(bit, std::memory_order_acq_rel) & bit) == 0;
}

void DirtyBitmap::Clear(std::uint64_t page) {
  CHKPT_CHECK(page < page_count_);
  words_[WordIndex(page)].fetch_and(~PageBit(page), std::memory_order_acq_rel);
}

void DirtyBitmap::ClearRun(PageRun run) {
  ForEachWord(run, [this](std::size_t i, std::uint64_t mask) {
    words_[i].fetch_and(~mask, std::memory_order_acq_rel);
  });
}

bool DirtyBitmap::IsMarked(std::uint64_t page) const {
  CHKPT_CHECK(page < page_count_);
  return (words_[WordIndex(page)].load(std::memory_order_acquire) & PageBit(page)) != 0;
}

std::uint64_t DirtyBitmap::CountMarked() const {
  std::uint64_t count = 0;
  for (std::size_t i = 0; i < word_count_; ++i) {
    count += static_cast<std::uint64_t>(std::popcount(words_[i].load(std::memory_order_relaxed)));
  }
  return count;
}

void DirtyBitmap::Take(std::span<std::uint64_t> words) {
  CHKPT_CHECK(words.size() == word_count_);
  for (std::size_t i = 0; i < word_count_; ++i) {
    // A clean word is only read, so that a mostly clean bitmap costs no locked operations. A mark
    // that comes after this load belongs to the next Take.
    const bool clean = words_[i].load(std::memory_order_relaxed) == 0;
    words[i] = clean ? 0 : words_[i].exchange(0, std::memory_order_acquire);
  }
}

void DirtyBitmap::Copy(std::span<std::uint64_t> words) const {
  CHKPT_CHECK(words.size() == word_count_);
  for (std::size_t i = 0; i < word_count_; ++i) {
    words[i] = words_[i].load(std::memory_order_acquire);
  }
}

void DirtyBitmap::Merge(std::span<const std::uint64_t> words) {
  CHKPT_CHECK(words.size() == word_count_);
  for (std::size_t i = 0; i < word_count_; ++i) {
    const std::uint64_t legal = i + 1 == word_count_ ? BitsBelow(page_count_) : ~std::uint64_t{0};
    const std::uint64_t bits = words[i] & legal;
    if (bits != 0) words_[i].fetch_or(bits, std::memory_order_release);
  }
}

std::uint64_t FirstMarked(std::span<const std::uint64_t> words, std::uint64_t page,
                          std::uint64_t limit) {
  return FindBit([words](std::uint64_t i) { return words[i]; }, page, limit, 0);
}

std::uint64_t FirstClear(std::span<const std::uint64_t> words, std::uint64_t page,
                         std::uint64_t limit) {
  return FindBit([words](std::uint64_t i) { return words[i]; }, page, limit, ~std::uint64_t{0});
}

void DirtyBitmap::MoveTo(DirtyBitmap* target) {
  CHKPT_CHECK(target != this && target->page_count_ == page_count_);
  for (std::size_t i = 0; i < word_count_; ++i) {
    if (words_[i].load(std::memory_order_relaxed) == 0) continue;
    const std::uint64_t bits = words_[i].exchange(0, std::memory_order_acquire);
    target->words_[i].fetch_or(bits, std::memory_order_release);
  }
}

void DirtyBitmap::MergeTo(DirtyBitmap* target) const {
  CHKPT_CHECK(target != this && target->page_count_ == page_count_);
  for (std::size_t i = 0; i < word_count_; ++i) {
    const std::uint64_t bits = words_[i].load(std::memory_order_acquire);
    if (bits != 0) target->words_[i].fetch_or(bits, std::memory_order_release);
  }
}

std::uint64_t DirtyBitmap::MoveFirst(std::uint64_t page_count, DirtyBitmap* target) {
  CHKPT_CHECK(target != this && target->page_count_ == page_count_ && page_count > 0);
  std::uint64_t moved = 0;
  for (std::size_t i = 0; i < word_count_ && moved < page_count; ++i) {
    if (words_[i].load(std::memory_order_relaxed) == 0) continue;
    const std::uint64_t bits = words_[i].exchange(0, std::memory_order_acquire);
    target->words_[i].fetch_or(bits, std::memory_order_release);
    moved += static_cast<std::uint64_t>(std::popcount(bits));
  }
  return moved;
}

void DirtyBitmap::Subtract(const DirtyBitmap& other) {
  CHKPT_CHECK(&other != this && other.page_count_ == page_count_);
  for (std::size_t i = 0; i < word_count_; ++i) {
    const std::uint64_t bits = other.words_[i].load(std::memory_order_acquire);
    if (bits != 0) words_[i].fetch_and(~bits, std::memory_order_acq_rel);
  }
}

std::size_t DirtyBitmap::Runs(std::uint64_t from, std::span<PageRun> runs) const {
  const auto word_at = [this](std::uint64_t i) {
    return words_[i].load(std::memory_order_acquire);
  };
  std::size_t count = 0;
  std::uint64_t position = from;
  while (count < runs.size()) {
    const std::uint64_t first = FindBit(word_at, position, page_count_, 0);
    if (first >= page_count_) break;
    // At least the page found, also when it was taken in between: it was marked.
    position = std::max(first + 1, FindBit(word_at, first, page_count_, ~std::uint64_t{0}));
    runs[count++] = {first, position - first};
  }
  return count;
}

RunIterator::RunIterator(std::span<const std::uint64_t> words, std::uint64_t page_count)
    : words_(words), page_count_(page_count) {
  CHKPT_CHECK(page_count == 0 || WordIndex(page_count - 1) < words.size());
}

bool RunIterator::Next(PageRun* run) {
  const auto word_at = [this](std::uint64_t i) { return words_[i]; };
  const std::uint64_t first = FindBit(word_at, position_, page_count_, 0);
  if (first == page_count_) {
    position_ = first;
    return false;
  }
  position_ = FindBit(word_at, first, page_count_, ~std::uint64_t{0});
  *run = {first, position_ - first};
  return true;
}

}  // namespace chkpt

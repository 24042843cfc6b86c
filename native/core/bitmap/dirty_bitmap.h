// DirtyBitmap: one bit per guest page. Trackers set bits, the saver takes them.
//
// Units: every index and count is in pages, never in bytes or words.
//
// Ownership: owns its words. Neither copied nor moved, because trackers keep a pointer to it for as
// long as tracking runs.
//
// Thread safety: everything may run on any number of threads, also during Take and MoveTo. A page
// marked during those is in this result or in the next one; it is never lost.
//
// Invariant: bits at and above page_count() are zero.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <type_traits>
#include <vector>

#include "core/base/units.h"

namespace chkpt {

class DirtyBitmap {
 public:
  // REQUIRES: page_count > 0.
  explicit DirtyBitmap(std::uint64_t page_count);
  DirtyBitmap(const DirtyBitmap&) = delete;
  DirtyBitmap& operator=(const DirtyBitmap&) = delete;

  std::uint64_t page_count() const { return page_count_; }
  std::size_t word_count() const { return word_count_; }

  // REQUIRES: page < page_count().
  void Mark(std::uint64_t page);
  // REQUIRES: run.end() <= page_count() without overflow. Whole words are set at once.
  void MarkRun(PageRun run);
  // Mark, and whether it was not marked before: of two threads one.
  bool MarkNew(std::uint64_t page);
  void Clear(std::uint64_t page);
  void ClearRun(PageRun run);  // REQUIRES: as MarkRun
  bool IsMarked(std::uint64_t page) const;
  std::uint64_t CountMarked() const;

  // Moves the dirty set into `words` and clears it here, one atomic exchange per word that is not
  // clean. Not atomic as a whole.
  // REQUIRES: words.size() == word_count().
  void Take(std::span<std::uint64_t> words);

  // Writes the dirty set into `words` and leaves it as it is. Not atomic as a whole.
  // REQUIRES: words.size() == word_count().
  void Copy(std::span<std::uint64_t> words) const;

  // Sets every bit of `words`: what a failed save took comes back. Bits at and above page_count()
  // are ignored.
  // REQUIRES: words.size() == word_count().
  void Merge(std::span<const std::uint64_t> words);

  // The same between bitmaps: MoveTo takes everything out of this one, MergeTo leaves it here. What
  // `target` held stays marked.
  // REQUIRES: target->page_count() == page_count(); it is another bitmap.
  void MoveTo(DirtyBitmap* target);
  void MergeTo(DirtyBitmap* target) const;
  // Moves the first words that hold pages, until at least `page_count` of them went, or none is
  // left; gives how many went. So at most 63 more than asked for.
  // REQUIRES: as MoveTo; page_count > 0.
  std::uint64_t MoveFirst(std::uint64_t page_count, DirtyBitmap* target);
  // Takes out what is marked in `other`. REQUIRES: as MoveTo.
  void Subtract(const DirtyBitmap& other);

  // Fills `runs` with the first maximal runs at or after page `from`, ascending, and gives their
  // number; fewer than runs.size() when there are no more. A page marked meanwhile may be missed.
  // To go on: from = end of the last run.
  std::size_t Runs(std::uint64_t from, std::span<PageRun> runs) const;

 private:
  // visit(index of a word, bits of it that are in `run`).
  template <typename Visit>
  void ForEachWord(PageRun run, Visit visit) const;

  const std::uint64_t page_count_;
  const std::size_t word_count_;
  const std::unique_ptr<std::atomic<std::uint64_t>[]> words_;
};
static_assert(!std::is_move_constructible_v<DirtyBitmap>);

// First page >= `page` and < `limit` whose bit is set in taken words; `limit` when there is none.
std::uint64_t FirstMarked(std::span<const std::uint64_t> words, std::uint64_t page,
                          std::uint64_t limit);
// The same for a bit that is not set.
std::uint64_t FirstClear(std::span<const std::uint64_t> words, std::uint64_t page,
                         std::uint64_t limit);

// Walks the set bits of taken words as maximal runs, by whole words: cost grows with runs and
// words, not with pages.
class RunIterator {
 public:
  // Bits at and above `page_count` are ignored. `words` must outlive the iterator.
  // REQUIRES: words hold at least page_count bits.
  RunIterator(std::span<const std::uint64_t> words, std::uint64_t page_count);
  // Next maximal run into `*run`; false at the end.
  bool Next(PageRun* run);

 private:
  std::span<const std::uint64_t> words_;
  std::uint64_t page_count_;
  std::uint64_t position_ = 0;
};

}  // namespace chkpt

#include "core/bitmap/dirty_bitmap.h"

#include <gtest/gtest.h>

#include <atomic>
#include <random>
#include <set>
#include <thread>
#include <vector>

namespace chkpt {
namespace {

// One bool per page: what the bitmap must agree with.
using Model = std::vector<bool>;

std::vector<PageRun> MarkedRuns(const Model& model) {
  std::vector<PageRun> runs;
  for (std::uint64_t page = 0; page < model.size(); ++page) {
    if (!model[page]) continue;
    if (!runs.empty() && runs.back().end() == page) {
      ++runs.back().count;
    } else {
      runs.push_back({page, 1});
    }
  }
  return runs;
}

std::vector<std::uint64_t> WordsOf(const Model& model) {
  std::vector<std::uint64_t> words((model.size() + 63) / 64);
  for (std::size_t page = 0; page < model.size(); ++page) {
    if (model[page]) words[page / 64] |= std::uint64_t{1} << page % 64;
  }
  return words;
}

std::vector<PageRun> Iterate(std::span<const std::uint64_t> words, std::uint64_t page_count) {
  std::vector<PageRun> runs;
  RunIterator iterator(words, page_count);
  PageRun run;
  while (iterator.Next(&run)) runs.push_back(run);
  EXPECT_FALSE(iterator.Next(&run)) << "an iterator at its end stays there";
  return runs;
}

std::vector<std::uint64_t> TakeAll(DirtyBitmap& bitmap) {
  std::vector<std::uint64_t> words(bitmap.word_count(), 0x5555'5555'5555'5555);
  bitmap.Take(words);
  return words;
}

// Runs of both kinds with lengths from 1 to several words, so that all word boundaries are met.
Model RandomModel(std::mt19937_64& random, std::size_t page_count) {
  Model model(page_count);
  const std::uint64_t longest = std::uint64_t{1} << random() % 9;
  bool set = random() % 2 == 0;
  for (std::size_t page = 0; page < page_count; set = !set) {
    for (std::uint64_t left = 1 + random() % longest; left > 0 && page < page_count; --left)
      model[page++] = set;
  }
  return model;
}

TEST(DirtyBitmapTest, ABitmapOfAnySizeHoldsExactlyTheMarkedPages) {
  std::mt19937_64 random(1);
  for (const std::uint64_t page_count : {1, 63, 64, 65, 127, 128, 129, 1000}) {
    DirtyBitmap bitmap(page_count);
    Model model(page_count);
    EXPECT_EQ(bitmap.word_count(), (page_count + 63) / 64);
    for (int i = 0; i < 40; ++i) {
      const std::uint64_t page = random() % page_count;
      bitmap.Mark(page);
      model[page] = true;
    }
    std::uint64_t marked = 0;
    for (std::uint64_t page = 0; page < page_count; ++page) {
      ASSERT_EQ(bitmap.IsMarked(page), model[page]) << page << " of " << page_count;
      marked += model[page] ? 1 : 0;
    }
    EXPECT_EQ(bitmap.CountMarked(), marked);
    EXPECT_EQ(TakeAll(bitmap), WordsOf(model));
    EXPECT_EQ(bitmap.CountMarked(), 0U) << "Take clears what it gives";
  }
}

TEST(DirtyBitmapTest, MarkRunMarksExactlyItsPagesAtEveryWordBoundary) {
  constexpr std::uint64_t kPages = 260;
  for (std::uint64_t first = 0; first <= kPages; ++first) {
    for (const std::uint64_t length : {0, 1, 2, 63, 64, 65, 127, 128, 129, 260}) {
      if (length > kPages - first) continue;
      DirtyBitmap bitmap(kPages);
      Model model(kPages);
      bitmap.MarkRun({first, length});
      for (std::uint64_t page = first; page < first + length; ++page) model[page] = true;
      ASSERT_EQ(TakeAll(bitmap), WordsOf(model)) << first << " + " << length;
    }
  }
}

TEST(DirtyBitmapTest, MergeGivesBackWhatAFailedSaveTookAndKeepsNewMarks) {
  DirtyBitmap bitmap(100);
  bitmap.MarkRun({10, 60});
  const std::vector<std::uint64_t> taken = TakeAll(bitmap);
  bitmap.Mark(99);
  bitmap.Mark(12);
  bitmap.Merge(taken);
  EXPECT_EQ(Iterate(TakeAll(bitmap), 100), (std::vector<PageRun>{{10, 60}, {99, 1}}));
}

TEST(DirtyBitmapTest, MergeIgnoresBitsAtAndAbovePageCount) {
  for (const std::uint64_t page_count : {1, 63, 64, 65, 128}) {
    DirtyBitmap bitmap(page_count);
    const std::vector<std::uint64_t> all(bitmap.word_count(), ~std::uint64_t{0});
    bitmap.Merge(all);
    EXPECT_EQ(bitmap.CountMarked(), page_count);
    EXPECT_EQ(Iterate(TakeAll(bitmap), page_count), (std::vector<PageRun>{{0, page_count}}));
  }
}

TEST(RunIteratorTest, RunsAreThoseOfABitByBitWalk) {
  std::mt19937_64 random(2);
  for (int round = 0; round < 3000; ++round) {
    const Model model = RandomModel(random, 1 + random() % 700);
    ASSERT_EQ(Iterate(WordsOf(model), model.size()), MarkedRuns(model)) << "round " << round;
  }
}

TEST(RunIteratorTest, BitsAtAndAbovePageCountAreIgnored) {
  std::mt19937_64 random(3);
  for (int round = 0; round < 2000; ++round) {
    const Model model = RandomModel(random, 1 + random() % 300);
    std::vector<std::uint64_t> words = WordsOf(model);
    if (model.size() % 64 != 0) words.back() |= random() << model.size() % 64;
    words.push_back(random());
    ASSERT_EQ(Iterate(words, model.size()), MarkedRuns(model)) << "round " << round;
  }
  EXPECT_TRUE(Iterate(std::vector<std::uint64_t>{~std::uint64_t{0}}, 0).empty());
  EXPECT_TRUE(Iterate({}, 0).empty());
}

// Writers change pages and mark them; a saver takes and copies. A lost mark shows as a page whose
// copy is older than the page.
TEST(DirtyBitmapTest, APageMarkedDuringTakeIsReturnedByThisRoundOrTheNext) {
  constexpr std::uint64_t kPages = 192;
  constexpr unsigned kWriters = 3;
  constexpr int kMarks = 60'000;
  DirtyBitmap bitmap(kPages);
  // What the pages hold, one row per writer.
  std::vector<std::vector<std::uint64_t>> content(kWriters, std::vector<std::uint64_t>(kPages));
  std::atomic<unsigned> running{kWriters};

  std::vector<std::thread> writers;
  for (unsigned writer = 0; writer < kWriters; ++writer) {
    writers.emplace_back([&, writer] {
      std::mt19937_64 random(writer);
      for (int i = 0; i < kMarks; ++i) {
        // Each writer has pages of its own, but shares every word with the others.
        const std::uint64_t page = random() % (kPages / kWriters) * kWriters + writer;
        std::atomic_ref(content[writer][page]).fetch_add(1, std::memory_order_relaxed);
        if (i % 16 == 0) {
          bitmap.MarkRun({page, 1});
        } else {
          bitmap.Mark(page);
        }
      }
      running.fetch_sub(1);
    });
  }

  // The saver: copies each page that it took.
  std::vector<std::vector<std::uint64_t>> saved(kWriters, std::vector<std::uint64_t>(kPages));
  std::vector<std::uint64_t> words(bitmap.word_count());
  std::mt19937_64 random(99);
  bool last_round = false;
  for (;;) {
    if (running.load() == 0) last_round = true;
    bitmap.Take(words);
    if (!last_round && random() % 8 == 0) {
      bitmap.Merge(words);  // this save failed
      continue;
    }
    RunIterator runs(words, kPages);
    PageRun run;
    while (runs.Next(&run)) {
      for (std::uint64_t page = run.first; page < run.end(); ++page) {
        for (unsigned writer = 0; writer < kWriters; ++writer) {
          saved[writer][page] =
              std::atomic_ref(content[writer][page]).load(std::memory_order_relaxed);
        }
      }
    }
    if (last_round) break;
  }
  for (std::thread& writer : writers) writer.join();
  EXPECT_EQ(saved, content) << "a page changed after its last copy and was not returned as dirty";
  EXPECT_EQ(bitmap.CountMarked(), 0U);
}

// Plain memory is handed over by Mark and Take alone: a missing release or acquire is a race under
// ThreadSanitizer.
TEST(DirtyBitmapTest, WhatWasWrittenBeforeMarkIsSeenAfterTake) {
  for (int round = 0; round < 60; ++round) {
    DirtyBitmap bitmap(64);
    std::vector<std::uint64_t> content(64);
    // Relaxed: nothing but the bitmap orders the content.
    std::atomic<bool> done{false};
    std::thread writer([&] {
      for (std::uint64_t page = 0; page < 64; ++page) {
        content[page] = page + 1;
        // One way of marking per round, so that none hides behind the order that another gives.
        if (round % 3 == 0) {
          bitmap.Mark(page);
        } else if (round % 3 == 1) {
          bitmap.MarkRun({page, 1});
        } else {
          const std::uint64_t word = std::uint64_t{1} << page;
          bitmap.Merge({&word, 1});
        }
      }
      done.store(true, std::memory_order_relaxed);
    });
    std::vector<std::uint64_t> words(1);
    std::uint64_t seen = 0;
    for (bool last = false; !last;) {
      last = done.load(std::memory_order_relaxed);
      bitmap.Take(words);
      EXPECT_EQ(seen & words[0], 0U) << "a page marked once was taken twice";
      RunIterator runs(words, 64);
      PageRun run;
      while (runs.Next(&run)) {
        for (std::uint64_t page = run.first; page < run.end(); ++page) {
          EXPECT_EQ(content[page], page + 1);
        }
      }
      seen |= words[0];
    }
    writer.join();
    bitmap.Take(words);
    ASSERT_EQ(seen | words[0], ~std::uint64_t{0}) << "a mark was lost";
  }
}

TEST(DirtyBitmapTest, RunsOfTheBitmapInPiecesAreThoseOfTheModel) {
  std::mt19937_64 random(7);
  for (int round = 0; round < 200; ++round) {
    const Model model = RandomModel(random, 1 + random() % 700);
    DirtyBitmap bitmap(model.size());
    bitmap.Merge(WordsOf(model));
    std::vector<PageRun> runs;
    std::vector<PageRun> piece(1 + random() % 5);
    std::uint64_t from = 0;
    for (std::size_t count = piece.size(); count == piece.size();) {
      count = bitmap.Runs(from, piece);
      runs.insert(runs.end(), piece.begin(), piece.begin() + static_cast<std::ptrdiff_t>(count));
      if (count > 0) from = runs.back().end();
    }
    ASSERT_EQ(runs, MarkedRuns(model));
    EXPECT_EQ(bitmap.Runs(model.size(), piece), 0U);
  }
}

TEST(DirtyBitmapTest, MoveToAndMergeToKeepWhatTheTargetHeld) {
  std::mt19937_64 random(8);
  for (int round = 0; round < 50; ++round) {
    const std::size_t pages = 1 + random() % 700;
    const Model source_model = RandomModel(random, pages);
    const Model target_model = RandomModel(random, pages);
    DirtyBitmap source(pages);
    DirtyBitmap merged(pages);
    DirtyBitmap moved(pages);
    source.Merge(WordsOf(source_model));
    merged.Merge(WordsOf(target_model));
    moved.Merge(WordsOf(target_model));
    std::vector<std::uint64_t> both = WordsOf(source_model);
    const std::vector<std::uint64_t> target_words = WordsOf(target_model);
    for (std::size_t i = 0; i < both.size(); ++i) both[i] |= target_words[i];

    source.MergeTo(&merged);
    EXPECT_EQ(TakeAll(merged), both);
    source.MoveTo(&moved);
    EXPECT_EQ(TakeAll(moved), both);
    EXPECT_EQ(source.CountMarked(), 0U);
  }
}

TEST(DirtyBitmapTest, MoveFirstTakesWholeWordsFromTheStartUntilThereAreEnough) {
  std::mt19937_64 random(77);
  for (int round = 0; round < 40; ++round) {
    const std::uint64_t pages = 1 + random() % 700;
    const Model model = RandomModel(random, pages);
    const std::vector<std::uint64_t> all = WordsOf(model);
    DirtyBitmap source(pages);
    source.Merge(all);
    std::vector<std::uint64_t> seen(all.size());
    std::uint64_t left = source.CountMarked();
    while (left > 0) {
      const std::uint64_t wanted = 1 + random() % 100;
      DirtyBitmap first(pages);
      const std::uint64_t moved = source.MoveFirst(wanted, &first);
      EXPECT_EQ(moved, first.CountMarked());
      EXPECT_GE(moved, std::min(wanted, left));
      EXPECT_LT(moved, wanted + 64);
      EXPECT_EQ(source.CountMarked(), left - moved);
      left -= moved;
      const std::vector<std::uint64_t> words = TakeAll(first);
      for (std::size_t i = 0; i < words.size(); ++i) {
        EXPECT_EQ(seen[i] & words[i], 0U);
        // In order: nothing before what was taken earlier.
        if (words[i] != 0) {
          EXPECT_EQ(words[i], all[i]);
        }
        seen[i] |= words[i];
      }
    }
    EXPECT_EQ(seen, all);
    DirtyBitmap none(pages);
    EXPECT_EQ(source.MoveFirst(5, &none), 0U);
  }
}

TEST(DirtyBitmapDeathTest, APageOutsideTheBitmapIsABugOfOurs) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  DirtyBitmap bitmap(65);
  EXPECT_DEATH(bitmap.Mark(65), "internal error");
  EXPECT_DEATH(bitmap.MarkRun({64, 2}), "internal error");
  EXPECT_DEATH(bitmap.MarkRun({1, ~std::uint64_t{0}}), "internal error");
  EXPECT_DEATH(DirtyBitmap(0), "internal error");
}

}  // namespace
}  // namespace chkpt

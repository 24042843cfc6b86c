// One suite for every kind of tracker on every kind of memory, and the oracle.
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <optional>
#include <thread>

#include "core/memory/presence.h"
#include "dirty_tracker_fixture.h"
#include "tracker_oracle.h"

namespace chkpt {
namespace {

const std::vector<PageRun> kNone;

TEST_P(DirtyTrackerTest, WrittenPagesOfAllRegionsAreToldOnceAndAgainWhenWrittenAgain) {
  for (const std::uint64_t page : {0, 7, 1024, 2000, 3071}) WriteTo(page, 1);
  Arm();
  EXPECT_EQ(Harvest(), kNone) << "clean after arm";
  // Content, and untouched pages; the ends of regions.
  for (const std::uint64_t page : {7, 8, 1023, 1024, 1535, 1536, 3071}) WriteTo(page, 2);
  ExpectTold({{7, 2}, {1023, 2}, {1535, 2}, {3071, 1}});
  EXPECT_EQ(Harvest(), kNone);
  for (const std::uint64_t page : {8, 2000}) WriteTo(page, 3);
  ExpectTold({{8, 1}, {2000, 1}});
}

TEST_P(DirtyTrackerTest, ArmForgetsWhatWasWrittenBefore) {
  Arm();
  WriteTo(5, 1);
  Arm();
  EXPECT_EQ(Harvest(), kNone);
}

TEST_P(DirtyTrackerTest, HarvestBeforeArmIsAnError) {
  DirtyBitmap set(memory_->page_count());
  EXPECT_EQ(CodeOf(tracker_->Harvest(&set, Never)), ErrorCode::kClosed);
  EXPECT_EQ(CodeOf(tracker_->Look(&set, Never)), ErrorCode::kClosed);
}

TEST_P(DirtyTrackerTest, DroppedPagesAreToldAlsoWhenTheyAreReadAgain) {
  if (place() == Place::kFile) GTEST_SKIP() << "a file is not dropped";
  const int advice =
      place() == Place::kMemfd || place() == Place::kMapped ? MADV_REMOVE : MADV_DONTNEED;
  // Some areas full of content, others with a page that is not there: they are looked at
  // differently.
  const auto has_content = [](std::uint64_t page) { return page % 1024 != 5; };
  for (std::uint64_t page = 0; page < 3072; ++page) {
    if (has_content(page)) WriteTo(page, 1);
  }
  Arm();
  Drop({0, 1024}, advice);
  DirtyBitmap first(memory_->page_count());
  for (const PageRun& run : Harvest()) first.MarkRun(run);
  for (std::uint64_t page = 0; page < 1024; ++page) {
    ASSERT_TRUE(first.IsMarked(page) || !has_content(page)) << page;
  }
  EXPECT_FALSE(first.IsMarked(1024));
  Drop({1024, 512}, advice);
  Drop({2048, 512}, advice);
  for (std::uint64_t page = 1024; page < 1536; ++page) {
    std::uint8_t byte = 1;
    const Region& region = memory_->regions()[memory_->RegionOfPage(page)];
    CopyGuest(&byte, region.host + (page - region.first_page) * kPageBytes, 1);
    ASSERT_EQ(byte, 0);
  }
  DirtyBitmap told(memory_->page_count());
  for (const PageRun& run : Harvest()) told.MarkRun(run);
  for (std::uint64_t page = 1024; page < 2560; ++page) {
    const bool dropped = page < 1536 || page >= 2048;
    ASSERT_TRUE(told.IsMarked(page) || !dropped || !has_content(page)) << page;
  }
}

TEST_P(DirtyTrackerTest, WhatIsWrittenAndThenDroppedFromThePageTableIsTold) {
  if (place() != Place::kMemfd && place() != Place::kMapped) GTEST_SKIP() << "for shared memory";
  Arm();
  for (const std::uint64_t page : {0, 1, 600, 2000}) WriteTo(page, 7);
  Drop({0, 1024}, MADV_DONTNEED);
  Drop({1536, 1536}, MADV_DONTNEED);
  DirtyBitmap told(memory_->page_count());
  for (const PageRun& run : Harvest()) told.MarkRun(run);
  for (const std::uint64_t page : {0, 1, 600, 2000}) EXPECT_TRUE(told.IsMarked(page)) << page;
}

TEST_P(DirtyTrackerTest, WhatTheMemoryItselfWritesAndZeroesIsTold) {
  for (std::uint64_t page = 0; page < 3072; ++page) WriteTo(page, 1);
  Arm();
  const Bytes bytes = RandomBytes(kPageBytes + 1, 1);
  ASSERT_TRUE(memory_->Write(5 * kPageBytes - 1, bytes).ok());
  ASSERT_TRUE(memory_->CopyIn({100, 1}, bytes.data()).ok());
  ASSERT_TRUE(memory_->Zero({2048, 512}).ok());
  ExpectTold({{4, 2}, {100, 1}, {2048, 512}});
}

TEST_P(DirtyTrackerTest, TheCostOfAFirstWriteIsSmallWhereItIsKnownAndMeasuringItTellsNothing) {
  Arm();
  WriteTo(3, 1);
  const std::optional<double> cost = tracker_->FirstWriteCost();
  if (kind() == TrackerKind::kDigest) {
    EXPECT_EQ(cost, 0);
  } else if (kind() == TrackerKind::kWriteProtect && place() != Place::kHugetlb) {
    ASSERT_TRUE(cost.has_value());
    EXPECT_GT(*cost, 0);
    EXPECT_LT(*cost, 1e6);
  } else {
    EXPECT_FALSE(cost.has_value());
  }
  ExpectTold({{3, 1}});
  WriteTo(4, 1);
  ExpectTold({{4, 1}});
}

TEST_P(DirtyTrackerTest, UntouchedMemoryIsNotMadePresent) {
  WriteTo(3, 1);
  PresenceFinder finder;
  const auto present = [&] {
    std::uint64_t count = 0;
    std::vector<PageRun> runs;
    for (const Region& region : memory_->regions()) {
      finder.PresentRuns(region, region.pages(), &runs);
      for (const PageRun& run : runs) count += run.count;
    }
    return count;
  };
  const std::uint64_t before = present();
  Arm();
  Harvest();
  Harvest();
  EXPECT_EQ(present(), before);
}

// Kernels and hosts without a shared zero page give the reader a page of its own, which nobody has
// protected: more may be told than was written, but only where somebody was.
TEST_P(DirtyTrackerTest, ReadingUntouchedMemoryMakesNothingElseDirty) {
  if (place() == Place::kFile) GTEST_SKIP() << "a read of a file leaves nothing";
  Arm();
  DirtyBitmap allowed(memory_->page_count());
  for (const std::uint64_t page : {0, 700}) {
    volatile std::uint8_t* const place = memory_->regions()[0].host + page * kPageBytes;
    static_cast<void>(*place);
    if (kind() == TrackerKind::kWriteProtect) allowed.MarkRun({page / 512 * 512, 512});
  }
  for (const PageRun& run : Harvest()) {
    for (std::uint64_t page = run.first; page < run.end(); ++page) {
      EXPECT_TRUE(allowed.IsMarked(page)) << page;
    }
  }
}

TEST_P(DirtyTrackerTest, ACancelledHarvestLosesNothing) {
  Arm();
  for (const std::uint64_t page : {1, 1030, 3000}) WriteTo(page, 9);
  for (int calls = 0; calls < 6; ++calls) {
    int left = calls;
    DirtyBitmap set(memory_->page_count());
    Status harvested = tracker_->Harvest(&set, [&left] { return left-- <= 0; });
    if (harvested.ok()) {
      EXPECT_EQ(set.CountMarked() > 0, true);
      tracker_->Mark({1, 1});
      tracker_->Mark({1030, 1});
      tracker_->Mark({3000, 1});
      break;
    }
    EXPECT_EQ(harvested.error().code, ErrorCode::kAborted);
    EXPECT_EQ(set.CountMarked(), 0U);
  }
  DirtyBitmap told(memory_->page_count());
  for (const PageRun& run : Harvest()) told.MarkRun(run);
  for (const std::uint64_t page : {1, 1030, 3000}) EXPECT_TRUE(told.IsMarked(page)) << page;
}

TEST_P(DirtyTrackerTest, CloseGivesEverythingBackAndAnotherCanBeOpened) {
  const int before = CountDescriptors();
  for (int round = 0; round < 3; ++round) {
    Open();
    Arm();
    WriteTo(static_cast<std::uint64_t>(round), static_cast<std::uint8_t>(round + 1));
    ExpectTold({{static_cast<std::uint64_t>(round), 1}});
  }
  EXPECT_EQ(CountDescriptors(), before);
  Result<Tracker> second = OpenTracker(kind(), memory_, trust_holes());
  if (kind() == TrackerKind::kWriteProtect) {
    EXPECT_EQ(CodeOf(std::move(second)), ErrorCode::kUnsupported) << "one for one memory";
  } else {
    EXPECT_TRUE(second.ok());
  }
  Arm();
  WriteTo(9, 1);
  ExpectTold({{9, 1}});  // the first one is not disturbed
}

TEST_P(DirtyTrackerTest, SparseMemoryAboveFourGibibytesIsTracked) {
  if (place() == Place::kHugetlb || place() == Place::kAttached) GTEST_SKIP() << "not sparse";
  tracker_.reset();
  memory_ = Make({{0, 3 * kGiB}, {4 * kGiB, 3 * kGiB}});
  ASSERT_NE(memory_, nullptr);
  Open();
  const std::uint64_t last = memory_->page_count() - 1;
  for (const std::uint64_t page : {std::uint64_t{1}, last}) WriteTo(page, 1);
  Arm();
  WriteTo(last, 2);
  WriteTo(1'000'000, 2);
  ExpectTold({{1'000'000, 1}, {last, 1}});
}

// Migrations in small: see tracker_oracle.h. A lost page is a lost write.
TEST_P(DirtyTrackerTest, NoPageIsLostWhileThreadsWriteAndAdvise) {
  if (place() == Place::kFile) GTEST_SKIP() << "writers write to mapped memory";
  if (kind() == TrackerKind::kReported) GTEST_SKIP() << "nobody reports here";
  tracker_.reset();
  memory_ = Make({{0, 2 * kMiB}, {4 * kMiB, 2 * kMiB}});
  ASSERT_NE(memory_, nullptr);
  Open();
  OracleOptions options;
  options.writes = kind() == TrackerKind::kDigest ? 200'000 : 2'000'000;
  options.batch_writes = options.writes / 5;
  // Digests compare two moments, so what runs in between is not theirs to see.
  options.harvests = kind() == TrackerKind::kDigest ? 0 : 2;
  options.copies_running = kind() != TrackerKind::kDigest;
  const OracleReport report = TrackerOracle(tracker_.get(), options).Run();
  EXPECT_FALSE(report.failed);
  EXPECT_EQ(report.missed_pages, 0U);
  EXPECT_GT(report.told_pages, 0U);
  EXPECT_GT(report.advices, 0U);
}

INSTANTIATE_TEST_SUITE_P(All, DirtyTrackerTest, AllTrackers(), NameOfTracker);

}  // namespace
}  // namespace chkpt

// What trackers tell to those who write the pages themselves.
#include <gtest/gtest.h>
#include <sys/resource.h>

#include "dirty_tracker_fixture.h"

namespace chkpt {
namespace {

class TrackerLookTest : public DirtyTrackerTest {};

const std::vector<PageRun> kNothingTold;

TEST_P(TrackerLookTest, WhatALookTellsTheNextHarvestTellsAgain) {
  for (const std::uint64_t page : {7, 8, 1024, 2000, 3071}) WriteTo(page, 1);
  Arm();
  EXPECT_EQ(Look(), kNothingTold);
  for (const std::uint64_t page : {7, 1024}) WriteTo(page, 2);
  ExpectPages(Look(), {{7, 1}, {1024, 1}});
  for (const std::uint64_t page : {7, 3071}) WriteTo(page, 3);
  ExpectPages(Look(), {{7, 1}, {1024, 1}, {3071, 1}});
  ExpectTold({{7, 1}, {1024, 1}, {3071, 1}});
  EXPECT_EQ(Look(), kNothingTold);
  // The harvest has made them clean, so that they are seen when they are written again.
  for (const std::uint64_t page : {7, 2000}) WriteTo(page, 4);
  ExpectTold({{7, 1}, {2000, 1}});
  EXPECT_EQ(Harvest(), kNothingTold);
}

TEST_P(TrackerLookTest, DroppedPagesThatALookTellsTheNextHarvestTellsAgain) {
  if (place() == Place::kFile) GTEST_SKIP() << "a file is not dropped";
  const bool is_shared = place() == Place::kMemfd || place() == Place::kMapped;
  // Some areas full of content, others with a page that is not there.
  for (std::uint64_t page = 0; page < 3072; ++page) {
    if (page % 1024 != 5) WriteTo(page, 1);
  }
  Arm();
  constexpr PageRun kDropped{512, 512};
  Drop(kDropped, is_shared ? MADV_REMOVE : MADV_DONTNEED);
  ExpectPages(Look(), {kDropped});
  ExpectPages(Look(), {kDropped});
  ExpectTold({kDropped});
}

TEST_P(TrackerLookTest, WhatALookTellsIsWrittenWithoutFaultsAndWhatAHarvestTellsIsNot) {
  if (kind() != TrackerKind::kWriteProtect || place() == Place::kHugetlb) {
    GTEST_SKIP() << "writes are not made dear";
  }
  constexpr std::uint64_t kPages = 1024;
  for (std::uint64_t page = 0; page < kPages; ++page) WriteTo(page, 1);
  Arm();
  const auto faults_of_writes = [&](std::uint8_t value) {
    rusage before{};
    rusage after{};
    ::getrusage(RUSAGE_THREAD, &before);
    for (std::uint64_t page = 0; page < kPages; ++page) WriteTo(page, value);
    ::getrusage(RUSAGE_THREAD, &after);
    return after.ru_minflt - before.ru_minflt;
  };
  EXPECT_GE(faults_of_writes(2), static_cast<long>(kPages / 2));
  Look();
  EXPECT_LE(faults_of_writes(3), static_cast<long>(kPages / 16));
  Harvest();
  EXPECT_GE(faults_of_writes(4), static_cast<long>(kPages / 2));
}

// Behind a live save the threads of a guard hear of writes.
TEST_P(TrackerLookTest, WhatALookTellsIsToldAgainUnderAGuard) {
  if (kind() != TrackerKind::kWriteProtect) GTEST_SKIP() << "has no guard";
  for (const std::uint64_t page : {7, 8, 1024, 2000, 3071}) WriteTo(page, 1);
  Arm();
  Harvest();
  Result<std::shared_ptr<WriteGuard>> guard = tracker_->ShareGuard();
  if (!guard.ok()) GTEST_SKIP() << guard.error().message;
  for (const std::uint64_t page : {7, 1024}) WriteTo(page, 2);
  ExpectPages(Look(), {{7, 1}, {1024, 1}});
  for (const std::uint64_t page : {7, 3071}) WriteTo(page, 3);
  ExpectTold({{7, 1}, {1024, 1}, {3071, 1}});
  EXPECT_EQ(Look(), kNothingTold);
  WriteTo(7, 4);
  ExpectTold({{7, 1}});
}

INSTANTIATE_TEST_SUITE_P(All, TrackerLookTest, AllTrackers(), NameOfTracker);

}  // namespace
}  // namespace chkpt

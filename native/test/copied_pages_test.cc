// What was copied and is dropped before the next harvest must be told: the copy has a content that
// the memory has no longer, also where the memory had none at the last harvest.
#include <sys/mman.h>

#include "core/tracking/write_protect_tracker.h"
#include "test/pipeline_fixtures.h"

namespace chkpt {
namespace {

bool NotCancelled() { return false; }

struct CopyCase {
  const char* name;
  Backing backing;
  bool trust_holes;
  bool is_guarded;
};

class CopiedPagesTest : public testing::TestWithParam<CopyCase> {
 protected:
  void SetUp() override {
    const RegionSpec specs[] = {{0, 4u << 20}, {8u << 20, 4u << 20}};
    memory_ =
        GuestMemory::Allocate(specs, {.backing = GetParam().backing, .huge_pages = false}).value();
    auto opened = WriteProtectTracker::Open(memory_, GetParam().trust_holes);
    if (!opened.ok()) GTEST_SKIP() << opened.error().message;
    tracker_ = std::move(opened.value());
    At(0)[0] = 1;
    ASSERT_TRUE(tracker_->Arm(NotCancelled).ok());
    if (!GetParam().is_guarded) return;
    auto guard = tracker_->ShareGuard();
    if (!guard.ok()) GTEST_SKIP() << guard.error().message;
    guard_ = guard.value();
  }

  std::uint8_t* At(std::uint64_t page) const {
    const Region& region = memory_->regions()[memory_->RegionOfPage(page)];
    return region.host + (page - region.first_page) * kPageBytes;
  }

  void Drop(std::uint64_t page) {
    const int advice = GetParam().backing == Backing::kMemfd ? MADV_REMOVE : MADV_DONTNEED;
    ASSERT_EQ(::madvise(At(page), kPageBytes, advice), 0);
  }

  bool IsTold(std::uint64_t page) {
    DirtyBitmap told(memory_->page_count());
    EXPECT_TRUE(tracker_->Harvest(&told, NotCancelled).ok());
    return told.IsMarked(page);
  }

  std::shared_ptr<GuestMemory> memory_;
  std::unique_ptr<DirtyTracker> tracker_;
  std::shared_ptr<WriteGuard> guard_;
};

TEST_P(CopiedPagesTest, PagesThatASaveHasStoredAndThatAreDroppedThen) {
  for (const std::uint64_t page : {7, 1030}) {
    At(page)[9] = 1;
    ASSERT_TRUE(Save(memory_, {}).ok());
    Drop(page);
    EXPECT_TRUE(IsTold(page)) << page;
    // And again: the page had no content when it was told.
    At(page)[9] = 2;
    ASSERT_TRUE(Save(memory_, {}).ok());
    Drop(page);
    static_cast<void>(*static_cast<const volatile std::uint8_t*>(At(page)));  // the zero page
    EXPECT_TRUE(IsTold(page)) << page;
  }
}

TEST_P(CopiedPagesTest, PagesThatWereReadOrCopiedOut) {
  std::vector<std::uint8_t> copy(kPageBytes);
  At(1030)[4095] = 1;
  ASSERT_TRUE(memory_->CopyOut({1030, 1}, copy.data()).ok());
  Drop(1030);
  EXPECT_TRUE(IsTold(1030));
  At(1030)[0] = 1;
  ASSERT_TRUE(memory_->Read((8u << 20) + 6 * kPageBytes - 1, {copy.data(), 2}).ok());
  Drop(1030);
  EXPECT_TRUE(IsTold(1030));
}

TEST_P(CopiedPagesTest, PagesThatNobodyCopiedAreUntouched) {
  if (GetParam().backing == Backing::kMemfd)
    GTEST_SKIP() << "shared memory that is dropped is told";
  ASSERT_TRUE(Save(memory_, {}).ok());
  At(7)[9] = 1;
  Drop(7);
  EXPECT_FALSE(IsTold(7));
  EXPECT_FALSE(IsTold(8)) << "absent while all was saved";
}

INSTANTIATE_TEST_SUITE_P(All, CopiedPagesTest,
                         testing::Values(CopyCase{"Private", Backing::kAnonymous, true, false},
                                         CopyCase{"OldKernel", Backing::kAnonymous, false, false},
                                         CopyCase{"Guarded", Backing::kAnonymous, true, true},
                                         CopyCase{"Memfd", Backing::kMemfd, true, false}),
                         [](const auto& given) { return given.param.name; });

}  // namespace
}  // namespace chkpt

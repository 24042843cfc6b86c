#include "core/lazy/missing_pages.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include "core/base/bytes.h"
#include "core/lazy/lazy_loader.h"
#include "core/lazy/page_run.h"

namespace chkpt {
namespace {

constexpr std::uint64_t kGuestPages = 96;

std::shared_ptr<GuestMemory> MakeMemory() {
  const std::vector<RegionSpec> specs = {{0, 64 * kPageBytes}, {1u << 20, 32 * kPageBytes}};
  auto memory = GuestMemory::Allocate(specs, {.huge_pages = false});
  EXPECT_TRUE(memory.ok());
  return memory.value();
}

std::uint8_t* HostOf(GuestMemory& memory, std::uint64_t page) {
  const Region& region = memory.regions()[memory.RegionOfPage(page)];
  return region.host + (page - region.first_page) * kPageBytes;
}

std::uint8_t FirstByte(GuestMemory& memory, std::uint64_t page) {
  return *static_cast<const volatile std::uint8_t*>(HostOf(memory, page));
}

class MissingPagesTest : public ::testing::Test {
 protected:
  void Open(const DirtyBitmap& missing, std::uint32_t owner = 0) {
    auto pages = MissingPages::Start(memory_, missing, owner, [] {});
    if (!pages.ok()) GTEST_SKIP() << pages.error().message;
    pages_ = std::move(pages.value());
    while (!pages_->started() && !pages_->error()) std::this_thread::yield();
    ASSERT_TRUE(pages_->started());
  }

  // Waits until the handler tells of pages.
  std::vector<std::uint64_t> Wanted() {
    for (;;) {
      std::vector<std::uint64_t> wanted = pages_->TakeWanted();
      if (!wanted.empty()) return wanted;
      std::this_thread::yield();
    }
  }

  const std::shared_ptr<GuestMemory> memory_ = MakeMemory();
  DirtyBitmap missing_{kGuestPages};
  std::unique_ptr<MissingPages> pages_;
};

TEST_F(MissingPagesTest, WhoTouchesAPageSleepsUntilItIsPlacedAndNothingElseIsTouched) {
  for (std::uint64_t page = 0; page < kGuestPages; ++page) {
    std::memset(HostOf(*memory_, page), static_cast<int>(page + 1), kPageBytes);
  }
  // Over the border of the two regions.
  missing_.MarkRun({60, 8});
  Open(missing_);
  if (pages_ == nullptr) return;
  EXPECT_EQ(pages_->left(), 8U);
  EXPECT_EQ(FirstByte(*memory_, 59), 60);
  std::atomic<int> seen{-1};
  std::thread guest([&] { seen = FirstByte(*memory_, 65); });
  EXPECT_EQ(Wanted(), std::vector<std::uint64_t>{65});
  EXPECT_EQ(seen, -1);
  pages_->WantAgain();
  EXPECT_EQ(Wanted(), std::vector<std::uint64_t>{65});
  const std::vector<std::uint8_t> content(4 * kPageBytes, 200);
  ASSERT_TRUE(pages_->Place({64, 4}, content.data()).ok());
  guest.join();
  EXPECT_EQ(seen, 200);
  EXPECT_EQ(pages_->waits().size(), 1U);
  ASSERT_TRUE(pages_->PlaceZero({60, 4}).ok());
  EXPECT_EQ(pages_->left(), 0U);
  EXPECT_EQ(FirstByte(*memory_, 60), 0);
  EXPECT_EQ(FirstByte(*memory_, 68), 69);
}

TEST_F(MissingPagesTest, APageThatComesAgainOverwritesNothing) {
  missing_.MarkRun({0, 4});
  Open(missing_);
  if (pages_ == nullptr) return;
  const std::vector<std::uint8_t> first(4 * kPageBytes, 1);
  const std::vector<std::uint8_t> again(4 * kPageBytes, 2);
  ASSERT_TRUE(pages_->Place({1, 2}, first.data()).ok());
  *HostOf(*memory_, 1) = 77;
  ASSERT_TRUE(pages_->Place({0, 4}, again.data()).ok());
  EXPECT_EQ(FirstByte(*memory_, 0), 2);
  EXPECT_EQ(FirstByte(*memory_, 1), 77);
  EXPECT_EQ(FirstByte(*memory_, 2), 1);
  EXPECT_EQ(FirstByte(*memory_, 3), 2);
  // Given back by the guest: zeros, whatever comes late.
  ASSERT_TRUE(memory_->Zero({2, 1}).ok());
  ASSERT_TRUE(pages_->Place({2, 1}, again.data()).ok());
  EXPECT_EQ(FirstByte(*memory_, 2), 0);
}

TEST_F(MissingPagesTest, WhatNeverComesIsNotZeros) {
  missing_.MarkRun({0, 2});
  Open(missing_);
  if (pages_ == nullptr) return;
  std::atomic<int> seen{-1};
  std::thread guest([&] { seen = FirstByte(*memory_, 1); });
  Wanted();
  pages_->Release();
  guest.join();
  EXPECT_EQ(seen, LazyLoader::kDamagePattern);
  // Also who comes after it was released.
  EXPECT_EQ(FirstByte(*memory_, 0), LazyLoader::kDamagePattern);
}

// Many threads touch all pages while others place them in another order, some twice.
TEST_F(MissingPagesTest, EveryThreadSeesEveryPageAsItWasPlaced) {
  constexpr int kPlaceRounds = 40;
  for (int round = 0; round < kPlaceRounds; ++round) {
    DirtyBitmap missing(kGuestPages);
    missing.MarkRun({0, kGuestPages});
    Open(missing);
    if (pages_ == nullptr) return;
    std::atomic<std::uint64_t> wrong{0};
    std::vector<std::thread> threads;
    for (unsigned i = 0; i < 3; ++i) {
      threads.emplace_back([&, i] {
        for (std::uint64_t step = 0; step < kGuestPages; ++step) {
          const std::uint64_t page = (step * 37 + i * 11) % kGuestPages;
          if (FirstByte(*memory_, page) != page % 7) ++wrong;
        }
      });
    }
    for (unsigned i = 0; i < 2; ++i) {
      threads.emplace_back([&, seed = round * 2 + static_cast<int>(i)] {
        std::mt19937 random(static_cast<unsigned>(seed));
        std::vector<std::uint8_t> content(kPageBytes);
        for (int step = 0; step < 150; ++step) {
          const std::uint64_t page = random() % kGuestPages;
          std::memset(content.data(), static_cast<int>(page % 7), kPageBytes);
          const bool zero = page % 7 == 0 && random() % 2 == 0;
          const Status placed =
              zero ? pages_->PlaceZero({page, 1}) : pages_->Place({page, 1}, content.data());
          if (!placed.ok()) ++wrong;
        }
      });
    }
    threads[3].join();
    threads[4].join();
    std::vector<std::uint8_t> content(kPageBytes);
    for (std::uint64_t page = 0; page < kGuestPages; ++page) {
      std::memset(content.data(), static_cast<int>(page % 7), kPageBytes);
      ASSERT_TRUE(pages_->Place({page, 1}, content.data()).ok());
    }
    for (unsigned i = 0; i < 3; ++i) threads[i].join();
    EXPECT_EQ(wrong, 0U) << "round " << round;
    EXPECT_EQ(pages_->left(), 0U);
    pages_.reset();
  }
}

TEST(PageRunTest, BytesThatAreNoneAreRefusedBeforeAnythingIsPlaced) {
  class Placer final : public PagePlacer {
   public:
    Status Place(PageRun run, const std::uint8_t* bytes) override {
      last.assign(bytes, bytes + run.count * kPageBytes);
      return Ok();
    }
    Status PlaceZero(PageRun run) override {
      last.assign(run.count * kPageBytes, 0);
      return Ok();
    }
    std::vector<std::uint8_t> last;
  };
  const std::shared_ptr<GuestMemory> memory = MakeMemory();
  std::mt19937 random(5);
  for (std::uint64_t page = 8; page < 16; ++page) {
    for (std::size_t i = 0; i < kPageBytes; ++i) {
      HostOf(*memory, page)[i] = static_cast<std::uint8_t>(page < 12 ? i / 64 : random());
    }
  }
  Placer placer;
  // Zeros, pages that compress, pages that do not.
  for (const PageRun run : {PageRun{0, 8}, PageRun{8, 4}, PageRun{12, 4}, PageRun{64, 1}}) {
    auto bytes = EncodePageRun(*memory, run);
    ASSERT_TRUE(bytes.ok());
    ASSERT_TRUE(PlacePageRun(bytes.value(), *memory, placer).ok());
    ASSERT_EQ(placer.last.size(), run.count * kPageBytes);
    EXPECT_EQ(std::memcmp(placer.last.data(), HostOf(*memory, run.first), placer.last.size()), 0);
    placer.last.clear();
    for (std::size_t cut = 0; cut < bytes.value().size(); cut += 13) {
      const std::span<const std::uint8_t> part(bytes.value().data(), cut);
      EXPECT_FALSE(PlacePageRun(part, *memory, placer).ok());
    }
    for (const std::uint64_t page : {std::uint64_t{56}, std::uint64_t{63}, kGuestPages, kUnknown}) {
      if (page + run.count <= 64) continue;
      std::vector<std::uint8_t> other = bytes.value();
      Store(other.data(), page);
      if (run.count > 1 || page >= kGuestPages) {
        EXPECT_FALSE(PlacePageRun(other, *memory, placer).ok()) << page;
      }
    }
    for (const std::uint32_t count : {0U, 17U, 0xffffffffU}) {
      std::vector<std::uint8_t> other = bytes.value();
      Store(other.data() + 8, count);
      EXPECT_FALSE(PlacePageRun(other, *memory, placer).ok()) << count;
    }
    EXPECT_TRUE(placer.last.empty());
  }
}

}  // namespace
}  // namespace chkpt

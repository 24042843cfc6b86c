// A copy must equal its source after every update, whatever came and went between two of them. The
// oracle is the digest of the whole memory.
#include "core/scan/memory_copy.h"

#include <gtest/gtest.h>

#include <atomic>
#include <random>
#include <thread>

#include "core/scan/memory_scan.h"
#include "test/memory_fixtures.h"

namespace chkpt {
namespace {

const auto kNever = [] { return false; };
const std::atomic<bool> kNotCancelled{false};

std::uint64_t DigestOf(const Memory& memory) {
  return DigestMemory(*memory, 2, kNotCancelled).value();
}

Memory TargetFor(const Memory& source) {
  std::vector<RegionSpec> specs;
  for (const Region& region : source->regions()) specs.push_back({region.base, region.bytes});
  return GuestMemory::Allocate(specs, {}).value();
}

void WritePages(const Memory& memory, std::mt19937_64& random, int count) {
  for (int i = 0; i < count; ++i) {
    const Region& region = memory->regions()[random() % memory->regions().size()];
    const std::uint64_t page = random() % region.page_count();
    ASSERT_TRUE(
        memory->Write(region.base + page * kPageBytes, RandomBytes(kPageBytes, random())).ok());
  }
}

void ZeroPages(const Memory& memory, std::mt19937_64& random, int count) {
  for (int i = 0; i < count; ++i) {
    const Region& region = memory->regions()[random() % memory->regions().size()];
    const std::uint64_t first = random() % region.page_count();
    const std::uint64_t run =
        1 + random() % std::min<std::uint64_t>(region.page_count() - first, 700);
    ASSERT_TRUE(memory->Zero({region.first_page + first, run}).ok());
  }
}

class MemoryCopyBackingTest : public testing::TestWithParam<Backing> {};

TEST_P(MemoryCopyBackingTest, EqualsItsSourceAfterEveryUpdateAlsoWherePagesWereGivenBack) {
  const RegionSpec specs[] = {{0, 9 * kMiB + kPageBytes}, {5 * kGiB, 16 * kMiB}};
  const Memory source = GuestMemory::Allocate(specs, {.backing = GetParam()}).value();
  const Memory target = TargetFor(source);
  MemoryCopy copy(target);
  std::mt19937_64 random(3);
  for (int round = 0; round < 12; ++round) {
    WritePages(source, random, 200);
    if (round % 2 == 1) ZeroPages(source, random, 12);
    ASSERT_TRUE(copy.Update(*source, 1 + round % 4, kNever).ok());
    ASSERT_EQ(DigestOf(target), DigestOf(source)) << round;
  }
}

INSTANTIATE_TEST_SUITE_P(Backings, MemoryCopyBackingTest,
                         testing::Values(Backing::kAnonymous, Backing::kMemfd));

TEST(MemoryCopyTest, IsPutRightByTheUpdateBehindOneThatWasCancelled) {
  const RegionSpec specs[] = {{0, 64 * kMiB}};
  const Memory source = GuestMemory::Allocate(specs, {}).value();
  const Memory target = TargetFor(source);
  MemoryCopy copy(target);
  std::mt19937_64 random(4);
  WritePages(source, random, 8000);
  std::atomic<int> left{20};
  const Status cancelled = copy.Update(*source, 2, [&] { return --left < 0; });
  ASSERT_FALSE(cancelled.ok());
  ZeroPages(source, random, 30);
  ASSERT_TRUE(copy.Update(*source, 2, kNever).ok());
  EXPECT_EQ(DigestOf(target), DigestOf(source));
}

TEST(MemoryCopyTest, OfAGuestThatWritesIsRightOnceItStandsStill) {
  const RegionSpec specs[] = {{0, 32 * kMiB}};
  const Memory source = GuestMemory::Allocate(specs, {}).value();
  const Memory target = TargetFor(source);
  MemoryCopy copy(target);
  std::atomic<bool> stop{false};
  std::thread guest([&] {
    std::mt19937_64 random(5);
    while (!stop) WritePages(source, random, 50);
  });
  for (int i = 0; i < 5; ++i) EXPECT_TRUE(copy.Update(*source, 2, kNever).ok());
  stop = true;
  guest.join();
  ASSERT_TRUE(copy.Update(*source, 2, kNever).ok());
  EXPECT_EQ(DigestOf(target), DigestOf(source));
}

TEST(MemoryCopyTest, TouchesNothingForUntouchedMemory) {
  const RegionSpec specs[] = {{0, 8 * kGiB}};
  const Memory source = GuestMemory::Allocate(specs, {}).value();
  ASSERT_TRUE(source->Write(6 * kGiB, RandomBytes(kPageBytes, 1)).ok());
  const Memory target = TargetFor(source);
  MemoryCopy copy(target);
  ASSERT_TRUE(copy.Update(*source, 2, kNever).ok());
  EXPECT_LE(CountPresent(*target, kNotCancelled).value(), kChunkPages);
  EXPECT_EQ(DigestOf(target), DigestOf(source));
}

TEST(MemoryCopyTest, RefusesASourceWithOtherRegions) {
  const RegionSpec own[] = {{0, 4 * kMiB}};
  const RegionSpec other[] = {{0, 8 * kMiB}};
  MemoryCopy copy(GuestMemory::Allocate(own, {}).value());
  const Memory source = GuestMemory::Allocate(other, {}).value();
  EXPECT_EQ(copy.Update(*source, 1, kNever).error().code, ErrorCode::kFormat);
}

}  // namespace
}  // namespace chkpt

// Stamps must make every damage visible and nothing else: a checkpoint of a synthetic guest is
// proven by them.
#include "core/synthetic/stamp_writer.h"

#include <gtest/gtest.h>
#include <lz4.h>

#include <chrono>
#include <cstring>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "test/memory_fixtures.h"

namespace chkpt {
namespace {

using Clock = std::chrono::steady_clock;
using PageArray = std::vector<std::uint64_t>;

void WaitForPages(const StampWriter& writer, std::uint64_t page_count) {
  while (writer.pages_written() < page_count) std::this_thread::yield();
}

Bytes ContentOf(const GuestMemory& memory) {
  Bytes bytes(memory.byte_count());
  std::uint8_t* target = bytes.data();
  for (const Region& region : memory.regions()) {
    EXPECT_TRUE(memory.CopyOut(region.pages(), target).ok());
    target += region.bytes;
  }
  return bytes;
}

PageArray Stamped(const StampPages& stamps, std::uint64_t page, std::uint64_t counter) {
  PageArray words(kPageWords);
  stamps.Write(page, counter, words.data());
  return words;
}

TEST(StampPageTest, AnyChangedByteIsSeen) {
  const StampPages& stamps = StampPages::Get();
  const PageArray words = Stamped(stamps, 77, 1234);
  std::uint64_t counter = 0;
  EXPECT_EQ(stamps.Check(77, words.data(), &counter), StampState::kValid);
  EXPECT_EQ(counter, 1234u);
  for (std::size_t offset = 0; offset < kPageBytes; ++offset) {
    PageArray damaged = words;
    reinterpret_cast<std::uint8_t*>(damaged.data())[offset] ^= 0x10;
    const StampState expected = offset < 8 ? StampState::kNone : StampState::kDamaged;
    ASSERT_EQ(stamps.Check(77, damaged.data(), &counter), expected) << "offset " << offset;
  }
}

TEST(StampPageTest, AStampOfAnotherPageOrAMixtureOfTwoStampsIsDamaged) {
  const StampPages& stamps = StampPages::Get();
  std::uint64_t counter = 0;
  const PageArray words = Stamped(stamps, 77, 1);
  // 77 + 256 has the same body.
  EXPECT_EQ(stamps.Check(77 + 256, words.data(), &counter), StampState::kDamaged);
  const PageArray later = Stamped(stamps, 77, 2);
  for (std::size_t cut = 3; cut < kPageWords; ++cut) {
    PageArray torn = later;
    std::copy(words.begin() + static_cast<std::ptrdiff_t>(cut), words.end(),
              torn.begin() + static_cast<std::ptrdiff_t>(cut));
    ASSERT_EQ(stamps.Check(77, torn.data(), &counter), StampState::kDamaged) << "cut at " << cut;
  }
}

TEST(StampPageTest, ASecondStampChangesAFewWordsAndABlockCompresses) {
  const StampPages& stamps = StampPages::Get();
  PageArray block;
  for (std::uint64_t page = 0; page < 3 * kBlockPages; ++page) {
    const PageArray first = Stamped(stamps, page, 5);
    PageArray second = first;
    stamps.Write(page, 6, second.data());
    std::size_t changed = 0;
    for (std::size_t i = 0; i < kPageWords; ++i) changed += first[i] != second[i] ? 1 : 0;
    EXPECT_LE(changed, 9u);
    EXPECT_EQ(second, Stamped(stamps, page, 6));
    block.insert(block.end(), second.begin(), second.end());
  }
  const int bytes = static_cast<int>(block.size() * sizeof(std::uint64_t));
  std::vector<char> target(static_cast<std::size_t>(LZ4_compressBound(bytes)));
  const int compressed =
      LZ4_compress_default(reinterpret_cast<const char*>(block.data()), target.data(), bytes,
                           static_cast<int>(target.size()));
  EXPECT_LT(compressed, bytes * 2 / 3);
  EXPECT_GT(compressed, bytes / 6);
}

TEST(StampWriterTest, APauseLeavesOnlyWholePagesAndTheExactCounter) {
  for (const WritePattern pattern :
       {WritePattern::kSequential, WritePattern::kRandom, WritePattern::kHotspot}) {
    const Memory memory =
        MustAllocate({{0, kMiB}, {16 * kMiB, 2 * kMiB + kPageBytes}}, Backing::kMemfd);
    StampWriter writer(memory, {.threads = 3, .pattern = pattern});
    writer.Start();
    for (std::uint64_t round = 1; round <= 20; ++round) {
      writer.Resume();
      WaitForPages(writer, round * 100);
      writer.Pause();
      const StampCheck check = CheckStamps(*memory, {});
      ASSERT_EQ(check.damaged, 0u) << "page " << check.first_damaged;
      ASSERT_GT(check.stamped, 0u);
      ASSERT_EQ(check.highest_counter, writer.counter());
      ASSERT_EQ(writer.pages_written(), writer.counter());
    }
  }
}

TEST(StampWriterTest, NothingIsWrittenBeforeResumeAndWhilePaused) {
  const Memory memory = MustAllocate({{0, kMiB}}, Backing::kAnonymous);
  StampWriter writer(memory, {.threads = 2});
  writer.Start();
  std::this_thread::sleep_for(std::chrono::milliseconds(5));
  EXPECT_EQ(CheckStamps(*memory, {}).stamped, 0u);
  writer.Resume();
  WaitForPages(writer, 100);
  writer.Pause();
  const Bytes before = ContentOf(*memory);
  std::this_thread::sleep_for(std::chrono::milliseconds(5));
  EXPECT_EQ(before, ContentOf(*memory));
}

TEST(StampWriterTest, OnlyTheGivenPagesAreWritten) {
  const Memory memory = MustAllocate({{0, kMiB}, {kGiB, kMiB}}, Backing::kAnonymous);
  const PageRun pages = {250, 13};  // across the regions
  StampWriter writer(memory, {.threads = 4, .pattern = WritePattern::kSequential, .pages = pages});
  writer.Start();
  writer.Resume();
  // A thread may be late with its share.
  for (std::uint64_t stamped = 0; stamped < pages.count;) {
    WaitForPages(writer, writer.pages_written() + 100);
    writer.Pause();
    stamped = CheckStamps(*memory, pages).stamped;
    writer.Resume();
  }
  writer.Stop();
  EXPECT_EQ(CheckStamps(*memory, {}).stamped, pages.count);
  EXPECT_EQ(CheckStamps(*memory, {0, 250}).stamped, 0u);
  const Bytes content = ContentOf(*memory);
  for (std::uint64_t page = 0; page < memory->page_count(); ++page) {
    const std::uint8_t* begin = content.data() + page * kPageBytes;
    const bool zero = std::all_of(begin, begin + kPageBytes, [](std::uint8_t b) { return b == 0; });
    EXPECT_EQ(zero, page < pages.first || page >= pages.end()) << page;
  }
}

TEST(StampWriterTest, DamageIsFoundWhereItIs) {
  const Memory memory = MustAllocate({{0, kMiB}}, Backing::kAnonymous);
  StampWriter writer(memory, {.pattern = WritePattern::kSequential});
  writer.Start();
  writer.Resume();
  WaitForPages(writer, 256);
  writer.Stop();
  ASSERT_EQ(CheckStamps(*memory, {}).stamped, 256u);
  memory->regions()[0].host[100 * kPageBytes + 2000] ^= 1;
  memory->regions()[0].host[200 * kPageBytes + 17] ^= 1;
  const StampCheck check = CheckStamps(*memory, {});
  EXPECT_EQ(check.stamped, 254u);
  EXPECT_EQ(check.damaged, 2u);
  EXPECT_EQ(check.first_damaged, 100u);
  EXPECT_EQ(CheckStamps(*memory, {101, 50}).damaged, 0u);
}

TEST(StampWriterTest, TheRateIsNeverExceeded) {
  const Memory memory = MustAllocate({{0, kMiB}}, Backing::kAnonymous);
  constexpr std::uint64_t kRate = 2000;
  constexpr unsigned kThreads = 2;
  StampWriter writer(memory, {.threads = kThreads, .pages_per_second = kRate});
  writer.Start();
  const Clock::time_point start = Clock::now();
  writer.Resume();
  WaitForPages(writer, kRate / 20);
  writer.Pause();
  const std::chrono::duration<double> elapsed = Clock::now() - start;
  // One batch of two pages per thread goes out at once.
  const double most = elapsed.count() * kRate + kThreads * 2;
  EXPECT_LE(static_cast<double>(writer.pages_written()), most);
}

TEST(StampWriterTest, AHotspotTakesMostWrites) {
  const Memory memory = MustAllocate({{0, 1000 * kPageBytes}}, Backing::kAnonymous);
  const StampPages& stamps = StampPages::Get();
  StampWriter writer(memory, {.pattern = WritePattern::kHotspot});
  writer.Start();
  writer.Resume();
  WaitForPages(writer, 1000);
  writer.Pause();
  // Of the pages of the last 100 writes, most are in the first tenth.
  std::uint64_t hot = 0;
  std::uint64_t cold = 0;
  for (std::uint64_t page = 0; page < memory->page_count(); ++page) {
    std::uint64_t counter = 0;
    PageArray words(kPageWords);
    std::memcpy(words.data(), memory->regions()[0].host + page * kPageBytes, kPageBytes);
    if (stamps.Check(page, words.data(), &counter) != StampState::kValid) continue;
    if (counter + 100 > writer.counter()) ++(page < 100 ? hot : cold);
  }
  EXPECT_GT(hot, 2 * cold);
  EXPECT_GT(cold, 0u);
}

TEST(StampWriterTest, AResumedMachineGoesOnFromItsCounter) {
  const Memory memory = MustAllocate({{0, kMiB}}, Backing::kAnonymous);
  StampWriter writer(memory, {});
  writer.set_counter(5000000);
  writer.Start();
  writer.Resume();
  WaitForPages(writer, 10);
  writer.Stop();
  EXPECT_EQ(writer.counter(), 5000000 + writer.pages_written());
  EXPECT_EQ(CheckStamps(*memory, {}).highest_counter, writer.counter());
}

TEST(StampWriterTest, EveryOrderOfCallsEnds) {
  const Memory memory = MustAllocate({{0, 2 * kPageBytes}}, Backing::kAnonymous);
  {
    const StampWriter never_started(memory, {});
  }
  StampWriter writer(memory, {.threads = 4, .pages_per_second = 1});  // more threads than pages
  writer.Pause();
  writer.Start();
  writer.Pause();
  for (int i = 0; i < 200; ++i) {
    writer.Resume();
    if (i % 3 == 0) writer.Resume();
    writer.Pause();
  }
  writer.Resume();
  std::thread other([&writer] { writer.Stop(); });
  writer.Stop();
  other.join();
  writer.Stop();
  writer.Pause();
  EXPECT_EQ(CheckStamps(*memory, {}).damaged, 0u);
}

}  // namespace
}  // namespace chkpt

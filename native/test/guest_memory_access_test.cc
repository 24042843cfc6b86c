// Reading, writing and zeroing: one suite for every kind of memory, against plain arrays.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "core/memory/guest_memory.h"
#include "test/memory_fixtures.h"

namespace chkpt {
namespace {

enum class Kind {
  kAnonymous,
  kAnonymousSmallPages,
  kMemfd,
  kHugetlb,
  kMapped,
  kFileOnTmpfs,
  kFileOnDisk,
  kAttached
};

// Memory of one kind with regions [0, 6 MiB), [6 MiB, 8 MiB) touching it, and [8 GiB, 8 GiB + 4
// MiB).
class GuestMemoryAccessTest : public testing::TestWithParam<Kind> {
 protected:
  static constexpr std::uint64_t kHigh = 8 * kGiB;
  const std::vector<RegionSpec> specs_ = {{0, 6 * kMiB}, {6 * kMiB, 2 * kMiB}, {kHigh, 4 * kMiB}};
  static constexpr std::uint64_t kFileOffset = 3 * 4096;  // not a multiple of a huge page

  void SetUp() override {
    switch (GetParam()) {
      case Kind::kAnonymous: memory_ = MustAllocate(specs_, Backing::kAnonymous); break;
      case Kind::kAnonymousSmallPages:
        memory_ = MustAllocate(specs_, Backing::kAnonymous, false);
        break;
      case Kind::kMemfd: memory_ = MustAllocate(specs_, Backing::kMemfd); break;
      case Kind::kHugetlb: SetUpHugetlb(); break;
      case Kind::kMapped: SetUpFiles(false, true); break;
      case Kind::kFileOnTmpfs: SetUpFiles(false, false); break;
      case Kind::kFileOnDisk: SetUpFiles(true, false); break;
      case Kind::kAttached: SetUpAttached(); break;
    }
  }

  void SetUpHugetlb() {
    pool_ = std::make_unique<HugePagePool>(6);
    if (HugePagePool::FreeCount() < 6) {
      GTEST_SKIP() << "hugetlb: cannot raise nr_hugepages by 6 (not root, or no memory in one "
                      "piece); free are "
                   << HugePagePool::FreeCount();
    }
    memory_ = MustAllocate(specs_, Backing::kHugetlb);
  }

  void SetUpFiles(bool on_disk, bool map) {
    std::vector<GuestMemory::FileSpec> files;
    file_ = std::make_unique<TestFile>(kFileOffset + 12 * kMiB, on_disk);
    std::uint64_t offset = kFileOffset;
    for (const RegionSpec& spec : specs_) {
      files.push_back({.region = spec, .fd = file_->fd(), .fd_offset = offset, .writable = true});
      offset += spec.bytes;
    }
    memory_ = (map ? GuestMemory::Map(files) : GuestMemory::OpenFiles(files, false)).value();
  }

  void SetUpAttached() {
    std::vector<GuestMemory::AttachSpec> attached;
    for (const RegionSpec& spec : specs_) {
      // 16 bytes behind a page: what malloc gives for large sizes.
      attached_.emplace_back(spec.bytes + 16);
      attached.push_back(
          {.region = spec, .host = attached_.back().data() + 16, .host_bytes = spec.bytes});
    }
    memory_ = GuestMemory::Attach(attached).value();
  }

  std::unique_ptr<HugePagePool> pool_;  // before memory_: gives the pages back after it
  std::unique_ptr<TestFile> file_;
  std::vector<Bytes> attached_;
  Memory memory_;
};

std::string KindName(const testing::TestParamInfo<Kind>& info) {
  static constexpr const char* kNames[] = {
      "Anonymous", "AnonymousSmallPages", "Memfd",      "Hugetlb",
      "Mapped",    "FileOnTmpfs",         "FileOnDisk", "Attached"};
  return kNames[static_cast<int>(info.param)];
}

INSTANTIATE_TEST_SUITE_P(All, GuestMemoryAccessTest,
                         testing::Values(Kind::kAnonymous, Kind::kAnonymousSmallPages, Kind::kMemfd,
                                         Kind::kHugetlb, Kind::kMapped, Kind::kFileOnTmpfs,
                                         Kind::kFileOnDisk, Kind::kAttached),
                         KindName);

// The oracle: plain arrays, one per run of touching regions, driven by the same random operations.
TEST_P(GuestMemoryAccessTest, AnySequenceOfWritesCopiesAndZerosReadsBackAsFromAPlainArray) {
  Bytes low(8 * kMiB);
  Bytes high(4 * kMiB);
  std::mt19937_64 random(7);
  const Bytes data = RandomBytes(3 * kMiB, 8);
  Bytes read(3 * kMiB);
  for (int step = 0; step < 120; ++step) {
    const bool is_low = random() % 3 != 0;
    Bytes& model = is_low ? low : high;
    const std::uint64_t base = is_low ? 0 : kHigh;
    const std::size_t bytes =
        static_cast<std::size_t>(1 + random() % (random() % 4 == 0 ? data.size() : 9000));
    const std::size_t at = random() % (model.size() - bytes + 1);
    const std::size_t from = random() % (data.size() - bytes + 1);
    // The same place as a run of pages of one region.
    const std::uint64_t first_page = (is_low ? 0 : 2048) + at / kPageBytes;
    const Region& region = memory_->regions()[memory_->RegionOfPage(first_page)];
    const PageRun run = {first_page,
                         std::min(bytes / kPageBytes, region.pages().end() - first_page)};
    std::uint8_t* const run_model = model.data() + at / kPageBytes * kPageBytes;
    const std::size_t run_bytes = run.count * kPageBytes;

    switch (random() % 5) {
      case 0:
        ASSERT_TRUE(memory_->Write(base + at, std::span(data).subspan(from, bytes)).ok());
        std::copy_n(data.data() + from, bytes, model.data() + at);
        break;
      case 1:
        ASSERT_TRUE(memory_->CopyIn(run, data.data()).ok());
        std::copy_n(data.data(), run_bytes, run_model);
        break;
      case 2:
        ASSERT_TRUE(memory_->Zero(run).ok());
        std::fill_n(run_model, run_bytes, std::uint8_t{0});
        break;
      case 3:
        ASSERT_TRUE(memory_->Read(base + at, std::span(read).first(bytes)).ok());
        ASSERT_TRUE(std::equal(read.begin(), read.begin() + static_cast<std::ptrdiff_t>(bytes),
                               model.begin() + static_cast<std::ptrdiff_t>(at)))
            << "step " << step;
        break;
      case 4:
        ASSERT_TRUE(memory_->CopyOut(run, read.data()).ok());
        ASSERT_TRUE(std::equal(read.begin(), read.begin() + static_cast<std::ptrdiff_t>(run_bytes),
                               run_model))
            << "step " << step;
        break;
    }
  }
  Bytes all(8 * kMiB);
  ASSERT_TRUE(memory_->Read(0, all).ok());
  EXPECT_TRUE(all == low);
  all.resize(4 * kMiB);
  ASSERT_TRUE(memory_->Read(kHigh, all).ok());
  EXPECT_TRUE(all == high);
}

TEST_P(GuestMemoryAccessTest, ARangeThatIsNotAllInMemoryIsRefusedAndNothingIsWritten) {
  Bytes bytes(8192, 0xFF);
  constexpr std::uint64_t kEnd = 8 * kMiB;
  for (const std::uint64_t address :
       {kEnd - 4096, kEnd - 1, kEnd, kHigh - 1, kHigh + 4 * kMiB - 8191, ~std::uint64_t{0} - 4096,
        ~std::uint64_t{0}, kAddressMax}) {
    EXPECT_EQ(CodeOf(memory_->Write(address, bytes)), ErrorCode::kFormat) << address;
    EXPECT_EQ(CodeOf(memory_->Read(address, bytes)), ErrorCode::kFormat) << address;
  }
  EXPECT_TRUE(memory_->Read(kEnd, {}).ok()) << "no bytes are always in memory";
  Bytes tail(4096, 1);
  ASSERT_TRUE(memory_->Read(kEnd - 4096, tail).ok());
  EXPECT_EQ(tail, Bytes(4096)) << "the legal part of a refused range was written";
}

TEST_P(GuestMemoryAccessTest, ManyThreadsCopyWhileTheGuestWrites) {
  // No promise about content; under ThreadSanitizer: access to live memory is not reported as a
  // race of ours.
  std::vector<std::thread> threads;
  for (int thread = 0; thread < 3; ++thread) {
    threads.emplace_back([&, thread] {
      Bytes page(4 * kPageBytes, static_cast<std::uint8_t>(thread));
      for (int i = 0; i < 100; ++i) {
        EXPECT_TRUE(memory_->CopyIn({10, 4}, page.data()).ok());
        EXPECT_TRUE(memory_->Write(10 * kPageBytes + 3, page).ok());
        EXPECT_TRUE(memory_->CopyOut({10, 4}, page.data()).ok());
        if (i % 10 == 0) {
          EXPECT_TRUE(memory_->Zero({11, 2}).ok());
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST(GuestMemoryDeathTest, ARunAcrossTwoRegionsIsABugOfOurs) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const Memory memory = MustAllocate({{0, kMiB}, {kMiB, kMiB}}, Backing::kAnonymous);
  Bytes bytes(3 * kPageBytes);
  const std::uint64_t last = memory->regions()[0].pages().end() - 1;
  EXPECT_DEATH(static_cast<void>(memory->CopyOut({last, 2}, bytes.data())), "internal error");
  EXPECT_DEATH(static_cast<void>(memory->Zero({last, ~std::uint64_t{0}})), "internal error");
}

}  // namespace
}  // namespace chkpt

// The region table and the memory that is allocated here.
#include "core/memory/guest_memory.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include "test/memory_fixtures.h"

namespace chkpt {
namespace {

ErrorCode CheckCode(std::vector<RegionSpec> specs) {
  return CodeOf(GuestMemory::CheckRegions(specs));
}

// --- the table ----------------------------------------------------------------------------------

TEST(CheckRegionsTest, LegalTablesPassUpToTheLimits) {
  const std::vector<std::vector<RegionSpec>> legal = {
      {{0, 4096}},
      {{0, 4096}, {4096, 4096}},          // touching
      {{0, 3 * kGiB}, {4 * kGiB, kGiB}},  // a hole below 4 GiB
      {{kAddressMax - 4096, 4096}},       // the last page there is
      {{0, kMemoryBytesMax}},             // all memory in one region
      {{0, 8 * kTiB}, {kAddressMax - 8 * kTiB, 8 * kTiB}},
  };
  for (const std::vector<RegionSpec>& specs : legal)
    EXPECT_TRUE(GuestMemory::CheckRegions(specs).ok());
  std::vector<RegionSpec> most;
  for (std::uint64_t i = 0; i < kRegionCountMax; ++i) most.push_back({i * 8192, 4096});
  EXPECT_TRUE(GuestMemory::CheckRegions(most).ok());
  most.push_back({kTiB, 4096});
  EXPECT_EQ(CheckCode(most), ErrorCode::kFormat);
}

TEST(CheckRegionsTest, IllegalTablesAreRefusedAndNothingOverflows) {
  constexpr std::uint64_t kLast = ~std::uint64_t{0} - 4095;  // largest multiple of 4096
  const std::vector<std::vector<RegionSpec>> illegal = {
      {},
      {{0, 0}},
      {{1, 4096}},
      {{0, 4095}},
      {{0, 8192}, {4096, 4096}},  // overlap
      {{8192, 4096}, {0, 4096}},  // descending
      {{0, 4096}, {0, 4096}},     // twice
      {{kAddressMax, 4096}},
      {{kAddressMax - 4096, 8192}},
      {{4096, kLast}},  // base + bytes is 0
      {{kLast, 4096}},
      {{0, kMemoryBytesMax + 4096}},
      {{0, 8 * kTiB}, {16 * kTiB, 8 * kTiB}, {32 * kTiB, 4096}},
  };
  for (std::size_t i = 0; i < illegal.size(); ++i)
    EXPECT_EQ(CheckCode(illegal[i]), ErrorCode::kFormat) << i;
}

TEST(GuestMemoryTest, PageNumbersCountThroughAllRegions) {
  const std::vector<RegionSpec> specs = {{0, 3 * 4096}, {kGiB, 4096}, {5 * kGiB, 2 * 4096}};
  const Memory memory = GuestMemory::Describe(specs).value();
  EXPECT_EQ(memory->page_count(), 6U);
  EXPECT_EQ(memory->byte_count(), 6U * 4096);
  const std::size_t expected[] = {0, 0, 0, 1, 2, 2};
  for (std::uint64_t page = 0; page < 6; ++page)
    EXPECT_EQ(memory->RegionOfPage(page), expected[page]);
  EXPECT_EQ(memory->regions()[2].pages(), (PageRun{4, 2}));
}

TEST(GuestMemoryDeathTest, APageOutsideMemoryIsABugOfOurs) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const std::vector<RegionSpec> specs = {{0, 3 * 4096}};
  const Memory memory = GuestMemory::Describe(specs).value();
  EXPECT_DEATH(static_cast<void>(memory->RegionOfPage(3)), "internal error");
}

TEST(GuestMemoryTest, DescribedMemoryHasNothingBehindIt) {
  const std::vector<RegionSpec> specs = {{0, kMemoryBytesMax}};
  const Memory memory = GuestMemory::Describe(specs).value();
  EXPECT_EQ(memory->page_count(), kMemoryBytesMax / kPageBytes);
  const Region& region = memory->regions()[0];
  EXPECT_EQ(region.host, nullptr);
  EXPECT_EQ(region.fd, -1);
  EXPECT_EQ(region.presence, Presence::kAll);
  Bytes page(kPageBytes);
  EXPECT_EQ(CodeOf(memory->Read(0, page)), ErrorCode::kUnsupported);
  EXPECT_EQ(CodeOf(memory->CopyOut({0, 1}, page.data())), ErrorCode::kUnsupported);
  EXPECT_EQ(CodeOf(memory->Write(0, page)), ErrorCode::kPermission);
  EXPECT_EQ(CodeOf(memory->CopyIn({0, 1}, page.data())), ErrorCode::kPermission);
  EXPECT_EQ(CodeOf(memory->Zero({0, 1})), ErrorCode::kPermission);
}

// --- allocated memory ---------------------------------------------------------------------------

TEST(GuestMemoryTest, AllocatedMemoryIsFreshUntilWrite) {
  for (const Backing backing : {Backing::kAnonymous, Backing::kMemfd}) {
    const Memory memory = MustAllocate({{0, kMiB}, {kGiB, kMiB}}, backing);
    EXPECT_TRUE(memory->regions()[0].fresh);
    EXPECT_TRUE(memory->regions()[1].fresh);
    const Bytes byte(1);
    ASSERT_TRUE(memory->Write(kGiB, byte).ok());
    EXPECT_TRUE(memory->regions()[0].fresh);
    EXPECT_FALSE(memory->regions()[1].fresh);
    memory->MarkUsed();
    EXPECT_FALSE(memory->regions()[0].fresh);
  }
}

TEST(GuestMemoryTest, MappingsStartAtAHugePage) {
  for (const Backing backing : {Backing::kAnonymous, Backing::kMemfd}) {
    const Memory memory =
        MustAllocate({{0, 4096}, {kMiB, 5 * kMiB + 4096}, {kGiB, 2 * kMiB}}, backing);
    for (const Region& region : memory->regions()) {
      EXPECT_EQ(reinterpret_cast<std::uintptr_t>(region.host) % (2 * kMiB), 0U);
    }
  }
}

// Sum of the address space, in KiB, that /proc/self/smaps shows with `flag` among its VmFlags in
// [start, start + bytes).
std::uint64_t BytesWithVmFlag(const void* start, std::uint64_t bytes, const std::string& flag) {
  std::ifstream smaps("/proc/self/smaps");
  const std::uint64_t from = reinterpret_cast<std::uintptr_t>(start);
  std::uint64_t low = 0;
  std::uint64_t high = 0;
  std::uint64_t found = 0;
  for (std::string line; std::getline(smaps, line);) {
    unsigned long first = 0;
    unsigned long last = 0;
    if (std::sscanf(line.c_str(), "%lx-%lx ", &first, &last) == 2) {
      low = std::max<std::uint64_t>(first, from);
      high = std::min<std::uint64_t>(last, from + bytes);
    } else if (line.starts_with("VmFlags:") && low < high &&
               line.find(" " + flag + " ") != std::string::npos) {
      found += high - low;
    }
  }
  return found;
}

TEST(GuestMemoryTest, GuestMemoryStaysOutOfForksAndCoreDumps) {
  const TestFile file(4 * kMiB);
  const std::vector<GuestMemory::FileSpec> files = {
      {.region = {0, 4 * kMiB}, .fd = file.fd(), .fd_offset = 0, .writable = true}};
  const Memory memories[] = {MustAllocate({{0, 4 * kMiB}}, Backing::kAnonymous),
                             MustAllocate({{0, 4 * kMiB}}, Backing::kMemfd),
                             GuestMemory::Map(files).value()};
  for (const Memory& memory : memories) {
    const Region& region = memory->regions()[0];
    EXPECT_EQ(BytesWithVmFlag(region.host, region.bytes, "dc"), region.bytes) << "MADV_DONTFORK";
    EXPECT_EQ(BytesWithVmFlag(region.host, region.bytes, "dd"), region.bytes) << "MADV_DONTDUMP";
  }
  const Memory small_memory = MustAllocate({{0, 4 * kMiB}}, Backing::kAnonymous, false);
  const Region& small = small_memory->regions()[0];
  const Region& huge = memories[0]->regions()[0];
  EXPECT_EQ(BytesWithVmFlag(huge.host, huge.bytes, "hg"), huge.bytes) << "MADV_HUGEPAGE";
  EXPECT_EQ(BytesWithVmFlag(small.host, small.bytes, "hg"), 0U);
}

TEST(GuestMemoryTest, DestructionGivesAddressSpaceAndDescriptorsBack) {
  const TestFile file(2 * kMiB);
  const std::vector<GuestMemory::FileSpec> files = {
      {.region = {0, kMiB}, .fd = file.fd(), .fd_offset = kMiB, .writable = true}};
  const int before = CountDescriptors();
  std::vector<std::pair<std::uint8_t*, std::uint64_t>> ranges;
  {
    const Memory memories[] = {MustAllocate({{0, 5 * kMiB}}, Backing::kAnonymous),
                               MustAllocate({{0, 5 * kMiB}}, Backing::kMemfd),
                               GuestMemory::Map(files).value(),
                               GuestMemory::OpenFiles(files, false).value()};
    EXPECT_EQ(CountDescriptors(), before + 3);
    for (const Memory& memory : memories) {
      if (memory->regions()[0].host != nullptr) {
        ranges.emplace_back(memory->regions()[0].host, memory->regions()[0].bytes);
      }
    }
  }
  EXPECT_EQ(CountDescriptors(), before);
  for (const auto& [host, bytes] : ranges) {
    for (std::uint64_t offset = 0; offset < bytes; offset += kMiB) {
      unsigned char resident;
      EXPECT_EQ(::mincore(host + offset, kPageBytes, &resident), -1) << "still mapped";
    }
  }
}

TEST(GuestMemoryTest, AFailedAllocationLeavesNoDescriptorBehind) {
  std::uint64_t pages = 0;
  std::ifstream("/proc/self/statm") >> pages;
  rlimit before = {};
  ASSERT_EQ(::getrlimit(RLIMIT_AS, &before), 0);
  rlimit limit = before;
  limit.rlim_cur = pages * static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE)) + 64 * kMiB;
  const int descriptors = CountDescriptors();
  ASSERT_EQ(::setrlimit(RLIMIT_AS, &limit), 0);
  const std::vector<RegionSpec> specs = {{0, 4 * kMiB}, {kGiB, kGiB}};
  Result<Memory> memory = GuestMemory::Allocate(specs, {.backing = Backing::kMemfd});
  ASSERT_EQ(::setrlimit(RLIMIT_AS, &before), 0);
  EXPECT_EQ(CodeOf(std::move(memory)), ErrorCode::kNoMemory);
  EXPECT_EQ(CountDescriptors(), descriptors);
}

TEST(GuestMemoryTest, SixteenGibibytesAreUsableAtTheFarEnd) {
  for (const Backing backing : {Backing::kAnonymous, Backing::kMemfd}) {
    // Small pages: a touched page costs 4 KiB here, not 2 MiB.
    const Memory memory = MustAllocate({{0, 3 * kGiB}, {4 * kGiB, 13 * kGiB}}, backing, false);
    ASSERT_NE(memory, nullptr);
    EXPECT_EQ(memory->page_count(), 16 * kGiB / kPageBytes);
    const Bytes data = RandomBytes(3 * kPageBytes, 5);
    const std::uint64_t far_address = 17 * kGiB - 3 * kPageBytes;
    ASSERT_TRUE(memory->Write(far_address, data).ok());
    Bytes read(data.size());
    ASSERT_TRUE(memory->Read(far_address, read).ok());
    EXPECT_EQ(read, data);
    ASSERT_TRUE(memory->CopyOut({memory->page_count() - 3, 3}, read.data()).ok());
    EXPECT_EQ(read, data) << "pages and addresses disagree above 4 GiB";
    // Where an address or a page number cut to 32 bits would have gone.
    ASSERT_TRUE(memory->Read(far_address - 16 * kGiB, read).ok());
    EXPECT_EQ(read, Bytes(data.size()));
    ASSERT_TRUE(memory->Zero({memory->page_count() - 2, 1}).ok());
    ASSERT_TRUE(memory->Read(far_address, read).ok());
    EXPECT_TRUE(std::equal(read.begin() + kPageBytes, read.begin() + 2 * kPageBytes,
                           Bytes(kPageBytes).begin()));
    EXPECT_TRUE(
        std::equal(read.begin() + 2 * kPageBytes, read.end(), data.begin() + 2 * kPageBytes));
  }
}

// --- what Zero gives back
// -------------------------------------------------------------------------

TEST(GuestMemoryTest, ZeroGivesTheMemoryOfWholePagesBack) {
  // Blocks that the kernel holds for [1, 3) MiB of 4 MiB, by the resident map or by the file's
  // block count.
  const Bytes data = RandomBytes(4 * kMiB, 3);
  {
    const Memory memory = MustAllocate({{0, 4 * kMiB}}, Backing::kAnonymous, false);
    ASSERT_TRUE(memory->Write(0, data).ok());
    ASSERT_TRUE(memory->Zero({256, 512}).ok());
    unsigned char resident[1024];
    ASSERT_EQ(::mincore(memory->regions()[0].host, 4 * kMiB, resident), 0);
    for (int page = 0; page < 1024; ++page) {
      ASSERT_EQ(resident[page] & 1, page < 256 || page >= 768) << "page " << page;
    }
  }
  const TestFile tmpfs(4 * kMiB);
  const std::vector<GuestMemory::FileSpec> files = {
      {.region = {0, 4 * kMiB}, .fd = tmpfs.fd(), .fd_offset = 0, .writable = true}};
  for (const Memory& memory :
       {MustAllocate({{0, 4 * kMiB}}, Backing::kMemfd, false), GuestMemory::Map(files).value(),
        GuestMemory::OpenFiles(files, false).value()}) {
    ASSERT_TRUE(memory->Write(0, data).ok());
    ASSERT_TRUE(memory->Zero({256, 512}).ok());
    struct stat status = {};
    ASSERT_EQ(::fstat(memory->regions()[0].fd, &status), 0);
    EXPECT_EQ(static_cast<std::uint64_t>(status.st_blocks) * 512, 2 * kMiB);
    EXPECT_EQ(static_cast<std::uint64_t>(status.st_size), 4 * kMiB);
  }
}

// --- hugetlb
// ---------------------------------------------------------------------------------------

TEST(GuestMemoryHugetlbTest, BytesThatAreNoMultipleOfAHugePageAreRefused) {
  const std::vector<RegionSpec> specs = {{0, 3 * kMiB}};
  EXPECT_EQ(CodeOf(GuestMemory::Allocate(specs, {.backing = Backing::kHugetlb})),
            ErrorCode::kFormat);
}

TEST(GuestMemoryHugetlbTest, APoolThatIsTooSmallIsAnErrorAtAllocationNotASignalLater) {
  const std::vector<RegionSpec> specs = {{0, kTiB}};
  Result<Memory> memory = GuestMemory::Allocate(specs, {.backing = Backing::kHugetlb});
  ASSERT_EQ(CodeOf(memory), ErrorCode::kNoMemory);
  EXPECT_NE(memory.error().message.find("nr_hugepages"), std::string::npos)
      << memory.error().message;
}

}  // namespace
}  // namespace chkpt

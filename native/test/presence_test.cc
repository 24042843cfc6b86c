// Presence must never lose a page with content, and must see untouched memory as such. The oracle
// is the list of pages that the test wrote.
#include "core/memory/presence.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "core/memory/mapping.h"
#include "test/memory_fixtures.h"

namespace chkpt {
namespace {

using Runs = std::vector<PageRun>;

std::pair<int, int> KernelVersion() {
  utsname kernel = {};
  std::pair<int, int> version = {0, 0};
  EXPECT_EQ(::uname(&kernel), 0);
  EXPECT_EQ(std::sscanf(kernel.release, "%d.%d", &version.first, &version.second), 2);
  return version;
}

// Whether reads of untouched memory share one page of zeros: some kernels give each a page of its
// own. Seen by the frame numbers that root may read, so not by what the finder looks at.
bool ReadsShareOnePage(bool huge_pages) {
  const std::size_t bytes = huge_pages ? 4 * kMiB : 2 * kPageBytes;
  auto mapped = MapAnonymous(bytes, huge_pages);
  EXPECT_TRUE(mapped.ok());
  const std::uint8_t* pages = mapped.value();
  const int pagemap = ::open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
  std::uint64_t entries[2] = {1, 2};
  for (std::size_t i = 0; i < 2; ++i) {
    const std::uint8_t* page = pages + i * bytes / 2;
    EXPECT_EQ(*static_cast<const volatile std::uint8_t*>(page), 0);
    const auto place = reinterpret_cast<std::uintptr_t>(page) / kPageBytes * sizeof entries[0];
    EXPECT_EQ(::pread(pagemap, &entries[i], sizeof entries[0], static_cast<off_t>(place)),
              static_cast<ssize_t>(sizeof entries[0]));
  }
  ::close(pagemap);
  Unmap(mapped.value(), bytes);
  constexpr std::uint64_t kFrameMask = (std::uint64_t{1} << 55) - 1;  // bits 0 to 54
  return ((entries[0] ^ entries[1]) & kFrameMask) == 0;
}

Runs RunsOf(const std::vector<bool>& pages, std::uint64_t first_page) {
  Runs runs;
  for (std::uint64_t i = 0; i < pages.size(); ++i) {
    if (!pages[i]) continue;
    if (!runs.empty() && runs.back().end() == first_page + i) {
      ++runs.back().count;
    } else {
      runs.push_back({first_page + i, 1});
    }
  }
  return runs;
}

Runs Clip(const Runs& runs, PageRun range) {
  Runs clipped;
  for (const PageRun& run : runs) {
    const std::uint64_t first = std::max(run.first, range.first);
    const std::uint64_t end = std::min(run.end(), range.end());
    if (first < end) clipped.push_back({first, end - first});
  }
  return clipped;
}

std::uint64_t NextOf(const Runs& runs, std::uint64_t page, std::uint64_t limit) {
  for (const PageRun& run : runs) {
    if (run.end() > page) return std::min(std::max(run.first, page), limit);
  }
  return limit;
}

Runs PresentRuns(const PresenceFinder& finder, const Region& region, PageRun range) {
  Runs runs = {{12345, 1}};  // to be replaced
  finder.PresentRuns(region, range, &runs);
  return runs;
}

Runs PresentRuns(const PresenceFinder& finder, const Region& region) {
  return PresentRuns(finder, region, region.pages());
}

// Checks both functions against `expected` over the whole region, over random parts, and from every
// page near an edge.
void CheckExact(const PresenceFinder& finder, const Region& region, const Runs& expected) {
  ASSERT_EQ(PresentRuns(finder, region), expected);
  std::mt19937_64 random(11);
  const PageRun all = region.pages();
  for (int i = 0; i < 200; ++i) {
    const std::uint64_t first = all.first + random() % (all.count + 1);
    const std::uint64_t limit = first + random() % (all.end() - first + 1);
    ASSERT_EQ(PresentRuns(finder, region, {first, limit - first}),
              Clip(expected, {first, limit - first}));
    ASSERT_EQ(finder.NextPresent(region, first, limit), NextOf(expected, first, limit))
        << first << " " << limit;
  }
  for (std::size_t i = 0; i < expected.size(); i += 1 + expected.size() / 100) {
    const std::uint64_t edges[] = {expected[i].first, expected[i].end()};
    for (const std::uint64_t edge : edges) {
      for (std::uint64_t page = std::max(edge, all.first + 1) - 1;
           page <= edge && page <= all.end(); ++page) {
        ASSERT_EQ(finder.NextPresent(region, page, all.end()), NextOf(expected, page, all.end()))
            << page;
        ASSERT_EQ(finder.NextPresent(region, page, page), page);
      }
    }
  }
}

void Touch(const Memory& memory, std::uint64_t page) {
  // The last byte, so that a region which starts inside a host page is told apart from its
  // neighbour.
  const Bytes byte(1, 1);
  const Region& region = memory->regions()[memory->RegionOfPage(page)];
  ASSERT_TRUE(
      memory->Write(region.base + (page - region.first_page + 1) * kPageBytes - 1, byte).ok());
}

// Touches about one page in `one_in` of a region, in runs of up to 20 pages, and gives the runs.
Runs TouchSome(const Memory& memory, const Region& region, std::uint64_t one_in,
               std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<bool> touched(region.page_count());
  for (std::uint64_t page = 0; page < touched.size();) {
    page += random() % (2 * one_in);
    for (std::uint64_t left = 1 + random() % 20; left > 0 && page < touched.size(); --left) {
      Touch(memory, region.first_page + page);
      touched[page++] = true;
    }
  }
  return RunsOf(touched, region.first_page);
}

// --- page tables ---------------------------------------------------------------------------------

class PagemapPresenceTest : public testing::TestWithParam<PagemapMethod> {
 protected:
  // A method that this kernel has must be taken: a skip would hide that it broke.
  void SetUp() override {
    if (::access("/proc/self/pagemap", R_OK) != 0) GTEST_SKIP() << "no /proc/self/pagemap";
    if (GetParam() == PagemapMethod::kScan && KernelVersion() < std::pair(6, 7)) {
      GTEST_SKIP() << "PAGEMAP_SCAN needs Linux 6.7";
    }
    ASSERT_EQ(finder_.method(), GetParam());
  }
  const PresenceFinder finder_{GetParam()};
};

std::string MethodName(const testing::TestParamInfo<PagemapMethod>& info) {
  return info.param == PagemapMethod::kScan ? "Scan" : "Entries";
}

INSTANTIATE_TEST_SUITE_P(All, PagemapPresenceTest,
                         testing::Values(PagemapMethod::kScan, PagemapMethod::kEntries),
                         MethodName);

TEST_P(PagemapPresenceTest, ExactlyTheTouchedPagesOfAnonymousMemoryArePresent) {
  const Memory memory = MustAllocate({{0, 3 * kMiB}, {kGiB, 64 * kMiB}, {5 * kGiB, 4096}},
                                     Backing::kAnonymous, false);
  std::vector<Runs> expected;
  for (const Region& region : memory->regions())
    expected.push_back(TouchSome(memory, region, 50, region.base));
  for (std::size_t i = 0; i < expected.size(); ++i)
    CheckExact(finder_, memory->regions()[i], expected[i]);
}

TEST_P(PagemapPresenceTest, MoreRunsThanOneCallReturnsAreAllFound) {
  // Every other page of 40 MiB: 5,120 runs. With a piece untouched between two piece borders of
  // either method.
  const Memory memory = MustAllocate({{0, 40 * kMiB}}, Backing::kAnonymous, false);
  std::vector<bool> touched(memory->page_count());
  for (std::uint64_t page = 1; page < touched.size(); page += 2) {
    if (page > 3000 && page < 6000) continue;
    Touch(memory, page);
    touched[page] = true;
  }
  CheckExact(finder_, memory->regions()[0], RunsOf(touched, 0));
}

TEST_P(PagemapPresenceTest, ARunAcrossPiecesIsOneRun) {
  const Memory memory = MustAllocate({{0, 32 * kMiB}}, Backing::kAnonymous, false);
  for (std::uint64_t page = 100; page < 8000; ++page) Touch(memory, page);
  CheckExact(finder_, memory->regions()[0], {{100, 7900}});
}

TEST_P(PagemapPresenceTest, OnePageAtTheEndOfManyGibibytesIsFound) {
  const Memory memory =
      MustAllocate({{0, 3 * kGiB}, {4 * kGiB, 13 * kGiB}}, Backing::kAnonymous, false);
  const Region& high = memory->regions()[1];
  EXPECT_EQ(finder_.NextPresent(high, high.first_page, high.pages().end()), high.pages().end());
  const std::uint64_t last = memory->page_count() - 1;
  Touch(memory, last);
  EXPECT_EQ(finder_.NextPresent(high, high.first_page, high.pages().end()), last);
  EXPECT_EQ(finder_.NextPresent(high, high.first_page, last), last) << "a limit is exclusive";
  EXPECT_EQ(PresentRuns(finder_, high), (Runs{{last, 1}}));
  EXPECT_EQ(PresentRuns(finder_, memory->regions()[0]), Runs{});
}

TEST_P(PagemapPresenceTest, PagesGivenBackByZeroAreNotPresent) {
  const Memory memory = MustAllocate({{0, 4 * kMiB}}, Backing::kAnonymous, false);
  for (std::uint64_t page = 0; page < 1024; ++page) Touch(memory, page);
  ASSERT_TRUE(memory->Zero({100, 50}).ok());
  CheckExact(finder_, memory->regions()[0], {{0, 100}, {150, 874}});
}

TEST_P(PagemapPresenceTest, ATouchedHugePageIsPresentAsAWholeOrInPartsButTheTouchedPageAlways) {
  const Memory memory = MustAllocate({{0, 16 * kMiB}}, Backing::kAnonymous);
  const Region& region = memory->regions()[0];
  for (const std::uint64_t page : {5, 511, 2048, 4095}) Touch(memory, page);
  const Runs runs = PresentRuns(finder_, region);
  for (const std::uint64_t page : {5, 511, 2048, 4095}) {
    EXPECT_EQ(NextOf(runs, page, page + 1), page);
    EXPECT_EQ(finder_.NextPresent(region, page, page + 1), page);
  }
  // Extents without any write: 2 MiB to 8 MiB, 10 MiB to 14 MiB.
  EXPECT_EQ(finder_.NextPresent(region, 512, 2048), 2048U);
  EXPECT_EQ(finder_.NextPresent(region, 2560, 3584), 3584U);
  CheckExact(finder_, region, runs);
}

TEST_P(PagemapPresenceTest, AttachedMemoryThatStartsInsideAHostPageLosesNoPage) {
  constexpr std::size_t kPages = 600;
  for (const std::size_t shift : {0, 16, 2048, 4095}) {
    void* const space = ::mmap(nullptr, (kPages + 1) * kPageBytes, PROT_READ | PROT_WRITE,
                               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    ASSERT_NE(space, MAP_FAILED);
    ASSERT_EQ(::madvise(space, (kPages + 1) * kPageBytes, MADV_NOHUGEPAGE), 0);
    std::uint8_t* const host = static_cast<std::uint8_t*>(space) + shift;
    const GuestMemory::AttachSpec attach = {
        .region = {kGiB, kPages * kPageBytes}, .host = host, .host_bytes = kPages * kPageBytes};
    const Memory memory = GuestMemory::Attach({&attach, 1}).value();
    // A page of the guest is present when one of the host pages that it lies in was touched.
    std::mt19937_64 random(shift);
    std::vector<bool> host_touched(kPages + 1);
    for (int i = 0; i < 60; ++i) {
      const std::size_t byte = random() % (kPages * kPageBytes);
      host[byte] = 1;
      host_touched[(byte + shift) / kPageBytes] = true;
    }
    std::vector<bool> expected(kPages);
    for (std::size_t page = 0; page < kPages; ++page) {
      expected[page] = host_touched[page] || (shift > 0 && host_touched[page + 1]);
    }
    CheckExact(finder_, memory->regions()[0], RunsOf(expected, 0));
    ::munmap(space, (kPages + 1) * kPageBytes);
  }
}

TEST_P(PagemapPresenceTest, HugetlbPagesArePresentAsAWhole) {
  const HugePagePool pool(4);
  if (HugePagePool::FreeCount() < 4) {
    GTEST_SKIP() << "hugetlb: cannot raise nr_hugepages by 4 (not root, or no memory in one piece)";
  }
  const Memory memory = MustAllocate({{0, 8 * kMiB}}, Backing::kHugetlb);
  CheckExact(finder_, memory->regions()[0], {});
  Touch(memory, 700);
  Touch(memory, 2047);
  CheckExact(finder_, memory->regions()[0], {{512, 512}, {1536, 512}});
}

TEST_P(PagemapPresenceTest, ManyThreadsMayAskOneFinder) {
  const Memory memory = MustAllocate({{0, 16 * kMiB}}, Backing::kAnonymous, false);
  const Region& region = memory->regions()[0];
  const Runs expected = TouchSome(memory, region, 20, 3);
  std::vector<std::jthread> threads;
  for (int thread = 0; thread < 3; ++thread) {
    threads.emplace_back([&] { CheckExact(finder_, region, expected); });
  }
}

// --- the zero page -------------------------------------------------------------------------------

TEST(PresenceTest, PagesThatWereOnlyReadAreNotPresent) {
  const PresenceFinder finder;
  if (finder.method() != PagemapMethod::kScan)
    GTEST_SKIP() << "only PAGEMAP_SCAN names the zero page";
  if (!ReadsShareOnePage(false)) GTEST_SKIP() << "this kernel has no shared zero page";
  const Memory memory = MustAllocate({{0, 4 * kMiB}}, Backing::kAnonymous, false);
  Bytes bytes(4 * kMiB);
  ASSERT_TRUE(memory->Read(0, bytes).ok());
  Touch(memory, 77);
  CheckExact(finder, memory->regions()[0], {{77, 1}});
}

TEST(PresenceTest, PagesAmongOnlyReadOnesAreNeverLost) {
  const PresenceFinder finder;
  const Memory memory = MustAllocate({{0, 4 * kMiB}}, Backing::kAnonymous, false);
  Bytes bytes(4 * kMiB);
  ASSERT_TRUE(memory->Read(0, bytes).ok());
  Touch(memory, 77);
  const Runs runs = PresentRuns(finder, memory->regions()[0]);
  EXPECT_EQ(Clip(runs, {77, 1}), (Runs{{77, 1}}));
}

TEST(PresenceTest, HugePagesThatWereOnlyReadAreNotPresent) {
  const PresenceFinder finder;
  if (finder.method() != PagemapMethod::kScan)
    GTEST_SKIP() << "only PAGEMAP_SCAN names the zero page";
  if (KernelVersion() < std::pair(6, 18)) {
    GTEST_SKIP() << "older kernels may report the huge zero page as content";
  }
  if (!ReadsShareOnePage(true)) GTEST_SKIP() << "this kernel has no shared huge zero page";
  const Memory memory = MustAllocate({{0, 64 * kMiB}}, Backing::kAnonymous);
  Bytes bytes(64 * kMiB);
  ASSERT_TRUE(memory->Read(0, bytes).ok());
  CheckExact(finder, memory->regions()[0], {});
}

// --- files ---------------------------------------------------------------------------------------

TEST(FilePresenceTest, ExactlyTheWrittenPagesOfFilesArePresent) {
  const PresenceFinder finder;
  const TestFile mapped(70 * kMiB);
  const TestFile opened(5 * kGiB);
  const GuestMemory::FileSpec map = {.region = {kGiB, 32 * kMiB},
                                     .fd = mapped.fd(),
                                     .fd_offset = 3 * kPageBytes,
                                     .writable = true};
  const GuestMemory::FileSpec open = {.region = {kGiB, 32 * kMiB},
                                      .fd = opened.fd(),
                                      .fd_offset = 4 * kGiB + kPageBytes,
                                      .writable = true};
  const Memory memories[] = {
      MustAllocate({{0, kMiB}, {6 * kGiB, 64 * kMiB}}, Backing::kMemfd, false),
      GuestMemory::Map({&map, 1}).value(), GuestMemory::OpenFiles({&open, 1}, false).value()};
  // Data around the regions in the files is not theirs.
  const Bytes page(kPageBytes, 1);
  for (const std::uint64_t offset : {2 * kPageBytes, 32 * kMiB + 3 * kPageBytes}) {
    ASSERT_TRUE(WriteAll(mapped.fd(), offset, page).ok());
  }
  for (const std::uint64_t offset : {4 * kGiB, 4 * kGiB + 32 * kMiB + kPageBytes}) {
    ASSERT_TRUE(WriteAll(opened.fd(), offset, page).ok());
  }
  for (const Memory& memory : memories) {
    const Region& region = memory->regions().back();
    EXPECT_EQ(region.presence, Presence::kSeek);
    CheckExact(finder, region, {});
    const Runs expected = TouchSome(memory, region, 100, 5);
    CheckExact(finder, region, expected);
    ASSERT_TRUE(memory->Zero(region.pages()).ok());
    CheckExact(finder, region, {});
  }
}

TEST(FilePresenceTest, ARegionThatStartsInsideABlockOfItsFileLosesNoPage) {
  const PresenceFinder finder;
  const TestFile file(kMiB + 100);
  const GuestMemory::FileSpec spec = {
      .region = {0, 64 * kPageBytes}, .fd = file.fd(), .fd_offset = 100, .writable = true};
  const Memory memory = GuestMemory::OpenFiles({&spec, 1}, false).value();
  // Byte 0 of page 10 lies in block 10 of the file, which also holds the end of page 9.
  const Bytes byte(1, 1);
  ASSERT_TRUE(memory->Write(10 * kPageBytes, byte).ok());
  CheckExact(finder, memory->regions()[0], {{9, 2}});
}

TEST(FilePresenceTest, PagesBehindTheEndOfACutFileArePresentSoThatReadingThemFails) {
  const PresenceFinder finder;
  const TestFile file(64 * kPageBytes);
  const GuestMemory::FileSpec spec = {.region = {0, 60 * kPageBytes},
                                      .fd = file.fd(),
                                      .fd_offset = 4 * kPageBytes,
                                      .writable = true};
  const Memory memory = GuestMemory::OpenFiles({&spec, 1}, false).value();
  Touch(memory, 3);
  CheckExact(finder, memory->regions()[0], {{3, 1}});
  ASSERT_EQ(::ftruncate(file.fd(), 20 * kPageBytes), 0);
  CheckExact(finder, memory->regions()[0], {{3, 1}, {16, 44}});
  ASSERT_EQ(::ftruncate(file.fd(), 100), 0);
  CheckExact(finder, memory->regions()[0], {{0, 60}});
}

// --- what is not known
// ------------------------------------------------------------------------------

TEST(PresenceTest, EverythingIsPresentWhereNothingIsKnown) {
  const Memory anonymous = MustAllocate({{0, 4 * kMiB}}, Backing::kAnonymous);
  const PresenceFinder none(PagemapMethod::kNone);
  EXPECT_EQ(none.method(), PagemapMethod::kNone);
  CheckExact(none, anonymous->regions()[0], {{0, 1024}});

  const std::vector<RegionSpec> specs = {{0, kGiB}, {4 * kGiB, kGiB}};
  const Memory described = GuestMemory::Describe(specs).value();
  const PresenceFinder finder;
  CheckExact(finder, described->regions()[1], {{kGiB / kPageBytes, kGiB / kPageBytes}});
}

TEST(PresenceTest, AnErrorOfTheKernelCountsAsPresent) {
  const PresenceFinder finder;
  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);
  Region region = {.bytes = 100 * kPageBytes,
                   .fd = ends[0],
                   .backing = Backing::kFile,
                   .presence = Presence::kSeek};
  CheckExact(finder, region, {{0, 100}});  // ESPIPE
  region.fd = -1;
  CheckExact(finder, region, {{0, 100}});  // EBADF
  ::close(ends[0]);
  ::close(ends[1]);
  // Addresses that no process can have: PAGEMAP_SCAN refuses them.
  region.presence = Presence::kPagemap;
  region.host = reinterpret_cast<std::uint8_t*>(std::uint64_t{1} << 62);
  CheckExact(finder, region, {{0, 100}});
}

TEST(PresenceDeathTest, ARangeOutsideTheRegionIsABugOfOurs) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const Memory memory = MustAllocate({{0, kMiB}, {kGiB, kMiB}}, Backing::kAnonymous);
  const PresenceFinder finder;
  const Region& region = memory->regions()[1];
  Runs runs;
  EXPECT_DEATH(static_cast<void>(finder.NextPresent(region, 255, 300)), "internal error");
  EXPECT_DEATH(static_cast<void>(finder.NextPresent(region, 256, 513)), "internal error");
  EXPECT_DEATH(finder.PresentRuns(region, {256, ~std::uint64_t{0}}, &runs), "internal error");
}

}  // namespace
}  // namespace chkpt

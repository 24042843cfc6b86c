// Guest-like memory must have the shares it promises and depend on seed and page number only. The
// oracle is a count that knows nothing of the generator: page comparison, a set of contents, and
// LZ4 itself.
#include <gtest/gtest.h>
#include <lz4.h>

#include <algorithm>
#include <cstring>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "core/memory/presence.h"
#include "core/synthetic/guest_like.h"
#include "test/memory_fixtures.h"

namespace chkpt {
namespace {

std::string_view PageView(const GuestMemory& memory, std::uint64_t page) {
  const Region& region = memory.regions()[memory.RegionOfPage(page)];
  const std::uint8_t* host = region.host + (page - region.first_page) * kPageBytes;
  return {reinterpret_cast<const char*>(host), kPageBytes};
}

bool IsZero(std::string_view page) {
  return page.find_first_not_of('\0') == std::string_view::npos;
}
bool IsFill(std::string_view page) {
  return !IsZero(page) && page.substr(0, kPageBytes - 8) == page.substr(8);
}

bool SamePages(const GuestMemory& left, const GuestMemory& right, std::uint64_t page_count) {
  for (std::uint64_t page = 0; page < page_count; ++page) {
    if (PageView(left, page) != PageView(right, page)) return false;
  }
  return true;
}

Memory Filled(std::vector<RegionSpec> specs, std::uint64_t seed, unsigned threads,
              const GuestLikeMix& mix = {}) {
  Memory memory = MustAllocate(std::move(specs), Backing::kAnonymous);
  EXPECT_TRUE(FillGuestLike(*memory, seed, mix, threads).ok());
  return memory;
}

struct Shares {
  std::uint64_t zero = 0;
  std::uint64_t fill = 0;
  std::uint64_t duplicate_in_block = 0;  // of a page of the same block
  std::uint64_t duplicate_near = 0;      // of a page of the same 32 MiB
  std::uint64_t duplicate_far = 0;
  std::uint64_t duplicates() const { return duplicate_in_block + duplicate_near + duplicate_far; }
};

Shares Count(const GuestMemory& memory) {
  constexpr std::uint64_t kGroupPageCount = 8192;
  Shares shares;
  std::unordered_map<std::string_view, std::uint64_t> last_seen;
  for (std::uint64_t page = 0; page < memory.page_count(); ++page) {
    const std::string_view view = PageView(memory, page);
    if (IsZero(view)) {
      ++shares.zero;
    } else if (IsFill(view)) {
      ++shares.fill;
    } else if (const auto [seen, fresh] = last_seen.try_emplace(view, page); !fresh) {
      const std::uint64_t earlier = std::exchange(seen->second, page);
      if (earlier / kBlockPages == page / kBlockPages) {
        ++shares.duplicate_in_block;
      } else if (earlier / kGroupPageCount == page / kGroupPageCount) {
        ++shares.duplicate_near;
      } else {
        ++shares.duplicate_far;
      }
    }
  }
  return shares;
}

// The ratio of LZ4 on the stored pages of each block, packed as a save packs them.
double CompressionRatio(const GuestMemory& memory) {
  std::vector<char> block;
  std::vector<char> target(static_cast<std::size_t>(LZ4_compressBound(kBlockBytes)));
  std::uint64_t stored = 0;
  std::uint64_t compressed = 0;
  for (std::uint64_t first = 0; first < memory.page_count(); first += kBlockPages) {
    block.clear();
    for (std::uint64_t page = first; page < first + kBlockPages; ++page) {
      const std::string_view view = PageView(memory, page);
      if (!IsZero(view) && !IsFill(view)) block.insert(block.end(), view.begin(), view.end());
    }
    if (block.empty()) continue;
    const int bytes = LZ4_compress_fast(block.data(), target.data(), static_cast<int>(block.size()),
                                        static_cast<int>(target.size()), 1);
    stored += block.size();
    compressed += std::min(static_cast<std::size_t>(bytes), block.size());
  }
  return static_cast<double>(stored) / static_cast<double>(compressed);
}

TEST(GuestLikeTest, TheDefaultMixHasTheSharesOfTheMeasuredGuest) {
  const Memory memory = Filled({{0, 128 * kMiB}}, 7, 2);
  const Shares shares = Count(*memory);
  const std::uint64_t pages = memory->page_count();
  // A group of 8192 pages has 278, 3 and 43 thousandths of them, rounded down.
  EXPECT_EQ(shares.zero, pages / 8192 * 2277);
  EXPECT_EQ(shares.fill, pages / 8192 * 24);
  EXPECT_NEAR(static_cast<double>(shares.duplicates()), 0.043 * static_cast<double>(pages),
              0.002 * static_cast<double>(pages));
  EXPECT_GT(shares.duplicate_in_block, pages / 200);
  EXPECT_GT(shares.duplicate_near, pages / 200);
  EXPECT_GT(shares.duplicate_far, pages / 200);
  EXPECT_NEAR(CompressionRatio(*memory), 2.3, 0.1);
}

TEST(GuestLikeTest, ContentDependsOnSeedAndPageNumberOnly) {
  const Memory one = Filled({{0, 68 * kMiB}}, 1, 1);
  const Memory threads = Filled({{0, 68 * kMiB}}, 1, 3);
  EXPECT_TRUE(SamePages(*one, *threads, one->page_count()));
  const Memory regions = Filled({{0, 5 * kMiB + 4096}, {kGiB, 40 * kMiB}, {kTiB, 20 * kMiB}}, 1, 2);
  EXPECT_TRUE(SamePages(*one, *regions, regions->page_count()));
  const Memory seeded = Filled({{0, 4 * kMiB}}, 2, 1);
  EXPECT_FALSE(SamePages(*one, *seeded, seeded->page_count()));
}

TEST(GuestLikeTest, UsedMemoryGetsTheSameContentAsFreshMemory) {
  const Memory fresh = Filled({{0, 34 * kMiB}}, 3, 2);
  for (const Backing backing : {Backing::kAnonymous, Backing::kMemfd}) {
    const Memory used = MustAllocate({{0, 34 * kMiB}}, backing);
    const Bytes before(34 * kMiB, 0xa5);
    ASSERT_TRUE(used->Write(0, before).ok());
    ASSERT_TRUE(FillGuestLike(*used, 3, {}, 2).ok());
    EXPECT_TRUE(SamePages(*fresh, *used, fresh->page_count()));
  }
}

TEST(GuestLikeTest, ZeroPagesOfFreshMemoryAreNotTouched) {
  const Memory memory = MustAllocate({{0, 32 * kMiB}}, Backing::kAnonymous, false);
  const PresenceFinder finder;
  ASSERT_TRUE(FillGuestLike(*memory, 5, {}, 1).ok());
  std::vector<PageRun> runs;
  finder.PresentRuns(memory->regions()[0], {0, memory->page_count()}, &runs);
  std::uint64_t present = 0;
  for (const PageRun& run : runs) present += run.count;
  EXPECT_EQ(present, memory->page_count() - Count(*memory).zero);
  EXPECT_FALSE(memory->regions()[0].fresh);
}

TEST(GuestLikeTest, EveryMixGivesWhatItSays) {
  const auto count = [](const GuestLikeMix& mix) {
    return Count(*Filled({{0, 32 * kMiB}}, 11, 2, mix));
  };
  constexpr std::uint64_t kPages = 8192;
  EXPECT_EQ(count({1000, 0, 0, 0, 0, 0}).zero, kPages);
  EXPECT_EQ(count({0, 1000, 0, 0, 0, 0}).fill, kPages);
  const Shares text = count({0, 0, 0, 0, 0, 0});
  EXPECT_EQ(text.zero + text.fill + text.duplicates(), 0u);
  const Shares random = count({0, 0, 0, 1000, 0, 0});
  EXPECT_EQ(random.zero + random.fill + random.duplicates(), 0u);
  const Shares half = count({500, 0, 0, 0, 250, 250});
  EXPECT_EQ(half.zero, kPages / 2);
  EXPECT_EQ(half.fill + half.duplicates(), 0u);
  // Nothing distinct that a duplicate could copy: still no crash.
  EXPECT_LE(count({0, 0, 1000, 0, 0, 0}).zero, kPages);

  const Memory memory = MustAllocate({{0, kMiB}}, Backing::kAnonymous);
  EXPECT_EQ(CodeOf(FillGuestLike(*memory, 1, {900, 0, 0, 101, 0, 0}, 1)), ErrorCode::kFormat);
}

TEST(GuestLikeTest, ReadOnlyMemoryIsRefused) {
  const TestFile file(8 * kMiB);
  const GuestMemory::FileSpec spec{.region = {0, 8 * kMiB}, .fd = file.fd(), .writable = false};
  Result<Memory> memory = GuestMemory::Map({&spec, 1});
  ASSERT_TRUE(memory.ok());
  EXPECT_EQ(CodeOf(FillGuestLike(*memory.value(), 1, {}, 2)), ErrorCode::kPermission);
}

}  // namespace
}  // namespace chkpt

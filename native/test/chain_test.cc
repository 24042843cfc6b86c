// Chains of checkpoints: an increment stores what changed, and a chain that is loaded newest first
// gives the memory that was saved last.
#include <sys/mman.h>

#include "test/pipeline_fixtures.h"

namespace chkpt {
namespace {

// A memory, the checkpoints made of it, and what they must come back as.
class Chain {
 public:
  explicit Chain(std::uint64_t seed, std::vector<RegionSpec> regions = kThreeRegions)
      : random_(seed), regions_(std::move(regions)), memory_(Allocate(regions_)) {
    FillRandomly(*memory_, seed);
  }

  std::shared_ptr<GuestMemory> memory() const { return memory_; }
  const std::vector<RegionSpec>& regions() const { return regions_; }
  std::vector<Saved>& members() { return members_; }

  std::uint8_t* PageAt(std::uint64_t page) const {
    const Region& region = memory_->regions()[memory_->RegionOfPage(page)];
    return region.host + (page - region.first_page) * kPageBytes;
  }

  // Writes a random mix of contents into `count` random pages; some keep what they had.
  std::shared_ptr<DirtyBitmap> Change(std::size_t count) {
    auto changed = std::make_shared<DirtyBitmap>(memory_->page_count());
    for (std::size_t i = 0; i < count; ++i) {
      const std::uint64_t page = random_() % memory_->page_count();
      std::uint8_t* const bytes = PageAt(page);
      switch (random_() % 6) {
        case 0: std::memset(bytes, 0, kPageBytes); break;
        case 1: std::memset(bytes, static_cast<int>(random_() % 256), kPageBytes); break;
        case 2: std::memcpy(bytes, PageAt(random_() % memory_->page_count()), kPageBytes); break;
        case 3: madvise(bytes, kPageBytes, MADV_DONTNEED); break;
        case 4: bytes[random_() % kPageBytes] ^= 1; break;
        default: break;  // told as changed, and was not
      }
      changed->Mark(page);
    }
    return changed;
  }

  void Add(SaveOptions options) {
    options.position.epoch = members_.size();
    options.threads = 2;
    auto saved = Save(memory_, options);
    ASSERT_TRUE(saved.ok()) << saved.error().message;
    members_.push_back(std::move(saved.value()));
    CloseStream(&members_.back());
  }

 private:
  std::mt19937_64 random_;
  const std::vector<RegionSpec> regions_;
  const std::shared_ptr<GuestMemory> memory_;
  std::vector<Saved> members_;
};

// Loads all members, newest first, as a reader of chains does.
Status LoadChain(const std::vector<Saved>& members, const std::shared_ptr<GuestMemory>& target,
                 unsigned threads, std::shared_ptr<PageDigests> digests = nullptr,
                 std::size_t* second_reads = nullptr) {
  auto chain = std::make_shared<ChainLoad>(target->page_count());
  for (std::size_t i = members.size(); i-- > 0;) {
    LoadOptions options{
        .position = {.epoch = members[i].epoch}, .chain = chain, .digests = digests};
    auto loaded = Load(target, members[i].stream, threads, 1 << 20, options);
    if (!loaded.ok()) return loaded.error();
    EXPECT_EQ(loaded.value().digests, members[i].digests);
    EXPECT_EQ(loaded.value().totals.parent_pages, members[i].totals.parent_pages);
    EXPECT_EQ(loaded.value().totals.same_pages, members[i].totals.same_pages);
    auto deferred = chain->TakeDeferred();
    if (!deferred.empty()) {
      if (second_reads != nullptr) ++*second_reads;
      options.resolver = std::make_shared<PageResolver>(std::move(deferred));
      auto again = Load(target, members[i].stream, threads, 1 << 20, options);
      if (!again.ok()) return again.error();
    }
    chain->Advance();
  }
  return Ok();
}

TEST(ChainTest, WhatWasSavedLastComesBackFromAnyDepthWhateverCodecTargetAndThreads) {
  std::size_t second_reads = 0;
  for (const std::uint64_t seed : {1u, 2u, 3u, 4u}) {
    if (kThrift > 1 && seed > 1) break;
    for (const bool lz4 : {false, true}) {
      Chain chain(seed);
      const EncodeOptions encode{.codec = lz4 ? BlockCodec::kLz4 : BlockCodec::kRaw,
                                 .dedup = seed % 2 == 0 || lz4};
      chain.Add({.encode = encode});
      for (const std::size_t count : {1, 40, 0, 700, 3}) {
        const auto changed = chain.Change(count);
        chain.Add({.encode = encode, .changed = changed});
        const PageTotals& totals = chain.members().back().totals;
        EXPECT_EQ(totals.parent_pages + changed->CountMarked(), totals.pages);
      }
      const std::uint64_t digest = DigestOf(*chain.memory());
      auto fresh = Allocate(chain.regions());
      ASSERT_TRUE(LoadChain(chain.members(), fresh, lz4 ? 1 : 3, nullptr, &second_reads).ok());
      EXPECT_EQ(DigestOf(*fresh), digest);
      auto used = Allocate(chain.regions(), Backing::kMemfd);
      FillRandomly(*used, 99);
      used->MarkUsed();
      ASSERT_TRUE(LoadChain(chain.members(), used, 2).ok());
      EXPECT_EQ(DigestOf(*used), digest);
    }
  }
  EXPECT_GT(second_reads, 0u);  // pages equal to ones that were replaced
}

TEST(ChainTest, DigestsFindWhatChangedAndLeaveTheRestToTheParent) {
  Chain chain(7);
  auto digests = PageDigests::Create(chain.memory()->page_count()).value();
  chain.Add({.digests = digests});
  const auto changed = chain.Change(500);
  std::vector<Saved> told = chain.members();
  chain.Add({.changed = changed, .digests = digests});
  const PageTotals by_both = chain.members().back().totals;
  EXPECT_LT(by_both.pages - by_both.parent_pages, changed->CountMarked());

  // The same without being told, against digests taken from the chain itself.
  auto described = GuestMemory::Describe(chain.regions()).value();
  auto from_chain = PageDigests::Create(chain.memory()->page_count()).value();
  ASSERT_TRUE(LoadChain(chain.members(), described, 2, from_chain).ok());
  chain.Change(200);
  chain.Add({.digests = from_chain});
  const PageTotals by_digest = chain.members().back().totals;
  EXPECT_LE(by_digest.pages - by_digest.parent_pages, 200u);
  EXPECT_GT(by_digest.pages - by_digest.parent_pages, 100u);

  chain.Add({.digests = from_chain});
  EXPECT_EQ(chain.members().back().totals.parent_pages, chain.memory()->page_count());
  auto target = Allocate(chain.regions());
  ASSERT_TRUE(LoadChain(chain.members(), target, 2).ok());
  EXPECT_EQ(DigestOf(*target), DigestOf(*chain.memory()));
}

TEST(ChainTest, ForgottenPagesAreStoredAgain) {
  Chain chain(8);
  auto digests = PageDigests::Create(chain.memory()->page_count()).value();
  chain.Add({.digests = digests});
  const auto changed = chain.Change(300);
  // A save that fails after it has seen everything.
  ASSERT_TRUE(
      Save(chain.memory(), {.position = {.epoch = 9}, .changed = changed, .digests = digests})
          .ok());
  digests->Forget(*changed);
  chain.Add({.changed = changed, .digests = digests});
  const PageTotals& totals = chain.members().back().totals;
  EXPECT_EQ(totals.pages - totals.parent_pages, changed->CountMarked());
}

TEST(ChainTest, ThousandIncrementsLoadDirectly) {
  Chain chain(9, {{0, 4 << 20}});
  chain.Add({.threads = 1});
  for (int i = 1; i < 1000 / kThrift; ++i) {
    const auto changed = chain.Change(2);
    chain.Add({.changed = changed});
  }
  auto target = Allocate(chain.regions());
  ASSERT_TRUE(LoadChain(chain.members(), target, 2).ok());
  EXPECT_EQ(DigestOf(*target), DigestOf(*chain.memory()));
}

TEST(ChainTest, DifferingPagesAreFoundThroughDigests) {
  Chain chain(10);
  chain.Add({});
  auto before = PageDigests::Create(chain.memory()->page_count()).value();
  auto after = before->Share().value();
  auto described = GuestMemory::Describe(chain.regions()).value();
  ASSERT_TRUE(LoadChain(chain.members(), described, 2, before).ok());
  auto older = Allocate(chain.regions());
  ASSERT_TRUE(LoadChain(chain.members(), older, 2).ok());
  const auto changed = chain.Change(300);
  chain.Add({.changed = changed});
  ASSERT_TRUE(LoadChain(chain.members(), described, 2, after).ok());
  DirtyBitmap differing(chain.memory()->page_count());
  after->Differing(*before, &differing);
  for (std::uint64_t page = 0; page < chain.memory()->page_count(); ++page) {
    const Region& region = older->regions()[older->RegionOfPage(page)];
    const std::uint8_t* then = region.host + (page - region.first_page) * kPageBytes;
    ASSERT_EQ(differing.IsMarked(page), std::memcmp(then, chain.PageAt(page), kPageBytes) != 0)
        << page;
  }
}

// The pages of `target` are those of `wanted`, but for the scrubbed ones, which are zeros.
void ExpectScrubbed(const GuestMemory& target, const Chain& wanted, const DirtyBitmap& scrubbed) {
  const std::vector<std::uint8_t> zeros(kPageBytes);
  for (std::uint64_t page = 0; page < target.page_count(); ++page) {
    const Region& region = target.regions()[target.RegionOfPage(page)];
    const std::uint8_t* found = region.host + (page - region.first_page) * kPageBytes;
    const std::uint8_t* expected = scrubbed.IsMarked(page) ? zeros.data() : wanted.PageAt(page);
    ASSERT_EQ(std::memcmp(found, expected, kPageBytes), 0) << page;
  }
}

TEST(ChainTest, ScrubbedPagesAreZerosOfTheirOwnWhateverTheParentHas) {
  for (const bool has_digests : {false, true}) {
    for (const std::size_t count : {200, 0}) {
      Chain chain(12);
      std::shared_ptr<PageDigests> digests;
      if (has_digests) digests = PageDigests::Create(chain.memory()->page_count()).value();
      chain.Add({.digests = digests});
      const auto changed = chain.Change(count);
      // Changed and unchanged pages, present and absent ones, in all chunks.
      auto scrubbed = std::make_shared<DirtyBitmap>(chain.memory()->page_count());
      for (std::uint64_t page = 0; page < scrubbed->page_count(); page += 131) scrubbed->Mark(page);
      scrubbed->MarkRun({500, 40});
      chain.Add({.changed = changed, .scrubbed = scrubbed, .digests = digests});
      EXPECT_GE(chain.members().back().totals.zero_pages, scrubbed->CountMarked());
      auto target = Allocate(chain.regions());
      FillRandomly(*target, 98);
      target->MarkUsed();
      ASSERT_TRUE(LoadChain(chain.members(), target, 2).ok());
      ExpectScrubbed(*target, chain, *scrubbed);

      // What is no secret any more is stored: the digests know what the checkpoint has.
      chain.Add({.changed = scrubbed, .digests = digests});
      auto again = Allocate(chain.regions());
      ASSERT_TRUE(LoadChain(chain.members(), again, 2).ok());
      ExpectScrubbed(*again, chain, DirtyBitmap(scrubbed->page_count()));
    }
  }
}

TEST(ChainTest, PagesThatAreLeftAloneStayWhatTheyAre) {
  Chain chain(13);
  chain.Add({.encode = {.dedup = false}});  // no page equals one that is left alone
  auto target = Allocate(chain.regions());
  FillRandomly(*target, 97);
  target->MarkUsed();
  auto before = Allocate(chain.regions());
  FillRandomly(*before, 97);
  auto alone = std::make_shared<ChainLoad>(target->page_count());
  alone->LeaveAlone({100, 700});
  const Saved& saved = chain.members().front();
  LoadOptions options{.position = {.epoch = saved.epoch}, .chain = alone};
  ASSERT_TRUE(Load(target, saved.stream, 2, 1 << 20, options).ok());
  for (std::uint64_t page = 0; page < target->page_count(); ++page) {
    const Region& region = target->regions()[target->RegionOfPage(page)];
    const std::uint64_t at = (page - region.first_page) * kPageBytes;
    const Region& old = before->regions()[before->RegionOfPage(page)];
    const bool is_alone = page >= 100 && page < 800;
    const std::uint8_t* wanted = is_alone ? old.host + at : chain.PageAt(page);
    ASSERT_EQ(std::memcmp(region.host + at, wanted, kPageBytes), 0) << page;
  }
}

// A page may equal pages of its own checkpoint only.
TEST(ChainTest, AnIncrementIsRefusedWhoseSamePageIsLeftToTheParent) {
  Chain chain(11, {{0, 1 << 20}});
  chain.Add({});
  const auto changed = chain.Change(0);
  std::memset(chain.PageAt(40), 0x11, 64);
  std::memset(chain.PageAt(41), 0x11, kPageBytes);
  std::memcpy(chain.PageAt(41), chain.PageAt(40), kPageBytes);
  changed->MarkRun({40, 2});
  chain.Add({.changed = changed});
  Saved& member = chain.members().back();
  ASSERT_EQ(member.totals.same_pages, 1u);
  // Lets the same page name page 3, which is the parent's, and makes the digests right again.
  std::uint8_t* frame = member.stream.data();
  StreamPosition position = Start(1);
  while (Load<std::uint32_t>(frame) != static_cast<std::uint32_t>(FrameType::kPageBlock)) {
    const std::uint64_t bytes = kFrameHeaderBytes + Pad8(Load<std::uint64_t>(frame + 8));
    position.Advance(bytes);
    frame += bytes;
  }
  FrameHeader header = CheckFrameHeader(frame, position).value().header;
  std::uint8_t* const payload = frame + kFrameHeaderBytes;
  Store<std::uint64_t>(payload + header.payload_bytes - 8, 3);
  header.payload_digest = PayloadDigest({payload, header.payload_bytes});
  EncodeFrameHeader(header, position, frame);
  auto loaded =
      Load(Allocate(chain.regions()), member.stream, 2, 1 << 20, {.position = {.epoch = 1}});
  ASSERT_FALSE(loaded.ok());
  EXPECT_EQ(loaded.error().code, ErrorCode::kFormat);
  EXPECT_EQ(loaded.error().page, 41u);
}

}  // namespace
}  // namespace chkpt

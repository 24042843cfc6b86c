// Pages that are sent again as their difference from what was sent before: a destination that was
// told everything holds what the source has, and one that holds something else says so.
#include <sys/mman.h>

#include <thread>

#include "core/codec/page_delta.h"
#include "test/memory_fixtures.h"
#include "test/pipeline_fixtures.h"

namespace chkpt {
namespace {

const std::vector<RegionSpec> kTwoRegions = {{0, 4 * kMiB + 20480}, {kGiB, 3 * kMiB}};

std::uint8_t* PageAt(const GuestMemory& memory, std::uint64_t page) {
  const Region& region = memory.regions()[memory.RegionOfPage(page)];
  return region.host + (page - region.first_page) * kPageBytes;
}

// A guest whose memory goes to a destination round by round.
class Sender {
 public:
  Sender(std::uint64_t seed, std::uint64_t version_count, EncodeOptions encode = {},
         std::vector<RegionSpec> regions = kTwoRegions)
      : random_(seed), encode_(encode), memory_(Allocate(std::move(regions))) {
    FillRandomly(*memory_, seed);
    cache_ = DeltaCache::Create(memory_->page_count(), version_count).value();
    all_ = std::make_shared<DirtyBitmap>(memory_->page_count());
    all_->MarkRun({0, memory_->page_count()});
  }

  GuestMemory& memory() const { return *memory_; }
  DeltaCache& cache() const { return *cache_; }
  std::shared_ptr<DirtyBitmap> all() const { return all_; }
  std::uint64_t round() const { return round_; }

  // Changes up to 16 words of each page.
  std::shared_ptr<DirtyBitmap> Edit(std::uint64_t first, std::uint64_t count) {
    auto changed = std::make_shared<DirtyBitmap>(memory_->page_count());
    for (std::uint64_t page = first; page < first + count; ++page) {
      for (std::uint64_t words = 1 + random_() % 16; words > 0; --words) {
        Store<std::uint64_t>(PageAt(*memory_, page) + 8 * (random_() % kPageWords), random_());
      }
      changed->Mark(page);
    }
    return changed;
  }

  // Everything that a guest may do to a page, most often a small change.
  std::shared_ptr<DirtyBitmap> Change(std::size_t count) {
    auto changed = std::make_shared<DirtyBitmap>(memory_->page_count());
    for (std::size_t i = 0; i < count; ++i) {
      const std::uint64_t page = random_() % memory_->page_count();
      std::uint8_t* const bytes = PageAt(*memory_, page);
      switch (random_() % 12) {
        case 0: std::memset(bytes, 0, kPageBytes); break;
        case 1: std::memset(bytes, static_cast<int>(random_() % 256), kPageBytes); break;
        case 2: madvise(bytes, kPageBytes, MADV_DONTNEED); break;
        case 3:
          std::memcpy(bytes, PageAt(*memory_, random_() % memory_->page_count()), kPageBytes);
          break;
        case 4: std::memcpy(bytes, RandomBytes(kPageBytes, random_()).data(), kPageBytes); break;
        case 5: break;  // told as changed, and was not
        default: Edit(page, 1);
      }
      changed->Mark(page);
    }
    return changed;
  }

  // The stream of the next round.
  Saved Round(std::shared_ptr<DirtyBitmap> changed, unsigned threads = 2) {
    auto saved = Save(memory_, {.position = {.epoch = ++round_},
                                .encode = encode_,
                                .threads = threads,
                                .changed = std::move(changed),
                                .deltas = cache_});
    EXPECT_TRUE(saved.ok());
    CloseStream(&saved.value());
    return std::move(saved.value());
  }

 private:
  std::mt19937_64 random_;
  const EncodeOptions encode_;
  const std::shared_ptr<GuestMemory> memory_;
  std::shared_ptr<DeltaCache> cache_;
  std::shared_ptr<DirtyBitmap> all_;
  std::uint64_t round_ = 0;
};

Result<Loaded> Receive(const Memory& memory, const Saved& saved, unsigned threads = 2,
                       bool deltas = true) {
  return Load(memory, saved.stream, threads, 1 << 20,
              {.position = {.epoch = saved.epoch}, .deltas = deltas});
}

// A frame of a stream of `Save`, by its type.
struct FoundFrame {
  std::uint8_t* bytes = nullptr;
  FrameHeader header;
  StreamPosition position;

  std::uint8_t* payload() const { return bytes + kFrameHeaderBytes; }
  // Makes the digests right again.
  void Repair() {
    header.payload_digest = PayloadDigest({payload(), Pad8(header.payload_bytes)});
    EncodeFrameHeader(header, position, bytes);
  }
};
FoundFrame Find(Saved* saved, FrameType type) {
  FoundFrame found{.bytes = saved->stream.data(), .header = {}, .position = Start(saved->epoch)};
  for (;;) {
    found.header = CheckFrameHeader(found.bytes, found.position).value().header;
    if (found.header.type == static_cast<std::uint32_t>(type)) return found;
    found.bytes += found.header.frame_bytes();
    found.position.Advance(found.header.frame_bytes());
  }
}

TEST(DeltaTest, EveryRoundArrivesWhateverTheGuestDidAndWhateverCodecTargetAndCache) {
  std::uint64_t deltas = 0;
  std::uint64_t unchanged = 0;
  for (const std::uint64_t seed : {1u, 2u, 3u, 6u}) {
    if (kThrift > 1 && seed > 1) break;
    const EncodeOptions encode{.codec = seed % 3 == 0 ? BlockCodec::kRaw : BlockCodec::kLz4,
                               .dedup = seed % 2 == 0};
    Sender sender(seed, seed < 5 ? 4096 : 100, encode);
    const TestFile file(7 * kMiB + 20480);
    const std::vector<GuestMemory::FileSpec> files = {
        {kTwoRegions[0], file.fd(), 0, true},
        {kTwoRegions[1], file.fd(), kTwoRegions[0].bytes, true}};
    const std::vector<Memory> targets = {Allocate(kTwoRegions),
                                         GuestMemory::OpenFiles(files, false).value()};
    std::shared_ptr<DirtyBitmap> changed = sender.all();
    for (const std::size_t count : {300, 300, 900, 0, 40, 900, 900}) {
      const Saved saved = sender.Round(changed, 1 + static_cast<unsigned>(seed % 3));
      for (const Memory& target : targets) {
        auto loaded = Receive(target, saved, seed % 2 + 1);
        ASSERT_TRUE(loaded.ok()) << loaded.error().message << " seed " << seed;
        EXPECT_EQ(loaded.value().digests, saved.digests);
        EXPECT_EQ(loaded.value().totals.stored_pages, saved.totals.stored_pages);
        ASSERT_EQ(DigestOf(*target), DigestOf(sender.memory())) << "seed " << seed;
      }
      changed = sender.Change(count);
    }
    deltas += sender.cache().counts().deltas;
    unchanged += sender.cache().counts().unchanged;
  }
  EXPECT_GT(deltas, 100u);
  EXPECT_GT(unchanged, kThrift > 1 ? 0u : 20u);
}

TEST(DeltaTest, SmallChangesTakeATenthOfTheirPages) {
  Sender sender(7, 512, {}, {{0, 2 * kMiB}});
  for (std::uint64_t page = 0; page < 512; ++page) {
    std::memcpy(PageAt(sender.memory(), page), RandomBytes(kPageBytes, page).data(), kPageBytes);
  }
  const Saved whole = sender.Round(sender.all());
  const Saved deltas = sender.Round(sender.Edit(0, 512));
  EXPECT_EQ(sender.cache().counts().deltas, 512u);
  EXPECT_LT(deltas.stream.size() * 10, whole.stream.size());
}

TEST(DeltaTest, AFullCacheKeepsThePagesThatComeAgainInEveryRound) {
  Sender sender(8, 50);
  sender.Round(sender.Edit(0, 100));
  EXPECT_EQ(sender.cache().counts().versions, 50u);
  for (std::uint64_t i = 1; i <= 5; ++i) {
    sender.Round(sender.Edit(0, 100));
    EXPECT_EQ(sender.cache().counts().deltas, 50 * i);
    EXPECT_EQ(sender.cache().counts().versions, 50u);
  }
  // Those that have rested for a round make way.
  for (int i = 0; i < 3; ++i) sender.Round(sender.Edit(500, 50));
  const std::uint64_t before = sender.cache().counts().deltas;
  sender.Round(sender.Edit(500, 50));
  EXPECT_EQ(sender.cache().counts().deltas, before + 50);
}

TEST(DeltaTest, PagesOfALostStreamAreSentWholeAndEverythingArrives) {
  Sender sender(9, 4096);
  const Memory target = Allocate(kTwoRegions);
  ASSERT_TRUE(Receive(target, sender.Round(sender.all())).ok());
  ASSERT_TRUE(Receive(target, sender.Round(sender.Edit(100, 400))).ok());
  const auto lost = sender.Edit(100, 400);
  sender.Round(lost);
  sender.cache().Forget(*lost);
  const std::uint64_t before = sender.cache().counts().deltas;
  sender.Edit(100, 400);
  ASSERT_TRUE(Receive(target, sender.Round(lost)).ok());
  EXPECT_EQ(sender.cache().counts().deltas, before);
  EXPECT_EQ(DigestOf(*target), DigestOf(sender.memory()));
}

TEST(DeltaTest, APageThatIsSentTwiceInOneRoundIsSentWhole) {
  Sender sender(10, 64, {}, {{0, kMiB}});
  const std::vector<std::uint8_t> page = RandomBytes(kPageBytes, 1);
  std::vector<std::uint8_t> copy = page;
  DeltaCache& cache = sender.cache();
  EXPECT_EQ(cache.Exchange(1, 3, copy.data()).kind, DeltaCache::Kind::kWhole);
  EXPECT_EQ(cache.Exchange(1, 3, copy.data()).kind, DeltaCache::Kind::kWhole);
  EXPECT_EQ(copy, page);
  EXPECT_EQ(cache.Exchange(2, 3, copy.data()).kind, DeltaCache::Kind::kUnchanged);
  cache.Drop(3);
  EXPECT_EQ(cache.Exchange(3, 3, copy.data()).kind, DeltaCache::Kind::kWhole);
}

// The fault that must not happen: a stream counts as arrived and is not.
TEST(DeltaTest, ADifferenceFromAnotherPageThanMemoryHoldsIsRefusedAndThatPageStaysAsItIs) {
  const TestFile file(kMiB);
  const GuestMemory::FileSpec spec = {{0, kMiB}, file.fd(), 0, true};
  for (const bool mapped : {true, false}) {
    Sender sender(11, 4096, {}, {{0, kMiB}});
    const Memory target =
        mapped ? Allocate({{0, kMiB}}) : GuestMemory::OpenFiles({&spec, 1}, false).value();
    ASSERT_TRUE(Receive(target, sender.Round(sender.all())).ok());
    ASSERT_TRUE(Receive(target, sender.Round(sender.Edit(40, 3))).ok());
    sender.Round(sender.Edit(40, 3));
    const std::uint64_t before = DigestOf(*target);
    auto loaded = Receive(target, sender.Round(sender.Edit(40, 3)));
    ASSERT_FALSE(loaded.ok());
    EXPECT_EQ(loaded.error().code, ErrorCode::kDigest);
    EXPECT_EQ(loaded.error().page, 40u);
    EXPECT_EQ(DigestOf(*target), before);
  }
}

TEST(DeltaTest, WhoHasNotAskedForDifferencesDoesNotKnowTheirFrames) {
  Sender sender(12, 4096, {}, {{0, kMiB}});
  const Memory target = Allocate({{0, kMiB}});
  ASSERT_TRUE(Receive(target, sender.Round(sender.all())).ok());
  const Saved saved = sender.Round(sender.Edit(40, 3));
  const std::uint64_t before = DigestOf(*target);
  auto digests = PageDigests::Create(target->page_count()).value();
  const LoadOptions position{.position = {.epoch = saved.epoch}};
  LoadOptions with_digests = position;
  with_digests.deltas = true;
  with_digests.digests = digests;
  for (const LoadOptions& options : {position, with_digests}) {
    auto loaded = Load(target, saved.stream, 2, 1 << 20, options);
    ASSERT_FALSE(loaded.ok());
    EXPECT_EQ(loaded.error().code, ErrorCode::kVersion);
  }
  EXPECT_EQ(DigestOf(*target), before);
  // Nor does a stream without a parent have them.
  Saved alone{.stream = {}, .digests = {}, .groups = {}, .totals = {}, .epoch = 0};
  alone.stream.resize(kFrameHeaderBytes + 24);
  EncodeFrameHeader({.type = static_cast<std::uint32_t>(FrameType::kDeltaBlock),
                     .payload_bytes = 24,
                     .arg0 = 0,
                     .arg1 = 16,
                     .payload_digest = PayloadDigest({alone.stream.data(), 24})},
                    Start(0), alone.stream.data());
  auto loaded = Receive(target, alone);
  ASSERT_FALSE(loaded.ok());
  EXPECT_EQ(loaded.error().code, ErrorCode::kVersion);
}

TEST(DeltaTest, ADeltaBlockIsCheckedBeforeMemoryIsTouched) {
  Sender sender(13, 4096, {}, {{0, kMiB}, {kGiB, 5 * kPageBytes}});
  const Memory target = Allocate({{0, kMiB}, {kGiB, 5 * kPageBytes}});
  ASSERT_TRUE(Receive(target, sender.Round(sender.all())).ok());
  const Saved sound = sender.Round(sender.Edit(32, 4));
  const std::uint64_t before = DigestOf(*target);
  const auto expect = [&](ErrorCode code, auto forge, const char* what) {
    Saved forged = sound;
    FoundFrame frame = Find(&forged, FrameType::kDeltaBlock);
    forge(frame);
    frame.Repair();
    auto loaded = Receive(target, forged);
    ASSERT_FALSE(loaded.ok()) << what;
    EXPECT_EQ(loaded.error().code, code) << what;
    EXPECT_EQ(DigestOf(*target), before) << what;
  };
  const auto classes = [](FoundFrame& frame, std::uint64_t value) {
    Store<std::uint64_t>(frame.payload() + 8, value);
  };
  const std::uint64_t sound_classes =
      Load<std::uint64_t>(Find(&const_cast<Saved&>(sound), FrameType::kDeltaBlock).payload() + 8);
  ASSERT_EQ(sound_classes, 0x4444444444445555u);
  expect(
      ErrorCode::kFormat, [&](FoundFrame& f) { classes(f, 0x4444444444442222); },
      "no difference in it");
  expect(
      ErrorCode::kFormat, [&](FoundFrame& f) { classes(f, 0x4444444444455555); },
      "a difference without a word");
  expect(
      ErrorCode::kFormat, [&](FoundFrame& f) { classes(f, 0x4444444444446555); },
      "an unknown class");
  expect(
      ErrorCode::kFormat,
      [&](FoundFrame& f) { f.header.type = static_cast<std::uint32_t>(FrameType::kPageBlock); },
      "differences in a page block");
  expect(
      ErrorCode::kFormat, [&](FoundFrame& f) { f.header.arg0 = 256; }, "pages of another region");
  expect(
      ErrorCode::kFormat, [&](FoundFrame& f) { f.header.arg0 = 272; },
      "pages outside of all regions");
  expect(
      ErrorCode::kFormat, [&](FoundFrame& f) { f.header.arg1 = 1'000'000; },
      "more pages than a block");
  expect(
      ErrorCode::kFormat, [&](FoundFrame& f) { Store<std::uint32_t>(f.payload() + 4, 0x7fffffff); },
      "more bytes than there are");
}

TEST(DeltaTest, AFlippedBitNeverMakesAnotherPageAlsoWhenTheDigestsOfItsFrameWereMadeAnew) {
  Sender sender(14, 4096, {}, {{0, kMiB}});
  const Memory target = Allocate({{0, kMiB}});
  ASSERT_TRUE(Receive(target, sender.Round(sender.all())).ok());
  const Saved sound = sender.Round(sender.Edit(32, 1));
  std::vector<std::uint8_t> before(kPageBytes);
  std::memcpy(before.data(), PageAt(*target, 32), kPageBytes);
  Saved copy = sound;
  const std::size_t bytes = Find(&copy, FrameType::kDeltaBlock).header.payload_bytes;
  std::size_t refused = 0;
  for (std::size_t bit = 0; bit < 8 * bytes; bit += 3 * kThrift * kThrift) {
    if (bit / 64 == 1) continue;  // other classes: other pages, sound as they are
    Saved forged = sound;
    FoundFrame frame = Find(&forged, FrameType::kDeltaBlock);
    frame.payload()[bit / 8] ^= static_cast<std::uint8_t>(1u << bit % 8);
    frame.Repair();
    // Another match within zeros decodes to the same.
    const bool taken = Receive(target, forged).ok();
    if (!taken) ++refused;
    const std::uint8_t* const expected =
        taken ? PageAt(sender.memory(), 32) : std::as_const(before).data();
    ASSERT_EQ(std::memcmp(expected, PageAt(*target, 32), kPageBytes), 0) << bit;
    std::memcpy(PageAt(*target, 32), before.data(), kPageBytes);
  }
  EXPECT_GT(refused, bytes / kThrift / kThrift);
  ASSERT_TRUE(Receive(target, sound).ok());
  EXPECT_EQ(DigestOf(*target), DigestOf(sender.memory()));
}

TEST(DeltaTest, StreamsOfOneRoundShareACache) {
  constexpr std::uint64_t kRounds = 6;
  const std::vector<RegionSpec> regions = {{0, 8 * kMiB}};
  const Memory source = Allocate(regions);
  const Memory target = Allocate(regions);
  FillRandomly(*source, 15);
  auto cache = DeltaCache::Create(source->page_count(), 700).value();
  std::mt19937_64 random(15);
  for (std::uint64_t round = 1; round <= kRounds; ++round) {
    // In turn 64 pages each, so that chunks and blocks of the cache have both as neighbours.
    std::vector<std::shared_ptr<DirtyBitmap>> sets;
    for (int lane = 0; lane < 2; ++lane) {
      sets.push_back(std::make_shared<DirtyBitmap>(source->page_count()));
    }
    for (std::uint64_t page = 0; page < source->page_count(); ++page) {
      if (round > 1 && random() % 3 == 0) continue;
      if (round > 1) Store<std::uint64_t>(PageAt(*source, page) + 8 * (random() % 512), random());
      sets[page / 64 % 2]->Mark(page);
    }
    std::vector<Saved> streams(2);
    std::vector<std::thread> lanes;
    for (std::size_t lane = 0; lane < 2; ++lane) {
      lanes.emplace_back([&, lane] {
        streams[lane] = Save(source, {.position = {.epoch = round},
                                      .threads = 2,
                                      .changed = sets[lane],
                                      .deltas = cache})
                            .value();
      });
    }
    for (std::thread& lane : lanes) lane.join();
    for (Saved& stream : streams) {
      CloseStream(&stream);
      ASSERT_TRUE(Receive(target, stream).ok());
    }
    ASSERT_EQ(DigestOf(*target), DigestOf(*source)) << "round " << round;
  }
  EXPECT_GT(cache->counts().deltas, 300u);
  EXPECT_LE(cache->counts().versions, 700u);
}

}  // namespace
}  // namespace chkpt

// SavePipeline and LoadPipeline together: what goes in comes out, whatever the threads, and nothing
// else does.
#include <thread>

#include "test/pipeline_fixtures.h"

namespace chkpt {
namespace {

TEST(PipelineTest, WhatIsSavedComesBackByteForByteWhateverCodecThreadsAndPieces) {
  for (const std::uint64_t seed : {1u, 2u, 3u}) {
    if (kThrift > 1 && seed > 1) break;
    auto memory = Allocate(kThreeRegions);
    FillRandomly(*memory, seed);
    const std::uint64_t digest = DigestOf(*memory);
    for (const BlockCodec codec : {BlockCodec::kRaw, BlockCodec::kLz4}) {
      for (const bool dedup : {false, true}) {
        auto saved = Save(memory, {.encode = {.codec = codec, .dedup = dedup}, .threads = 2});
        ASSERT_TRUE(saved.ok());
        Saved& s = saved.value();
        EXPECT_EQ(s.totals.pages, memory->page_count());
        EXPECT_EQ(
            s.totals.zero_pages + s.totals.fill_pages + s.totals.stored_pages + s.totals.same_pages,
            memory->page_count());
        EXPECT_EQ(s.totals.same_pages == 0, !dedup);
        CloseStream(&s);
        for (const std::size_t piece : {std::size_t{1} << 20, std::size_t{100'003}}) {
          auto target =
              Allocate(kThreeRegions, piece == 100'003 ? Backing::kMemfd : Backing::kAnonymous);
          if (piece == 100'003) FillRandomly(*target, 99);  // used memory: zeros must be written
          if (piece == 100'003) target->MarkUsed();
          auto loaded = Load(target, s.stream, piece == 100'003 ? 3 : 2, piece);
          ASSERT_TRUE(loaded.ok()) << loaded.error().message;
          EXPECT_EQ(DigestOf(*target), digest);
          EXPECT_EQ(loaded.value().digests, s.digests);
          EXPECT_EQ(loaded.value().leftover_bytes, kFrameHeaderBytes);
          EXPECT_EQ(loaded.value().totals.same_pages, s.totals.same_pages);
          EXPECT_EQ(loaded.value().totals.encoded_bytes, s.totals.encoded_bytes);
        }
      }
    }
  }
}

TEST(PipelineTest, TheBytesDoNotDependOnTheNumberOfThreadsOrSlabs) {
  auto memory = Allocate(kThreeRegions);
  FillRandomly(*memory, 11);
  auto reference = Save(memory, {.threads = 1});
  ASSERT_TRUE(reference.ok());
  for (const unsigned threads : {2u, 3u, 8u}) {
    for (int round = 0; round < 5 / kThrift; ++round) {
      auto saved = Save(memory, {.threads = threads, .slab_count = threads + 1});
      ASSERT_TRUE(saved.ok());
      EXPECT_EQ(saved.value().stream, reference.value().stream);
    }
  }
}

TEST(PipelineTest, PresenceDoesNotChangeTheBytes) {
  auto memory = Allocate(kThreeRegions);
  FillRandomly(*memory, 12);
  auto reference = Save(memory, {.threads = 2});
  for (const PagemapMethod method : {PagemapMethod::kEntries, PagemapMethod::kNone}) {
    auto saved = Save(memory, {.threads = 2, .presence = method});
    EXPECT_EQ(saved.value().stream, reference.value().stream);
  }
}

TEST(PipelineTest, SixteenGigabytesOfUntouchedMemoryAreAFewFrames) {
  auto memory =
      Allocate({{0, std::uint64_t{3} << 30}, {std::uint64_t{4} << 30, std::uint64_t{13} << 30}});
  const std::uint64_t last = (std::uint64_t{17} << 30) - 4096;
  const std::vector<std::uint8_t> bytes(4096, 0xab);
  ASSERT_TRUE(memory->Write(last, bytes).ok());
  auto saved = Save(memory, {.encode = {.codec = BlockCodec::kRaw}, .threads = 2});
  ASSERT_TRUE(saved.ok());
  EXPECT_EQ(saved.value().totals.fill_pages, 1u);
  EXPECT_EQ(saved.value().totals.zero_pages, memory->page_count() - 1);
  EXPECT_LT(saved.value().stream.size(), 64u * 1024);
  EXPECT_EQ(saved.value().groups.size(), 1u);
  auto target =
      Allocate({{0, std::uint64_t{3} << 30}, {std::uint64_t{4} << 30, std::uint64_t{13} << 30}});
  CloseStream(&saved.value());
  ASSERT_TRUE(Load(target, saved.value().stream, 2, 1 << 20).ok());
  EXPECT_EQ(DigestOf(*target), DigestOf(*memory));
}

TEST(PipelineTest, EveryFlippedByteIsAnErrorThatNamesItsFrame) {
  auto memory = Allocate({{0, 40 * kPageBytes}});
  FillRandomly(*memory, 5);
  auto saved = Save(memory, {.threads = 2});
  Saved& s = saved.value();
  const std::size_t memory_bytes = s.stream.size();
  CloseStream(&s);
  // One pool: under sanitizers a new mapping costs more than the load.
  const auto buffers = std::make_shared<BufferPool>();
  for (std::size_t i = 0; i < memory_bytes; i += kThrift * kThrift * (1 + i % 13)) {
    std::vector<std::uint8_t> damaged = s.stream;
    damaged[i] ^= static_cast<std::uint8_t>(1 << (i % 8));
    auto target = Allocate({{0, 40 * kPageBytes}});
    auto loaded = Load(target, damaged, 2, 1 << 20, {.buffers = buffers});
    ASSERT_FALSE(loaded.ok()) << "byte " << i;
    EXPECT_EQ(loaded.error().code, ErrorCode::kDigest) << "byte " << i;
    EXPECT_GE(i + kStartOffset, loaded.error().offset);
  }
}

TEST(PipelineTest, TheErrorReportedIsTheFirstOfTheStream) {
  auto memory = Allocate({{0, 16 << 20}});
  FillRandomly(*memory, 6);
  auto saved = Save(memory, {.encode = {.codec = BlockCodec::kRaw}, .threads = 2});
  std::vector<std::uint8_t>& stream = saved.value().stream;
  // Two damaged payloads and a damaged header behind them.
  const std::size_t first = stream.size() / 3;
  stream[first] ^= 1;
  stream[stream.size() / 2] ^= 1;
  stream[stream.size() - 100'000] ^= 1;
  for (int round = 0; round < 20; ++round) {
    auto loaded = Load(Allocate({{0, 16 << 20}}), stream, 3, 300'000);
    ASSERT_FALSE(loaded.ok());
    EXPECT_LE(loaded.error().offset, first + kStartOffset);
    EXPECT_GE(loaded.error().offset + 70'000, first + kStartOffset);
  }
}

TEST(PipelineTest, TruncationAtAnyByteIsAnError) {
  auto memory = Allocate({{0, 40 * kPageBytes}});
  FillRandomly(*memory, 5);
  auto saved = Save(memory, {.threads = 1});
  const std::vector<std::uint8_t>& stream = saved.value().stream;
  for (std::size_t cut = 0; cut < stream.size(); cut += kThrift * (1 + cut % 97)) {
    auto loaded = Load(Allocate({{0, 40 * kPageBytes}}), std::span(stream).first(cut), 2, 1 << 20);
    EXPECT_FALSE(loaded.ok()) << cut;
  }
}

TEST(PipelineTest, VerifyingDecodesEverythingIntoNothing) {
  auto memory = Allocate(kThreeRegions);
  FillRandomly(*memory, 21);
  auto saved = Save(memory, {.threads = 2});
  CloseStream(&saved.value());
  auto nothing = GuestMemory::Describe(kThreeRegions);
  auto loaded = Load(nothing.value(), saved.value().stream, 2, 1 << 20);
  ASSERT_TRUE(loaded.ok());
  EXPECT_EQ(loaded.value().totals.stored_pages, saved.value().totals.stored_pages);
}

// Each slab that is filled would wait for the consumer; few pages here and there fit into one.
TEST(PipelineTest, ScatteredPagesOfManyChunksNeedNoConsumer) {
  constexpr std::uint64_t kChunks = 64;
  const auto memory = Allocate({{0, kChunks * kChunkBytes}});
  auto changed = std::make_shared<DirtyBitmap>(memory->page_count());
  std::mt19937_64 random(5);
  for (std::uint64_t chunk = 0; chunk < kChunks; ++chunk) {
    const std::uint64_t page = chunk * kChunkPages + random() % kChunkPages;
    for (std::size_t i = 0; i < kPageBytes; i += 8) {
      Store<std::uint64_t>(memory->regions()[0].host + page * kPageBytes + i, random());
    }
    changed->Mark(page);
  }
  SaveOptions options{.position = Start(1), .threads = 2, .slab_count = 4, .changed = changed};
  auto started = SavePipeline::Start(memory, options, [] {});
  ASSERT_TRUE(started.ok());
  const std::unique_ptr<SavePipeline> pipeline = std::move(started.value());
  for (int i = 0; i < 3000 && !pipeline->AllDone(); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  ASSERT_TRUE(pipeline->AllDone());
  Saved packed{.stream = {}, .digests = {}, .groups = {}, .totals = {}, .epoch = 1};
  for (;;) {
    const SavePipeline::Polled polled = pipeline->Poll();
    if (polled.state == SavePipeline::State::kFinished) break;
    if (polled.state != SavePipeline::State::kSlabs) continue;
    for (const Slab* slab : polled.slabs) {
      packed.stream.insert(packed.stream.end(), slab->data + slab->begin,
                           slab->data + slab->begin + slab->bytes);
      packed.digests.insert(packed.digests.end(), slab->digests.begin(), slab->digests.end());
    }
    pipeline->Release(polled.slabs);
  }
  CloseStream(&packed);
  const auto target = Allocate({{0, kChunks * kChunkBytes}});
  auto loaded = Load(target, packed.stream, 2, 1 << 20, {.position = {.epoch = 1}});
  ASSERT_TRUE(loaded.ok());
  EXPECT_EQ(loaded.value().digests, packed.digests);
  EXPECT_EQ(DigestOf(*target), DigestOf(*memory));
}

}  // namespace
}  // namespace chkpt

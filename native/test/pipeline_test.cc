// SavePipeline and LoadPipeline together: what goes in comes out, whatever the threads, and nothing
// else does.
#include <gtest/gtest.h>

#include <chrono>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <random>
#include <thread>

#include "core/parallel/load_pipeline.h"
#include "core/parallel/save_pipeline.h"
#include "core/scan/memory_scan.h"

namespace chkpt {
namespace {

class Bell {
 public:
  std::function<void()> Ringer() {
    return [this] {
      const std::lock_guard lock(mutex_);
      rung_ = true;
      changed_.notify_all();
    };
  }
  void Wait() {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, std::chrono::seconds(30), [this] { return rung_; });
    rung_ = false;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool rung_ = false;
};

std::shared_ptr<GuestMemory> Allocate(std::vector<RegionSpec> specs,
                                      Backing backing = Backing::kAnonymous) {
  auto memory = GuestMemory::Allocate(specs, {.backing = backing});
  EXPECT_TRUE(memory.ok());
  return memory.value();
}

// Zero, fill, equal, compressible and random pages in a random mix, with untouched stretches.
void FillRandomly(GuestMemory& memory, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<std::uint8_t> common(kPageBytes, 0x5a);
  common[17] = 3;
  for (const Region& region : memory.regions()) {
    for (std::uint64_t page = 0; page < region.page_count();) {
      const std::uint64_t run =
          std::min<std::uint64_t>(1 + random() % 40, region.page_count() - page);
      const unsigned kind = static_cast<unsigned>(random() % 7);
      for (std::uint64_t i = page; i < page + run && kind != 0; ++i) {
        std::uint8_t* bytes = region.host + i * kPageBytes;
        if (kind == 1) std::memset(bytes, 0, kPageBytes);
        if (kind == 2) std::memset(bytes, static_cast<int>(random() % 255 + 1), kPageBytes);
        if (kind == 3) std::memcpy(bytes, common.data(), kPageBytes);
        if (kind == 4) {
          for (std::size_t b = 0; b < kPageBytes; ++b)
            bytes[b] = static_cast<std::uint8_t>(b * i >> 7);
        }
        if (kind >= 5) {
          for (std::size_t b = 0; b < kPageBytes; b += 8) {
            const std::uint64_t word = kind == 5 ? random() : random() & 0xff;
            std::memcpy(bytes + b, &word, 8);
          }
        }
      }
      page += run;
    }
  }
}

struct Saved {
  std::vector<std::uint8_t> stream;
  std::vector<std::uint64_t> digests;
  std::vector<IndexGroup> groups;
  PageTotals totals;
};

constexpr std::uint64_t kStartOffset = 4096;

StreamPosition Start() {
  StreamPosition position{.epoch = 3, .sequence = 7, .offset = kStartOffset};
  for (std::size_t i = 0; i < 16; ++i) position.uuid[i] = static_cast<std::uint8_t>(i * 17);
  return position;
}

Result<Saved> Save(std::shared_ptr<GuestMemory> memory, SaveOptions options) {
  Bell bell;
  options.position = Start();
  auto pipeline = SavePipeline::Start(std::move(memory), options, bell.Ringer());
  if (!pipeline.ok()) return pipeline.error();
  Saved saved;
  for (;;) {
    const SavePipeline::Polled polled = pipeline.value()->Poll();
    if (polled.state == SavePipeline::State::kPending) {
      bell.Wait();
    } else if (polled.state == SavePipeline::State::kSlabs) {
      for (const Slab* slab : polled.slabs) {
        saved.stream.insert(saved.stream.end(), slab->data + slab->begin,
                            slab->data + slab->begin + slab->bytes);
        saved.digests.insert(saved.digests.end(), slab->digests.begin(), slab->digests.end());
        saved.groups.insert(saved.groups.end(), slab->groups.begin(), slab->groups.end());
      }
      pipeline.value()->Release(polled.slabs);
    } else if (polled.state == SavePipeline::State::kFinished) {
      saved.totals = pipeline.value()->totals();
      return saved;
    } else {
      return polled.error;
    }
  }
}

// What follows guest memory in a stream: a CONTEXT_CLOSE.
void AppendForeignFrame(std::vector<std::uint8_t>* stream, StreamPosition position) {
  stream->resize(stream->size() + kFrameHeaderBytes);
  EncodeFrameHeader({.type = 2, .payload_digest = PayloadDigest({})}, position,
                    stream->data() + stream->size() - kFrameHeaderBytes);
}

struct Loaded {
  PageTotals totals;
  std::vector<std::uint64_t> digests;
  std::size_t leftover_bytes = 0;
};

Result<Loaded> Load(std::shared_ptr<GuestMemory> memory, std::span<const std::uint8_t> stream,
                    unsigned threads, std::size_t piece_bytes) {
  Bell bell;
  auto started = LoadPipeline::Start(std::move(memory), {.position = Start(), .threads = threads},
                                     bell.Ringer());
  if (!started.ok()) return started.error();
  LoadPipeline& pipeline = *started.value();
  Loaded loaded;
  std::optional<Error> push_error;
  bool ended = false;
  while (!ended && !push_error && !stream.empty()) {
    const auto taken = pipeline.TakeBuffer();
    if (!taken.ok()) return Error{};
    const std::optional<std::size_t> buffer = taken.value();
    if (!buffer) {
      bell.Wait();
      continue;
    }
    const std::size_t bytes = std::min({piece_bytes, stream.size(), LoadPipeline::kReadBytes});
    std::memcpy(pipeline.buffer(*buffer)->data() + LoadPipeline::kHeadroomBytes, stream.data(),
                bytes);
    stream = stream.subspan(bytes);
    auto pushed = pipeline.Push(*buffer, bytes);
    if (!pushed.ok()) {
      push_error = pushed.error();
      break;
    }
    loaded.digests.insert(loaded.digests.end(), pushed.value().digests.begin(),
                          pushed.value().digests.end());
    ended = pushed.value().ended;
    loaded.leftover_bytes = pushed.value().leftover_bytes;
  }
  if (!push_error) {
    Status end = pipeline.PushEnd();
    if (!end.ok()) push_error = end.error();
  }
  if (push_error) pipeline.StopInput();
  for (;;) {
    const LoadPipeline::Polled polled = pipeline.Poll();
    if (polled.state == LoadPipeline::State::kPending) {
      bell.Wait();
    } else if (polled.state == LoadPipeline::State::kFailed) {
      return polled.error;
    } else {
      break;
    }
  }
  if (push_error) return *push_error;
  loaded.totals = pipeline.totals();
  return loaded;
}

std::uint64_t DigestOf(const GuestMemory& memory) {
  const std::atomic<bool> cancelled{false};
  return DigestMemory(memory, 2, cancelled).value();
}

const std::vector<RegionSpec> kThreeRegions = {
    {0, 640 * 1024}, {0x100000, 7 * 1024 * 1024 + 20480}, {std::uint64_t{5} << 30, 24 << 20}};

TEST(PipelineTest, WhatIsSavedComesBackByteForByteWhateverCodecThreadsAndPieces) {
  for (const std::uint64_t seed : {1u, 2u, 3u}) {
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
        StreamPosition end = Start();
        end.sequence += s.digests.size();
        end.offset += s.stream.size();
        AppendForeignFrame(&s.stream, end);
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
    for (int round = 0; round < 5; ++round) {
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
  AppendForeignFrame(&saved.value().stream, {.uuid = Start().uuid,
                                             .epoch = 3,
                                             .sequence = 7 + saved.value().digests.size(),
                                             .offset = kStartOffset + saved.value().stream.size()});
  ASSERT_TRUE(Load(target, saved.value().stream, 2, 1 << 20).ok());
  EXPECT_EQ(DigestOf(*target), DigestOf(*memory));
}

TEST(PipelineTest, EveryFlippedByteIsAnErrorThatNamesItsFrame) {
  auto memory = Allocate({{0, 40 * kPageBytes}});
  FillRandomly(*memory, 5);
  auto saved = Save(memory, {.threads = 2});
  Saved& s = saved.value();
  StreamPosition end = Start();
  end.sequence += s.digests.size();
  end.offset += s.stream.size();
  const std::size_t memory_bytes = s.stream.size();
  AppendForeignFrame(&s.stream, end);
  for (std::size_t i = 0; i < memory_bytes; i += 1 + i % 13) {
    std::vector<std::uint8_t> damaged = s.stream;
    damaged[i] ^= static_cast<std::uint8_t>(1 << (i % 8));
    auto target = Allocate({{0, 40 * kPageBytes}});
    auto loaded = Load(target, damaged, 2, 1 << 20);
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
  for (std::size_t cut = 0; cut < stream.size(); cut += 1 + cut % 97) {
    auto loaded = Load(Allocate({{0, 40 * kPageBytes}}), std::span(stream).first(cut), 2, 1 << 20);
    EXPECT_FALSE(loaded.ok()) << cut;
  }
}

TEST(PipelineTest, CancelStopsAllThreadsSoonAtAnyMoment) {
  auto memory = Allocate({{0, 256 << 20}});
  FillRandomly(*memory, 8);
  std::mt19937_64 random(4);
  for (int round = 0; round < 40; ++round) {
    Bell bell;
    auto pipeline = SavePipeline::Start(memory, {.position = Start(), .threads = 4}, bell.Ringer());
    const auto deadline =
        std::chrono::steady_clock::now() + std::chrono::microseconds(random() % 20'000);
    while (std::chrono::steady_clock::now() < deadline) {
      const auto polled = pipeline.value()->Poll();
      if (polled.state == SavePipeline::State::kSlabs) pipeline.value()->Release(polled.slabs);
      if (polled.state == SavePipeline::State::kPending) std::this_thread::yield();
    }
    pipeline.value()->Cancel();
    pipeline.value()->Join();
    const auto polled = pipeline.value()->Poll();
    EXPECT_EQ(polled.state, SavePipeline::State::kFailed);
    EXPECT_EQ(polled.error.code, ErrorCode::kAborted);
  }
}

TEST(PipelineTest, ASaveOfMemoryThatIsWrittenMeanwhileIsSoundAndEveryPageIsOneOfItsVersions) {
  auto memory = Allocate({{0, 8 << 20}});
  std::atomic<bool> stop{false};
  // Each page holds one byte value; the writer changes whole pages word by word.
  std::thread writer([&] {
    std::uint64_t value = 1;
    while (!stop) {
      for (std::uint64_t page = 0; page < memory->page_count() && !stop; ++page) {
        auto* words =
            reinterpret_cast<std::uint64_t*>(memory->regions()[0].host + page * kPageBytes);
        for (std::size_t i = 0; i < kPageBytes / 8; ++i) {
          __atomic_store_n(words + i, 0x0101010101010101u * (value % 251), __ATOMIC_RELAXED);
        }
      }
      ++value;
    }
  });
  for (int round = 0; round < 20; ++round) {
    auto saved = Save(memory, {.threads = 2});
    ASSERT_TRUE(saved.ok());
    StreamPosition end = Start();
    end.sequence += saved.value().digests.size();
    end.offset += saved.value().stream.size();
    AppendForeignFrame(&saved.value().stream, end);
    auto target = Allocate({{0, 8 << 20}});
    ASSERT_TRUE(Load(target, saved.value().stream, 2, 1 << 20).ok());
  }
  stop = true;
  writer.join();
}

TEST(PipelineTest, VerifyingDecodesEverythingIntoNothing) {
  auto memory = Allocate(kThreeRegions);
  FillRandomly(*memory, 21);
  auto saved = Save(memory, {.threads = 2});
  StreamPosition end = Start();
  end.sequence += saved.value().digests.size();
  end.offset += saved.value().stream.size();
  AppendForeignFrame(&saved.value().stream, end);
  auto nothing = GuestMemory::Describe(kThreeRegions);
  auto loaded = Load(nothing.value(), saved.value().stream, 2, 1 << 20);
  ASSERT_TRUE(loaded.ok());
  EXPECT_EQ(loaded.value().totals.stored_pages, saved.value().totals.stored_pages);
}

}  // namespace
}  // namespace chkpt

// Saves and loads that something disturbs: a cancel at any moment, a guest that goes on writing.
#include <atomic>
#include <thread>

#include "test/pipeline_fixtures.h"

namespace chkpt {
namespace {

TEST(PipelineDisturbedTest, CancelStopsAllThreadsSoonAtAnyMoment) {
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

// Cancel comes from another thread, while this one pushes, waits for a buffer or has no more input.
TEST(PipelineDisturbedTest, CancelAtAnyMomentOfALoadEndsAllItsThreads) {
  const std::vector<RegionSpec> specs = {{0, 64 << 20}};
  auto memory = Allocate(specs);
  FillRandomly(*memory, 9);
  auto saved = Save(memory, {.threads = 2});
  ASSERT_TRUE(saved.ok());
  const std::vector<std::uint8_t>& stream = saved.value().stream;
  std::mt19937_64 random(7);
  for (int round = 0; round < 40; ++round) {
    auto started = LoadPipeline::Start(Allocate(specs), {.position = Start(), .threads = 4}, [] {});
    ASSERT_TRUE(started.ok());
    LoadPipeline& pipeline = *started.value();
    std::thread canceller([&pipeline, pause = std::chrono::microseconds(random() % 30'000)] {
      std::this_thread::sleep_for(pause);
      pipeline.Cancel();
    });
    // No PushEnd: whatever the moment, there is something left to cancel.
    std::size_t pushed = 0;
    while (pipeline.Poll().state == LoadPipeline::State::kPending) {
      const auto buffer = pushed < stream.size() ? pipeline.TakeBuffer().value() : std::nullopt;
      if (!buffer) {
        std::this_thread::yield();
        continue;
      }
      const std::size_t bytes =
          std::min<std::size_t>(1 + random() % (2 << 20), stream.size() - pushed);
      std::memcpy(pipeline.buffer(*buffer)->data() + LoadPipeline::kHeadroomBytes,
                  stream.data() + pushed, bytes);
      ASSERT_TRUE(pipeline.Push(*buffer, bytes).ok());
      pushed += bytes;
    }
    canceller.join();
    pipeline.Join();
    EXPECT_TRUE(pipeline.AllDone());
    const auto polled = pipeline.Poll();
    EXPECT_EQ(polled.state, LoadPipeline::State::kFailed);
    EXPECT_EQ(polled.error.code, ErrorCode::kAborted);
  }
}

// A guest that writes all its pages, word by word, again and again. A word tells in which pass it
// was written, twice, so that a torn one shows, and between them where it belongs.
class Writer {
 public:
  explicit Writer(GuestMemory& memory) : memory_(memory) {
    WritePass();
    thread_ = std::thread([this] {
      while (!stop_) WritePass();
    });
  }
  ~Writer() {
    stop_ = true;
    thread_.join();
  }
  Writer(const Writer&) = delete;
  Writer& operator=(const Writer&) = delete;

  // The pass under way: all words are of this one or of the one before.
  std::uint64_t pass() const { return pass_; }

  static std::uint64_t Word(std::uint64_t pass, std::uint64_t page, std::uint64_t word) {
    // A page of one word, one that equals others, and one that equals none.
    const std::uint64_t places[] = {0, word + 1, (page + 1) << 10 | word};
    return (pass & kPassMask) << 44 | places[page % 3] << 20 | (pass & kPassMask);
  }
  static bool IsOfPasses(std::uint64_t value, std::uint64_t page, std::uint64_t word,
                         std::uint64_t first, std::uint64_t last) {
    const std::uint64_t later = ((value & kPassMask) - first) & kPassMask;
    return value == Word(value, page, word) && later <= last - first;
  }

 private:
  static constexpr std::uint64_t kPassMask = (1u << 20) - 1;

  void WritePass() {
    const std::uint64_t pass = ++pass_;
    for (std::uint64_t page = 0; page < memory_.page_count() && !stop_; ++page) {
      auto* words = reinterpret_cast<std::uint64_t*>(memory_.regions()[0].host + page * kPageBytes);
      for (std::size_t i = 0; i < kPageBytes / 8; ++i) {
        __atomic_store_n(words + i, Word(pass, page, i), __ATOMIC_RELAXED);
      }
    }
  }

  GuestMemory& memory_;
  std::atomic<std::uint64_t> pass_{0};
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

// A page may be a mixture, as the guest itself could have seen it; a word may not.
TEST(PipelineDisturbedTest, EveryWordSavedWhileItIsWrittenIsOneThatStoodThereDuringTheSave) {
  const std::vector<RegionSpec> specs = {{0, 8 << 20}};
  auto memory = Allocate(specs);
  const Writer writer(*memory);
  for (int round = 0; round < 20 / kThrift; ++round) {
    const BlockCodec codec = round % 2 == 0 ? BlockCodec::kLz4 : BlockCodec::kRaw;
    const std::uint64_t first = writer.pass() - 1;
    auto saved = Save(memory, {.encode = {.codec = codec, .dedup = round % 4 < 2}, .threads = 2});
    const std::uint64_t last = writer.pass();
    ASSERT_TRUE(saved.ok());
    CloseStream(&saved.value());
    auto target = Allocate(specs);
    ASSERT_TRUE(Load(target, saved.value().stream, 2, 1 << 20).ok());
    for (std::uint64_t page = 0; page < target->page_count(); ++page) {
      std::uint64_t words[kPageBytes / 8];
      std::memcpy(words, target->regions()[0].host + page * kPageBytes, kPageBytes);
      for (std::uint64_t i = 0; i < kPageBytes / 8; ++i) {
        ASSERT_TRUE(Writer::IsOfPasses(words[i], page, i, first, last))
            << "page " << page << " word " << i << ": " << std::hex << words[i];
      }
    }
  }
}

}  // namespace
}  // namespace chkpt

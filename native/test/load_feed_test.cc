// LoadPipeline fed from a file: what a caller would have pushed, and every end of it.
#include <sys/mman.h>
#include <unistd.h>

#include <thread>

#include "test/pipeline_fixtures.h"

namespace chkpt {
namespace {

constexpr std::uint64_t kFileStart = 4097;

OwnedFd FileOf(std::span<const std::uint8_t> stream) {
  OwnedFd file(::memfd_create("input", MFD_CLOEXEC));
  EXPECT_TRUE(WriteAll(file.get(), kFileStart, stream).ok());
  return file;
}

struct FedLoad {
  std::vector<std::uint64_t> digests;
  std::vector<std::uint8_t> leftover;
  std::uint64_t bytes = 0;
  bool ended = false;
  std::optional<Error> push_error;
  std::optional<Error> load_error;  // of Poll
  PageTotals totals;
};

FedLoad FeedAll(std::shared_ptr<GuestMemory> memory, const OwnedFd& file, std::uint64_t bytes,
                unsigned threads, std::size_t read_bytes) {
  Bell bell;
  LoadOptions options{.position = Start(0), .threads = threads, .read_bytes = read_bytes};
  auto started = LoadPipeline::Start(std::move(memory), options, bell.Ringer());
  EXPECT_TRUE(started.ok());
  LoadPipeline& pipeline = *started.value();
  FedLoad load;
  EXPECT_TRUE(pipeline.Feed(file.get(), kFileStart, bytes).ok());
  for (bool over = false; !over;) {
    std::optional<LoadPipeline::Fed> fed = pipeline.PollFed();
    if (!fed) {
      bell.Wait();
      continue;
    }
    load.digests.insert(load.digests.end(), fed->digests.begin(), fed->digests.end());
    load.bytes += fed->bytes;
    load.ended = fed->ended;
    load.leftover = fed->leftover;
    load.push_error = fed->error;
    over = fed->over;
  }
  if (load.ended) {
    EXPECT_TRUE(pipeline.PushEnd().ok());
  } else {
    pipeline.StopInput();
  }
  for (;;) {
    const LoadPipeline::Polled polled = pipeline.Poll();
    if (polled.state == LoadPipeline::State::kFailed) load.load_error = polled.error;
    if (polled.state != LoadPipeline::State::kPending) break;
    bell.Wait();
  }
  load.totals = pipeline.totals();
  return load;
}

class LoadFeedTest : public ::testing::Test {
 protected:
  void SetUp() override {
    memory_ = Allocate(kThreeRegions);
    FillRandomly(*memory_, 31);
    auto saved = Save(memory_, {.threads = 2});
    ASSERT_TRUE(saved.ok());
    saved_ = std::move(saved.value());
    CloseStream(&saved_);
  }

  std::shared_ptr<GuestMemory> memory_;
  Saved saved_;
};

TEST_F(LoadFeedTest, MemoryIsWhatWasSavedWhateverThreadsAndReads) {
  const OwnedFd file = FileOf(saved_.stream);
  for (const unsigned threads : {1u, 3u}) {
    for (const std::size_t read_bytes : {std::size_t{0}, std::size_t{100'003}}) {
      auto target = Allocate(kThreeRegions);
      const FedLoad load = FeedAll(target, file, saved_.stream.size() + 100, threads, read_bytes);
      EXPECT_TRUE(load.ended);
      EXPECT_FALSE(load.load_error);
      EXPECT_EQ(load.digests, saved_.digests);
      EXPECT_EQ(load.bytes, saved_.stream.size());
      EXPECT_EQ(load.leftover.size(), kFrameHeaderBytes);
      EXPECT_EQ(load.totals.encoded_bytes, saved_.totals.encoded_bytes);
      EXPECT_EQ(DigestOf(*target), DigestOf(*memory_));
    }
  }
}

TEST_F(LoadFeedTest, AStretchOrAFileThatEndsEarlyIsOverAndNotEnded) {
  const std::uint64_t half = saved_.stream.size() / 2;
  const OwnedFd whole = FileOf(saved_.stream);
  const OwnedFd cut = FileOf(std::span(saved_.stream).first(half));
  for (const auto& [file, bytes] : {std::pair(&whole, half), std::pair(&cut, saved_.stream.size()),
                                    std::pair(&whole, std::uint64_t{0})}) {
    const FedLoad load = FeedAll(Allocate(kThreeRegions), *file, bytes, 2, 0);
    EXPECT_FALSE(load.ended);
    EXPECT_FALSE(load.push_error);
    EXPECT_EQ(load.bytes, std::min<std::uint64_t>(bytes, half));
  }
}

TEST_F(LoadFeedTest, DamageIsThatOfTheFirstFrameWhereverItIsFound) {
  std::mt19937_64 random(3);
  for (int round = 0; round < 40 / kThrift; ++round) {
    std::vector<std::uint8_t> stream = saved_.stream;
    const std::size_t first = random() % (stream.size() - kFrameHeaderBytes);
    stream[first] ^= 1;
    const OwnedFd file = FileOf(stream);
    auto pushed = Load(Allocate(kThreeRegions), stream, 2, LoadPipeline::kReadBytes);
    const FedLoad load = FeedAll(Allocate(kThreeRegions), file, stream.size(), 2, 0);
    ASSERT_FALSE(pushed.ok());
    const Error& expected = pushed.error();
    const Error found = load.load_error ? *load.load_error : load.push_error.value_or(Error{});
    EXPECT_EQ(found.code, expected.code) << first;
    EXPECT_EQ(found.frame, expected.frame) << first;
  }
}

TEST_F(LoadFeedTest, ACancelledLoadEndsAtAnyMoment) {
  const OwnedFd file = FileOf(saved_.stream);
  std::mt19937_64 random(9);
  for (int round = 0; round < 60 / kThrift; ++round) {
    Bell bell;
    LoadOptions options{.position = Start(0), .threads = 2, .read_bytes = 65'536};
    auto pipeline = LoadPipeline::Start(Allocate(kThreeRegions), options, bell.Ringer());
    ASSERT_TRUE(pipeline.value()->Feed(file.get(), kFileStart, saved_.stream.size()).ok());
    std::this_thread::sleep_for(std::chrono::microseconds(random() % 4000));
    pipeline.value()->Cancel();
    while (!pipeline.value()->AllDone()) bell.Wait();
  }
}

}  // namespace
}  // namespace chkpt

// SavePipeline with an output: what its threads write themselves is what a caller would have been
// given, in its place, and a write that fails ends the save.
#include <fcntl.h>
#include <sys/mman.h>

#include <thread>

#include "core/base/owned_fd.h"
#include "test/pipeline_fixtures.h"

namespace chkpt {
namespace {

constexpr std::uint64_t kOutputStart = 12'345;

OwnedFd MakeFile() { return OwnedFd(::memfd_create("output", MFD_CLOEXEC)); }

std::vector<std::uint8_t> Content(int fd, std::uint64_t offset) {
  const off_t end = ::lseek(fd, 0, SEEK_END);
  std::vector<std::uint8_t> bytes(static_cast<std::size_t>(end) - offset);
  EXPECT_TRUE(ReadAll(fd, offset, bytes).ok());
  return bytes;
}

Result<Saved> SaveInto(std::shared_ptr<GuestMemory> memory, SaveOptions options,
                       std::shared_ptr<const SlabOutput> output, bool* of_output = nullptr) {
  Bell bell;
  options.position = Start(options.position.epoch);
  options.output = std::move(output);
  auto pipeline = SavePipeline::Start(std::move(memory), options, bell.Ringer());
  if (!pipeline.ok()) return pipeline.error();
  Saved saved;
  std::uint64_t bytes = 0;
  for (;;) {
    SavePipeline::Polled polled = pipeline.value()->Poll();
    if (polled.state == SavePipeline::State::kPending) {
      bell.Wait();
    } else if (polled.state == SavePipeline::State::kWritten) {
      const SavePipeline::Written& written = polled.written;
      bytes += written.bytes;
      saved.digests.insert(saved.digests.end(), written.digests.begin(), written.digests.end());
      saved.groups.insert(saved.groups.end(), written.groups.begin(), written.groups.end());
    } else if (polled.state == SavePipeline::State::kFinished) {
      saved.totals = pipeline.value()->totals();
      saved.stream.resize(bytes);
      return saved;
    } else {
      if (of_output != nullptr) *of_output = polled.output_failed;
      return polled.error;
    }
  }
}

TEST(PipelineOutputTest, IsWhatACallerWouldHaveBeenGivenWhateverThreadsAndSlabs) {
  auto memory = Allocate(kThreeRegions);
  FillRandomly(*memory, 21);
  for (const BlockCodec codec : {BlockCodec::kRaw, BlockCodec::kLz4}) {
    const bool dedup = codec == BlockCodec::kLz4;
    auto reference = Save(memory, {.encode = {.codec = codec, .dedup = dedup}, .threads = 2});
    ASSERT_TRUE(reference.ok());
    for (const unsigned threads : {1u, 2u, 5u}) {
      for (const unsigned slabs : {0u, threads + 1}) {
        const OwnedFd file = MakeFile();
        auto output = SlabOutput::Open(file.get(), kOutputStart);
        ASSERT_TRUE(output.ok());
        auto saved = SaveInto(
            memory,
            {.encode = {.codec = codec, .dedup = dedup}, .threads = threads, .slab_count = slabs},
            output.value());
        ASSERT_TRUE(saved.ok()) << saved.error().message;
        EXPECT_EQ(Content(file.get(), kOutputStart), reference.value().stream);
        EXPECT_EQ(saved.value().stream.size(), reference.value().stream.size());
        EXPECT_EQ(saved.value().digests, reference.value().digests);
        EXPECT_EQ(saved.value().groups.size(), reference.value().groups.size());
        EXPECT_EQ(saved.value().totals.encoded_bytes, reference.value().totals.encoded_bytes);
      }
    }
  }
}

// Each chunk has a page or two: they share slabs, some of which wait for more to come.
TEST(PipelineOutputTest, FewPagesOfEachChunkArriveInTheirPlace) {
  auto memory = Allocate({{0, 256 * kChunkPages * kPageBytes}});
  std::mt19937_64 random(5);
  for (std::uint64_t chunk = 0; chunk < 256; ++chunk) {
    const std::uint64_t page = chunk * kChunkPages + random() % kChunkPages;
    std::uint8_t* bytes = memory->regions()[0].host + page * kPageBytes;
    for (std::size_t b = 0; b < kPageBytes; ++b) bytes[b] = static_cast<std::uint8_t>(random());
  }
  memory->MarkUsed();
  auto reference = Save(memory, {.threads = 1});
  ASSERT_TRUE(reference.ok());
  for (const unsigned threads : {1u, 3u}) {
    for (int round = 0; round < 20 / kThrift; ++round) {
      const OwnedFd file = MakeFile();
      auto saved = SaveInto(memory, {.threads = threads, .slab_count = threads + 1},
                            SlabOutput::Open(file.get(), 0).value());
      ASSERT_TRUE(saved.ok());
      EXPECT_EQ(Content(file.get(), 0), reference.value().stream);
    }
  }
}

TEST(PipelineOutputTest, ThrownAwayItTellsTheSame) {
  auto memory = Allocate(kThreeRegions);
  FillRandomly(*memory, 22);
  auto reference = Save(memory, {.threads = 2});
  auto saved = SaveInto(memory, {.threads = 2}, SlabOutput::Discard());
  ASSERT_TRUE(saved.ok());
  EXPECT_EQ(saved.value().digests, reference.value().digests);
  EXPECT_EQ(saved.value().stream.size(), reference.value().stream.size());
}

TEST(PipelineOutputTest, TheDescriptorMayBeClosedMeanwhile) {
  auto memory = Allocate(kThreeRegions);
  FillRandomly(*memory, 23);
  OwnedFd file = MakeFile();
  const OwnedFd kept(::dup(file.get()));
  auto output = SlabOutput::Open(file.get(), 0);
  file = OwnedFd();
  auto saved = SaveInto(memory, {.threads = 2}, output.value());
  ASSERT_TRUE(saved.ok());
  EXPECT_EQ(Content(kept.get(), 0).size(), saved.value().stream.size());
}

TEST(PipelineOutputTest, AFullDiskEndsTheSaveWithTheErrnoOfTheWrite) {
  auto memory = Allocate(kThreeRegions);
  FillRandomly(*memory, 24);
  const OwnedFd full(::open("/dev/full", O_WRONLY | O_CLOEXEC));
  ASSERT_GE(full.get(), 0);
  for (const unsigned threads : {1u, 4u}) {
    bool of_output = false;
    auto saved =
        SaveInto(memory, {.threads = threads}, SlabOutput::Open(full.get(), 0).value(), &of_output);
    ASSERT_FALSE(saved.ok());
    EXPECT_EQ(saved.error().code, ErrorCode::kNoSpace);
    EXPECT_EQ(saved.error().system_errno, ENOSPC);
    EXPECT_TRUE(of_output);
  }
}

TEST(PipelineOutputTest, NothingIsWrittenAfterACancelledSaveHasEnded) {
  auto memory = Allocate(kThreeRegions);
  FillRandomly(*memory, 25);
  std::mt19937_64 random(7);
  for (int round = 0; round < 50 / kThrift; ++round) {
    const OwnedFd file = MakeFile();
    Bell bell;
    SaveOptions options{
        .position = Start(0), .threads = 2, .output = SlabOutput::Open(file.get(), 0).value()};
    auto pipeline = SavePipeline::Start(memory, options, bell.Ringer());
    ASSERT_TRUE(pipeline.ok());
    std::this_thread::sleep_for(std::chrono::microseconds(random() % 3000));
    pipeline.value()->Cancel();
    pipeline.value()->Join();
    ASSERT_EQ(::ftruncate(file.get(), 0), 0);
    pipeline.value().reset();
    EXPECT_EQ(Content(file.get(), 0).size(), 0u);
  }
}

TEST(PipelineOutputTest, ADescriptorThatIsNotOpenIsAnError) {
  EXPECT_EQ(SlabOutput::Open(1 << 20, 0).error().system_errno, EBADF);
}

}  // namespace
}  // namespace chkpt

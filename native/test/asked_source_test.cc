// AskedSource: threads ask, the owner answers in any order, and nobody is left waiting.
#include "core/lazy/asked_source.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "core/lazy/lazy_loader.h"
#include "test/lazy_fixtures.h"

namespace chkpt {
namespace {

// The owner: answers on a thread of its own, out of bytes, the last request first.
class Owner {
 public:
  explicit Owner(std::vector<std::uint8_t> bytes)
      : bytes_(std::move(bytes)),
        source_(std::make_shared<AskedSource>(bytes_.size(), bell_.Ringer())) {}
  ~Owner() { Stop(); }

  void Start() {
    thread_ = std::thread([this] {
      while (!source_->is_cancelled()) {
        Answer();
        bell_.Wait();
      }
    });
  }
  void Answer() {
    const auto requests = source_->Take();
    for (auto one = requests.rbegin(); one != requests.rend(); ++one) {
      most_bytes = std::max(most_bytes, one->bytes);
      ++count;
      EXPECT_TRUE(source_->Answer(one->id, std::span(bytes_).subspan(one->offset, one->bytes)));
    }
  }
  void Stop() {
    source_->Cancel();
    if (thread_.joinable()) thread_.join();
  }
  AskedSource::Request WaitForOne() {
    for (;;) {
      if (const auto requests = source_->Take(); !requests.empty()) return requests[0];
      bell_.Wait();
    }
  }
  AskedSource& source() { return *source_; }
  std::shared_ptr<AskedSource> shared() { return source_; }

  std::uint64_t most_bytes = 0;
  std::uint64_t count = 0;

 private:
  Bell bell_;
  std::vector<std::uint8_t> bytes_;
  std::shared_ptr<AskedSource> source_;
  std::thread thread_;
};

std::vector<std::uint8_t> AskedBytes(std::size_t count) {
  std::vector<std::uint8_t> bytes(count);
  for (std::size_t i = 0; i < count; ++i) bytes[i] = static_cast<std::uint8_t>(i * 7 + i / 251);
  return bytes;
}

TEST(AskedSourceTest, ManyThreadsGetWhatTheyAskForAndNoRequestIsLong) {
  const std::vector<std::uint8_t> bytes = AskedBytes(10 << 20);
  Owner owner(bytes);
  owner.Start();
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < 4; ++i) {
    threads.emplace_back([&, i] {
      for (std::size_t k = 0; k < 50; ++k) {
        std::vector<std::uint8_t> target(1000 + 77 * k);
        const std::uint64_t offset = i * 1'000'003 + k * 4099;
        ASSERT_TRUE(owner.source().Read(offset, target).ok());
        ASSERT_TRUE(std::equal(target.begin(), target.end(),
                               bytes.begin() + static_cast<std::ptrdiff_t>(offset)));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  std::vector<std::uint8_t> all(bytes.size());
  ASSERT_TRUE(owner.source().Read(0, all).ok());
  EXPECT_EQ(all, bytes);
  owner.Stop();
  EXPECT_EQ(owner.most_bytes, AskedSource::kRequestBytesMax);
}

TEST(AskedSourceTest, WhatIsBehindTheEndIsNotAskedForAndAShortAnswerIsTheEnd) {
  Owner owner(AskedBytes(1000));
  std::uint8_t target[100] = {};
  Status behind = owner.source().Read(901, target);
  ASSERT_FALSE(behind.ok());
  EXPECT_EQ(behind.error().code, ErrorCode::kTruncated);
  EXPECT_TRUE(owner.source().Take().empty());
  Status cut = Ok();
  std::thread reader([&] { cut = owner.source().Read(900, target); });
  const AskedSource::Request request = owner.WaitForOne();
  EXPECT_EQ(request.offset, 900u);
  EXPECT_EQ(request.bytes, 100u);
  const std::uint8_t more[101] = {};
  EXPECT_FALSE(owner.source().Answer(request.id, more));
  EXPECT_TRUE(owner.source().Answer(request.id, std::span(more).first(60)));
  reader.join();
  ASSERT_FALSE(cut.ok());
  EXPECT_EQ(cut.error().code, ErrorCode::kTruncated);
  EXPECT_EQ(cut.error().offset, 960u);
  // Nobody waits for it any more.
  EXPECT_TRUE(owner.source().Answer(request.id, more));
}

TEST(AskedSourceTest, ARefusalIsToldAndCancellingEndsWhoeverWaitsAndWhoeverComes) {
  Owner owner(AskedBytes(1000));
  std::uint8_t target[10] = {};
  Status refused = Ok();
  std::thread reader([&] { refused = owner.source().Read(5, target); });
  owner.source().Refuse(owner.WaitForOne().id, {.code = ErrorCode::kIo, .message = "gone"});
  reader.join();
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, ErrorCode::kIo);
  EXPECT_EQ(refused.error().offset, 5u);
  Status aborted = Ok();
  std::thread waiting([&] { aborted = owner.source().Read(5, target); });
  static_cast<void>(owner.WaitForOne());
  owner.source().Cancel();
  waiting.join();
  ASSERT_FALSE(aborted.ok());
  EXPECT_EQ(aborted.error().code, ErrorCode::kAborted);
  EXPECT_EQ(owner.source().Read(5, target).error().code, ErrorCode::kAborted);
}

TEST(AskedSourceTest, ALazyLoadOverItIsTheCheckpointWithFewerRequestsThanBlocks) {
  auto userfault = Userfault::Open();
  if (!userfault.ok()) GTEST_SKIP() << "no userfaultfd: " << userfault.error().message;
  const Saving saving = SaveToFile(BlockCodec::kLz4, 61);
  std::vector<std::uint8_t> bytes(EndOf(saving));
  ASSERT_TRUE(FileOf(saving)->Read(0, bytes).ok());
  for (const bool asks : {false, true}) {
    Owner owner(bytes);
    owner.Start();
    Bell bell;
    auto memory = Allocate(kRegions);
    std::vector<LazyLayer> layers;
    layers.push_back(LayerOf(saving, FileOf(saving)));
    if (asks) layers[0].source = owner.shared();
    auto loader = LazyLoader::Start(memory, std::move(layers), {.walk = false}, bell.Ringer());
    ASSERT_TRUE(loader.ok());
    const auto wait_for = [&](LazyLoader::Stage stage) {
      while (loader.value()->stage() < stage) bell.Wait();
      return loader.value()->stage();
    };
    ASSERT_EQ(wait_for(LazyLoader::Stage::kPrepared), LazyLoader::Stage::kPrepared);
    loader.value()->Arm();
    ASSERT_EQ(wait_for(LazyLoader::Stage::kResident), LazyLoader::Stage::kResident);
    EXPECT_TRUE(loader.value()->IsHere(0, 5 << 20));
    EXPECT_EQ(DigestOf(*memory), saving.digest);
    const std::uint64_t blocks = loader.value()->counts().blocks;
    loader.value().reset();
    owner.Stop();
    if (asks) {
      EXPECT_LT(owner.count, blocks);
    }
  }
}

}  // namespace
}  // namespace chkpt

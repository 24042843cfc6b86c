// Clones of one image: each is the checkpoint, however many they are; it is decoded once, what one
// writes no other sees, and damage is never content.
#include "core/lazy/shared_image.h"

#include <sys/stat.h>
#include <sys/syscall.h>

#include <cstdio>
#include <fstream>
#include <thread>

#include "test/lazy_fixtures.h"

namespace chkpt {
namespace {

class SharedImageTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto userfault = Userfault::Open();
    if (!userfault.ok()) GTEST_SKIP() << "no userfaultfd: " << userfault.error().message;
  }
};

struct Image {
  std::unique_ptr<Bell> bell = std::make_unique<Bell>();
  std::shared_ptr<SharedImage> image = nullptr;

  LazyLoader::Stage WaitBeyond(LazyLoader::Stage stage) {
    while (image->loader().stage() <= stage) bell->Wait();
    return image->loader().stage();
  }
  std::shared_ptr<GuestMemory> Clone() {
    auto clone = image->Clone(0);
    EXPECT_TRUE(clone.ok()) << clone.error().message;
    return clone.value();
  }
};

Image OpenImage(const Saving& saving, std::uint64_t fill_delay_ms,
                const std::vector<RegionSpec>& regions = kRegions) {
  Image opened;
  std::vector<LazyLayer> layers;
  layers.push_back(LayerOf(saving, FileOf(saving)));
  auto image =
      SharedImage::Start(regions, std::move(layers),
                         {.fill_delay_ms = fill_delay_ms, .walk = false}, opened.bell->Ringer());
  EXPECT_TRUE(image.ok()) << image.error().message;
  opened.image = std::move(image.value());
  EXPECT_EQ(opened.WaitBeyond(LazyLoader::Stage::kPreparing), LazyLoader::Stage::kPrepared);
  opened.image->loader().Arm();
  opened.WaitBeyond(LazyLoader::Stage::kArming);
  return opened;
}

// Bytes of memory of its own in a range of this process.
std::uint64_t PrivateBytes(const GuestMemory& memory) {
  std::uint64_t kilobytes = 0;
  std::ifstream smaps("/proc/self/smaps");
  bool inside = false;
  for (std::string line; std::getline(smaps, line);) {
    unsigned long start = 0;
    unsigned long end = 0;
    unsigned long count = 0;
    if (std::sscanf(line.c_str(), "%lx-%lx ", &start, &end) == 2) {
      inside = false;
      for (const Region& region : memory.regions()) {
        const auto host = reinterpret_cast<std::uintptr_t>(region.host);
        inside = inside || (start >= host && end <= host + region.bytes);
      }
    } else if (inside && std::sscanf(line.c_str(), "Anonymous: %lu kB", &count) == 1) {
      kilobytes += count;
    }
  }
  return kilobytes << 10;
}

TEST_F(SharedImageTest, ManyClonesAreTheCheckpointAndItIsDecodedOnceAndTakesItsMemoryOnce) {
  const Saving saving = SaveToFile(BlockCodec::kLz4, 51);
  for (const std::uint64_t fill_delay_ms : {0, 60'000}) {
    Image image = OpenImage(saving, fill_delay_ms);
    std::vector<std::shared_ptr<GuestMemory>> clones;
    for (int i = 0; i < 100 / kThrift; ++i) clones.push_back(image.Clone());
    std::vector<std::thread> guests;
    for (std::size_t i = 0; i < 3; ++i) {
      guests.emplace_back([&, i] {
        for (std::size_t k = i; k < clones.size(); k += 3) {
          EXPECT_EQ(DigestOf(*clones[k]), saving.digest);
        }
      });
    }
    for (std::thread& guest : guests) guest.join();
    EXPECT_EQ(image.WaitBeyond(LazyLoader::Stage::kServing), LazyLoader::Stage::kResident);
    const LazyLoader::Counts counts = image.image->loader().counts();
    EXPECT_EQ(counts.missing, 0u);
    EXPECT_LE(counts.fault_blocks, counts.blocks);
    if (fill_delay_ms != 0) {
      EXPECT_EQ(counts.fault_blocks, counts.blocks);
    }
    for (const auto& clone : clones) ASSERT_EQ(PrivateBytes(*clone), 0u);
    EXPECT_EQ(DigestOf(*image.Clone()), saving.digest);  // made when all is there
  }
}

TEST_F(SharedImageTest, WhatACloneWritesIsItsOwnUntilItIsReset) {
  const Saving saving = SaveToFile(BlockCodec::kRaw, 52);
  Image image = OpenImage(saving, 60'000);
  const auto writer = image.Clone();
  const auto reader = image.Clone();
  // Pages that are there, pages that are not, and pages of zeros.
  for (const Region& region : writer->regions()) {
    for (std::uint64_t at = 100; at < region.bytes; at += 3 * kPageBytes) region.host[at] ^= 0xff;
  }
  EXPECT_NE(DigestOf(*writer), saving.digest);
  EXPECT_EQ(DigestOf(*reader), saving.digest);
  for (std::size_t r = 0; r < writer->regions().size(); ++r) {
    const Region& region = writer->regions()[r];
    const std::uint8_t* expected = saving.memory->regions()[r].host;
    for (std::uint64_t at = 0; at < region.bytes; ++at) {
      const bool was_written = at % (3 * kPageBytes) == 100;
      ASSERT_EQ(region.host[at], was_written ? expected[at] ^ 0xff : expected[at]) << at;
    }
  }
  EXPECT_GT(PrivateBytes(*writer), 0u);
  ASSERT_TRUE(writer->ResetClone().ok());
  EXPECT_EQ(PrivateBytes(*writer), 0u);
  EXPECT_EQ(DigestOf(*writer), saving.digest);
  // Zeroing is a write like any other: nothing of the image goes.
  ASSERT_TRUE(writer->Zero(writer->regions()[1].pages()).ok());
  EXPECT_EQ(DigestOf(*reader), saving.digest);
}

TEST_F(SharedImageTest, DamageHoldsEveryCloneThatTouchesItAndIsContentOfNone) {
  const std::vector<RegionSpec> regions = {{0, 1 << 20}};
  const Saving saving = SaveToFile(BlockCodec::kRaw, 53, regions);
  Image image = OpenImage(saving, 60'000, regions);
  std::vector<std::shared_ptr<GuestMemory>> clones = {image.Clone(), image.Clone()};
  ASSERT_EQ(::ftruncate(saving.file->fd(), 0), 0);
  std::atomic<int> done{0};
  std::vector<std::thread> guests;
  for (const auto& clone : clones) {
    guests.emplace_back([&, host = clone->regions()[0].host] {
      for (std::uint64_t at = 0; at < 1 << 20; at += kPageBytes) {
        const std::uint8_t expected = saving.memory->regions()[0].host[at];
        const std::uint8_t actual = *const_cast<const volatile std::uint8_t*>(host + at);
        EXPECT_TRUE(actual == expected || actual == LazyLoader::kDamagePattern);
      }
      ++done;
    });
  }
  EXPECT_EQ(image.WaitBeyond(LazyLoader::Stage::kServing), LazyLoader::Stage::kFailed);
  EXPECT_EQ(image.image->loader().error().code, ErrorCode::kTruncated);
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_EQ(done, 0);
  image.image->Release(*clones[0]);
  while (done == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  EXPECT_EQ(done, 1);
  image.image->Release(*clones[1]);
  for (std::thread& guest : guests) guest.join();
  // Who has to take note of it is not held.
  auto mine = image.image->Clone(static_cast<std::uint32_t>(::syscall(SYS_gettid)));
  ASSERT_TRUE(mine.ok());
  bool found = false;
  for (std::uint64_t at = 0; at < 1 << 20; at += kPageBytes) {
    found = found || mine.value()->regions()[0].host[at] == LazyLoader::kDamagePattern;
  }
  EXPECT_TRUE(found);
}

TEST_F(SharedImageTest, ACloneThatWasReleasedHoldsItsNextGuestAgain) {
  const std::vector<RegionSpec> regions = {{0, 1 << 20}};
  const Saving saving = SaveToFile(BlockCodec::kRaw, 55, regions);
  Image image = OpenImage(saving, 60'000, regions);
  const auto clone = image.Clone();
  image.image->Release(*clone);
  ASSERT_EQ(::ftruncate(saving.file->fd(), 0), 0);
  const auto touch = [host = clone->regions()[0].host](std::uint64_t block) {
    return *const_cast<const volatile std::uint8_t*>(host + block * kBlockBytes);
  };
  std::uint64_t damaged = 0;  // the first block that is not zeros
  while (image.image->loader().IsZero(damaged)) ++damaged;
  std::thread([&] { EXPECT_EQ(touch(damaged), LazyLoader::kDamagePattern); }).join();
  ASSERT_TRUE(clone->ResetClone().ok());
  image.image->Hold(*clone);
  std::atomic<bool> done{false};
  std::thread guest([&] {
    EXPECT_EQ(touch(damaged), LazyLoader::kDamagePattern);
    done = true;
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_FALSE(done);
  image.image->Release(*clone);
  guest.join();
}

TEST_F(SharedImageTest, ItLivesAsLongAsItsClonesAndEndsAtAnyMoment) {
  const Saving saving = SaveToFile(BlockCodec::kLz4, 54);
  const int before = CountDescriptors();
  {
    Image image = OpenImage(saving, 60'000);
    auto clone = image.Clone();
    image.image.reset();
    EXPECT_EQ(DigestOf(*clone), saving.digest);
  }
  EXPECT_EQ(CountDescriptors(), before);
  for (int i = 0; i < 6; ++i) {
    Image image = OpenImage(saving, 60'000);
    auto clone = image.Clone();
    std::thread guest([&] { static_cast<void>(DigestOf(*clone)); });
    std::this_thread::sleep_for(std::chrono::microseconds(500 * i));
    image.image->Cancel();
    image.image->Join();
    guest.join();  // with zeros
    EXPECT_FALSE(image.image->Clone(0).ok());
  }
  EXPECT_EQ(CountDescriptors(), before);
}

}  // namespace
}  // namespace chkpt

// Lazy loads: memory that is fetched when it is touched is the memory that was saved, whoever
// touches it and whatever else happens; and damage is never content.
#include "core/lazy/lazy_loader.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <thread>

#include "test/lazy_fixtures.h"

namespace chkpt {
namespace {

class LazyLoaderTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto userfault = Userfault::Open();
    if (!userfault.ok()) GTEST_SKIP() << "no userfaultfd: " << userfault.error().message;
  }
};

struct Lazy {
  std::shared_ptr<GuestMemory> memory;
  std::unique_ptr<Bell> bell = std::make_unique<Bell>();
  std::unique_ptr<LazyLoader> loader = nullptr;

  LazyLoader::Stage WaitBeyond(LazyLoader::Stage stage) {
    while (loader->stage() <= stage) bell->Wait();
    return loader->stage();
  }
};

// The walk checks sequence numbers from 0 on; these streams begin with another one.
Lazy Begin(std::vector<LazyLayer> layers, std::shared_ptr<GuestMemory> memory,
           LazyOptions options = {}) {
  Lazy lazy{.memory = std::move(memory)};
  options.walk = false;
  auto loader =
      LazyLoader::Start(lazy.memory, std::move(layers), std::move(options), lazy.bell->Ringer());
  EXPECT_TRUE(loader.ok()) << loader.error().message;
  lazy.loader = std::move(loader.value());
  if (lazy.WaitBeyond(LazyLoader::Stage::kPreparing) == LazyLoader::Stage::kPrepared) {
    lazy.loader->Arm();
    lazy.WaitBeyond(LazyLoader::Stage::kArming);
  }
  return lazy;
}

Lazy Begin(LazyLayer layer, std::shared_ptr<GuestMemory> memory, LazyOptions options = {}) {
  std::vector<LazyLayer> layers;
  layers.push_back(std::move(layer));
  return Begin(std::move(layers), std::move(memory), std::move(options));
}

// What each page has to be, without reading `memory`.
void ExpectEqualPages(const GuestMemory& expected, const GuestMemory& actual, std::uint64_t seed,
                      std::size_t touches) {
  std::mt19937_64 random(seed);
  for (std::size_t i = 0; i < touches; ++i) {
    const std::size_t r = random() % expected.regions().size();
    const Region& region = expected.regions()[r];
    const std::uint64_t at = random() % region.page_count() * kPageBytes;
    ASSERT_EQ(std::memcmp(region.host + at, actual.regions()[r].host + at, kPageBytes), 0)
        << "region " << r << " byte " << at;
  }
}

TEST_F(LazyLoaderTest, WhatIsTouchedIsWhatWasSavedWhileTheRestArrives) {
  for (const BlockCodec codec : {BlockCodec::kRaw, BlockCodec::kLz4}) {
    const Saving saving = SaveToFile(codec, 5);
    for (const Backing backing : {Backing::kAnonymous, Backing::kMemfd}) {
      for (const bool in_memory : {false, true}) {
        // Used memory: what was in it must not be seen.
        auto target = Allocate(kRegions, backing);
        FillRandomly(*target, 99);
        // In memory the stream is cut into two extents.
        const std::vector<std::uint8_t> front(kStartOffset);
        const std::size_t cut = saving.saved.stream.size() / 3;
        const ExtentSource::Extent extents[] = {
            {.bytes = kStartOffset, .memory = front.data()},
            {.bytes = cut, .memory = saving.saved.stream.data()},
            {.bytes = saving.saved.stream.size() - cut,
             .memory = saving.saved.stream.data() + cut}};
        auto source = in_memory ? std::move(ExtentSource::Open(extents).value()) : FileOf(saving);
        Lazy lazy = Begin(LayerOf(saving, std::move(source)), target, {.fill_delay_ms = 5});
        ASSERT_EQ(lazy.loader->stage(), LazyLoader::Stage::kServing);
        std::vector<std::thread> guests;
        for (std::uint64_t i = 0; i < 3; ++i) {
          guests.emplace_back([&, i] { ExpectEqualPages(*saving.memory, *target, i, 400); });
        }
        for (std::thread& guest : guests) guest.join();
        EXPECT_EQ(lazy.WaitBeyond(LazyLoader::Stage::kServing), LazyLoader::Stage::kResident);
        EXPECT_EQ(DigestOf(*target), saving.digest);
        EXPECT_EQ(lazy.loader->counts().missing, 0u);
      }
    }
  }
}

TEST_F(LazyLoaderTest, WhatALayerDoesNotHoldIsInTheNextOne) {
  const Saving parent = SaveToFile(BlockCodec::kLz4, 20);
  const Saving child = SaveToFile(BlockCodec::kLz4, 21);
  // A run of the child, zeros to itself, stands for the parent's content.
  auto expected = Allocate(kRegions);
  const BlockLayout layout(expected->regions());
  const std::vector<std::uint8_t> zeros(kBlockBytes);
  std::uint64_t from_parent = 0;
  for (std::uint64_t block = 0; block < layout.block_count(); ++block) {
    const PageRun pages = layout.PagesOf(block);
    std::vector<std::uint8_t> bytes(pages.count * kPageBytes);
    ASSERT_TRUE(child.memory->CopyOut(pages, bytes.data()).ok());
    if (std::memcmp(bytes.data(), zeros.data(), bytes.size()) == 0) {
      ++from_parent;
      ASSERT_TRUE(parent.memory->CopyOut(pages, bytes.data()).ok());
    }
    ASSERT_TRUE(expected->CopyIn(pages, bytes.data()).ok());
  }
  ASSERT_GT(from_parent, 0u);
  std::vector<LazyLayer> layers;
  layers.push_back(LayerOf(child, FileOf(child)));
  layers.back().has_parent = true;
  layers.push_back(LayerOf(parent, FileOf(parent)));
  Lazy lazy = Begin(std::move(layers), Allocate(kRegions), {.fill_delay_ms = 5});
  ExpectEqualPages(*expected, *lazy.memory, 4, 300);
  EXPECT_EQ(lazy.WaitBeyond(LazyLoader::Stage::kServing), LazyLoader::Stage::kResident);
  EXPECT_EQ(DigestOf(*lazy.memory), DigestOf(*expected));
}

TEST_F(LazyLoaderTest, WhatTheGuestWritesDuringTheLoadStays) {
  const Saving saving = SaveToFile(BlockCodec::kLz4, 6);
  auto target = Allocate(kRegions);
  Lazy lazy = Begin(LayerOf(saving, FileOf(saving)), target);
  // Every thread writes pages of its own and reads the others.
  std::vector<std::thread> guests;
  const Region& region = target->regions()[2];
  for (std::uint64_t i = 0; i < 3; ++i) {
    guests.emplace_back([&, i] {
      for (std::uint64_t page = i; page < region.page_count(); page += 3) {
        std::memset(region.host + page * kPageBytes, static_cast<int>(page % 251 + 1), kPageBytes);
      }
    });
  }
  for (std::thread& guest : guests) guest.join();
  EXPECT_EQ(lazy.WaitBeyond(LazyLoader::Stage::kServing), LazyLoader::Stage::kResident);
  for (std::uint64_t page = 0; page < region.page_count(); ++page) {
    const std::vector<std::uint8_t> expected(kPageBytes, static_cast<std::uint8_t>(page % 251 + 1));
    ASSERT_EQ(std::memcmp(region.host + page * kPageBytes, expected.data(), kPageBytes), 0) << page;
  }
}

TEST_F(LazyLoaderTest, ASaveWhilePagesAreMissingFetchesThem) {
  const Saving saving = SaveToFile(BlockCodec::kLz4, 7);
  Lazy lazy = Begin(LayerOf(saving, FileOf(saving)), Allocate(kRegions), {.fill_delay_ms = 60'000});
  auto again = Save(lazy.memory, {.threads = 2});
  ASSERT_TRUE(again.ok());
  EXPECT_EQ(again.value().stream, saving.saved.stream);
  EXPECT_EQ(lazy.WaitBeyond(LazyLoader::Stage::kServing), LazyLoader::Stage::kResident);
}

TEST_F(LazyLoaderTest, AReplayedWorkingSetComesWithoutTheGuestAskingForIt) {
  const Saving saving = SaveToFile(BlockCodec::kLz4, 8);
  Lazy first =
      Begin(LayerOf(saving, FileOf(saving)), Allocate(kRegions), {.fill_delay_ms = 60'000});
  ExpectEqualPages(*saving.memory, *first.memory, 3, 60);
  const std::vector<std::uint32_t> recorded = first.loader->WorkingSet();
  EXPECT_EQ(recorded.size(), first.loader->counts().fault_blocks);
  ASSERT_GT(recorded.size(), 10u);

  // Blocks that do not exist come from a damaged record: they are left out.
  std::vector<std::uint32_t> replay = recorded;
  replay.push_back(0xffffffff);
  Lazy second = Begin(LayerOf(saving, FileOf(saving)), Allocate(kRegions),
                      {.fill_delay_ms = 60'000, .replay = replay});
  const LazyLoader::Counts all = second.loader->counts();
  for (int i = 0; i < 3000 && second.loader->counts().missing > all.blocks - recorded.size(); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  ExpectEqualPages(*saving.memory, *second.memory, 3, 60);
  EXPECT_EQ(second.loader->counts().fault_blocks, 0u);
}

// Ways in which a checkpoint can be damaged while its machine runs.
TEST_F(LazyLoaderTest, DamageHoldsTheGuestAndIsNeverContent) {
  for (const int kind : {0, 1, 2}) {
    Saving saving = SaveToFile(BlockCodec::kLz4, 9, {{0, 4 << 20}});
    const auto map_end = EndOf(saving);
    Lazy lazy =
        Begin(LayerOf(saving, FileOf(saving)), Allocate({{0, 4 << 20}}), {.fill_delay_ms = 60'000});
    ASSERT_EQ(lazy.loader->stage(), LazyLoader::Stage::kServing);
    if (kind == 0) {  // the store vanishes
      ASSERT_EQ(::ftruncate(saving.file->fd(), 0), 0);
    } else {  // headers, or everything else, turn into something else
      std::vector<std::uint8_t>& stream = saving.saved.stream;
      for (std::size_t i = kind == 1 ? 0 : 63; i < stream.size(); i += kind == 1 ? 48 : 4096) {
        stream[i] ^= 0x40;
      }
      ASSERT_TRUE(WriteAll(saving.file->fd(), kStartOffset, stream).ok());
    }
    std::atomic<std::uint64_t> held{kUnknown};
    std::thread guest([&] {
      const Region& region = lazy.memory->regions()[0];
      for (std::uint64_t page = 0; page < region.page_count(); ++page) {
        held = page;
        const bool same =
            std::memcmp(region.host + page * kPageBytes,
                        saving.memory->regions()[0].host + page * kPageBytes, kPageBytes) == 0;
        if (same) continue;
        for (std::size_t i = 0; i < kPageBytes; ++i) {
          ASSERT_EQ(region.host[page * kPageBytes + i], LazyLoader::kDamagePattern);
        }
        return;
      }
      ADD_FAILURE() << "damage was not found";
    });
    EXPECT_EQ(lazy.WaitBeyond(LazyLoader::Stage::kServing), LazyLoader::Stage::kFailed);
    const Error error = lazy.loader->error();
    EXPECT_EQ(error.code, kind == 0 ? ErrorCode::kTruncated : ErrorCode::kDigest);
    EXPECT_EQ(error.page / kBlockPages, held / kBlockPages);
    EXPECT_LE(error.offset, map_end);
    lazy.loader->Release();
    guest.join();
  }
}

TEST_F(LazyLoaderTest, TheFillFindsDamageThatNobodyTouches) {
  Saving saving = SaveToFile(BlockCodec::kRaw, 10);
  saving.saved.stream[saving.saved.stream.size() / 2] ^= 1;
  ASSERT_TRUE(WriteAll(saving.file->fd(), kStartOffset, saving.saved.stream).ok());
  Lazy lazy = Begin(LayerOf(saving, FileOf(saving)), Allocate(kRegions));
  EXPECT_EQ(lazy.WaitBeyond(LazyLoader::Stage::kServing), LazyLoader::Stage::kFailed);
  EXPECT_EQ(lazy.loader->error().code, ErrorCode::kDigest);
}

TEST_F(LazyLoaderTest, TheThreadThatMustTakeNoteOfDamageIsNotHeld) {
  Saving saving = SaveToFile(BlockCodec::kRaw, 11, {{0, 1 << 20}});
  Lazy lazy = Begin(
      LayerOf(saving, FileOf(saving)), Allocate({{0, 1 << 20}}),
      {.fill_delay_ms = 60'000, .owner_thread = static_cast<std::uint32_t>(::syscall(SYS_gettid))});
  ASSERT_EQ(::ftruncate(saving.file->fd(), 0), 0);
  const volatile std::uint8_t* host = lazy.memory->regions()[0].host;
  bool found = false;
  for (std::uint64_t at = 0; at < 1 << 20; at += kPageBytes) {
    found = found || host[at] == LazyLoader::kDamagePattern;
  }
  EXPECT_TRUE(found);
  EXPECT_EQ(lazy.loader->stage(), LazyLoader::Stage::kFailed);
}

TEST_F(LazyLoaderTest, PoisonIsASignalForWhoAskedForIt) {
  if (!Userfault::Open().value()->can_poison()) GTEST_SKIP() << "no UFFDIO_POISON before Linux 6.6";
  Saving saving = SaveToFile(BlockCodec::kRaw, 12, {{0, 1 << 20}});
  ASSERT_EQ(::ftruncate(saving.file->fd(), 0), 0);
  Lazy lazy = Begin(LayerOf(saving, FileOf(saving)), Allocate({{0, 1 << 20}}));
  // The index could not be read: nothing of the memory was touched.
  EXPECT_EQ(lazy.loader->stage(), LazyLoader::Stage::kFailed);

  Saving sound = SaveToFile(BlockCodec::kRaw, 12, {{0, 1 << 20}});
  Lazy poisoned = Begin(LayerOf(sound, FileOf(sound)), Allocate({{0, 1 << 20}}),
                        {.fill_delay_ms = 300, .poison = true});
  ASSERT_EQ(::ftruncate(sound.file->fd(), 0), 0);
  EXPECT_EQ(poisoned.WaitBeyond(LazyLoader::Stage::kServing), LazyLoader::Stage::kFailed);
  poisoned.loader->Release();
  // read(2) and write(2) report a poisoned page where an access would be a signal.
  const std::uint64_t at = poisoned.loader->error().page * kPageBytes;
  TestFile file(0);
  EXPECT_EQ(::write(file.fd(), poisoned.memory->regions()[0].host + at, 1), -1);
}

TEST_F(LazyLoaderTest, MemoryThatCannotBeLazyIsToldBeforeItIsTouched) {
  TestFile file(1 << 20);
  const GuestMemory::FileSpec spec{.region = {0, 1 << 20}, .fd = file.fd(), .writable = true};
  for (const auto& memory :
       {GuestMemory::Map({&spec, 1}), GuestMemory::OpenFiles({&spec, 1}, false),
        GuestMemory::Describe({{{0, 1 << 20}}})}) {
    std::vector<LazyLayer> layers(1);
    auto loader = LazyLoader::Start(memory.value(), std::move(layers), {}, [] {});
    EXPECT_EQ(CodeOf(std::move(loader)), ErrorCode::kUnsupported);
  }
}

TEST_F(LazyLoaderTest, ALoadCanEndAtAnyMoment) {
  const Saving saving = SaveToFile(BlockCodec::kLz4, 13);
  for (int i = 0; i < 8; ++i) {
    const int before = CountDescriptors();
    {
      Lazy lazy = Begin(LayerOf(saving, FileOf(saving)), Allocate(kRegions));
      std::thread guest([&] { static_cast<void>(DigestOf(*lazy.memory)); });
      std::this_thread::sleep_for(std::chrono::microseconds(500 * i));
      lazy.loader.reset();  // the guest goes on, with zeros
      guest.join();
    }
    EXPECT_EQ(CountDescriptors(), before);
  }
}

}  // namespace
}  // namespace chkpt

// Live snapshots: what is encoded while a guest writes is what memory was when it was frozen.
#include <sys/mman.h>

#include <thread>

#include "core/synthetic/stamp_writer.h"
#include "core/tracking/write_guard.h"
#include "core/tracking/write_protect_tracker.h"
#include "memory_fixtures.h"
#include "pipeline_fixtures.h"
#include "tracker_oracle.h"

namespace chkpt {
namespace {

const auto kGoOn = [] { return false; };
constexpr std::uint64_t kPlenty = std::uint64_t{1} << 30;
constexpr std::uint64_t kAttachedBytes = 8 * kMiB;

// Null: this machine has no userfaultfd for it, which was said.
std::shared_ptr<WriteGuard> OpenGuard(const Memory& memory, WriteGuard::Options options = {}) {
  auto guard = WriteGuard::Open(memory, options);
  if (guard.ok()) return std::move(guard.value());
  std::printf("skipped: %s\n", guard.error().message.c_str());
  return nullptr;
}
#define CHKPT_NEED(guard) \
  if ((guard) == nullptr) GTEST_SKIP()

Status FreezeGuard(WriteGuard& guard, const DirtyBitmap* changed, std::uint64_t side_bytes_max) {
  auto room = WriteGuard::MakeRoom(*guard.memory(), side_bytes_max);
  if (!room.ok()) return room.error();
  return guard.Freeze(changed, std::move(room.value()), kGoOn);
}

Memory Restore(const Saved& saved, const Memory& like, Memory onto = nullptr) {
  std::vector<RegionSpec> specs;
  for (const Region& region : like->regions()) specs.push_back({region.base, region.bytes});
  Memory target = onto != nullptr ? onto : MustAllocate(specs, Backing::kAnonymous);
  Saved closed = saved;
  CloseStream(&closed);
  EXPECT_TRUE(Load(target, closed.stream, 2, 1 << 20, {.position = Start(saved.epoch)}).ok());
  return target;
}

struct MemoryKind {
  const char* name;
  Backing backing;
  bool huge_pages;
};

class LiveSnapshotTest : public testing::TestWithParam<MemoryKind> {
 protected:
  Memory Make() const {
    if (GetParam().backing != Backing::kAttached) {
      const std::vector<RegionSpec> regions = {
          {0, 640 * 1024}, {kMiB, 5 * kMiB + 20480}, {5 * kGiB, 8 * kMiB}};
      return MustAllocate(regions, GetParam().backing, GetParam().huge_pages);
    }
    // Not at a page of the host, as memory inside of a larger one is.
    void* mapped = ::mmap(nullptr, kAttachedBytes + 2 * kPageBytes, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    outside_ = static_cast<std::uint8_t*>(mapped);
    const GuestMemory::AttachSpec spec = {{0, kAttachedBytes}, outside_ + 1032, kAttachedBytes};
    return GuestMemory::Attach({&spec, 1}).value();
  }
  ~LiveSnapshotTest() override {
    if (outside_ != nullptr) ::munmap(outside_, kAttachedBytes + 2 * kPageBytes);
  }
  mutable std::uint8_t* outside_ = nullptr;
};

TEST_P(LiveSnapshotTest, IsTheMemoryOfTheMomentWhileThreadsWriteOn) {
  const Memory memory = Make();
  FillRandomly(*memory, 1);
  StampWriter writer(memory, {.threads = 3, .seed = 7});
  writer.Start();
  for (int round = 0; round < (kThrift > 1 ? 1 : 2); ++round) {
    const auto guard = OpenGuard(memory);
    CHKPT_NEED(guard);
    writer.Resume();
    ASSERT_TRUE(guard->Protect(kGoOn).ok());
    writer.Pause();
    ASSERT_TRUE(FreezeGuard(*guard, nullptr, kPlenty).ok());
    const std::uint64_t expected = DigestOf(*memory);
    writer.Resume();
    const EncodeOptions encode = {.codec = round % 2 == 0 ? BlockCodec::kLz4 : BlockCodec::kRaw,
                                  .dedup = round % 3 == 0};
    auto saved = Save(memory, {.encode = encode, .threads = 2, .guard = guard});
    writer.Pause();
    ASSERT_TRUE(saved.ok()) << saved.error().message;
    EXPECT_EQ(DigestOf(*Restore(saved.value(), memory)), expected) << round;
    EXPECT_NE(DigestOf(*memory), expected) << "the guest did not write";
  }
}

TEST_P(LiveSnapshotTest, KeepsWhatAGuestWritesBeforeTheFirstPageIsEncoded) {
  const Memory memory = Make();
  FillRandomly(*memory, 2);
  const auto guard = OpenGuard(memory);
  CHKPT_NEED(guard);
  ASSERT_TRUE(guard->Protect(kGoOn).ok());
  ASSERT_TRUE(FreezeGuard(*guard, nullptr, kPlenty).ok());
  const std::uint64_t expected = DigestOf(*memory);
  // Untouched pages among them.
  for (const Region& region : memory->regions()) {
    for (std::uint64_t at = 100; at < region.bytes; at += 7 * kPageBytes) {
      const std::uint8_t bytes[3] = {1, 2, 3};
      ASSERT_TRUE(memory->Write(region.base + at, bytes).ok());
    }
  }
  EXPECT_GT(guard->counts().saved_pages, 100u);
  auto saved = Save(memory, {.threads = 1, .guard = guard});
  ASSERT_TRUE(saved.ok());
  EXPECT_EQ(DigestOf(*Restore(saved.value(), memory)), expected);
  guard->Thaw();
}

TEST_P(LiveSnapshotTest, TheGuestRunsOnWhenMoreMustBeSetAsideThanMay) {
  const Memory memory = Make();
  FillRandomly(*memory, 3);
  const auto guard = OpenGuard(memory);
  CHKPT_NEED(guard);
  ASSERT_TRUE(guard->Protect(kGoOn).ok());
  ASSERT_TRUE(FreezeGuard(*guard, nullptr, 2 * kMiB).ok());
  const Bytes bytes = RandomBytes(7 * kMiB, 4);
  ASSERT_TRUE(memory->Write(memory->regions().back().base, bytes).ok());
  auto saved = Save(memory, {.threads = 2, .guard = guard});
  ASSERT_FALSE(saved.ok());
  EXPECT_EQ(saved.error().code, ErrorCode::kSnapshotLost);
  Bytes read(bytes.size());
  ASSERT_TRUE(memory->Read(memory->regions().back().base, read).ok());
  EXPECT_EQ(read, bytes);
}

TEST_P(LiveSnapshotTest, CancelledAtAnyMomentLeavesTheGuestAlone) {
  const Memory memory = Make();
  StampWriter writer(memory, {.threads = 2, .seed = 9});
  writer.Start();
  writer.Resume();
  std::mt19937_64 random(5);
  for (int i = 0; i < 8 / (kThrift > 1 ? 2 : 1); ++i) {
    const auto guard = OpenGuard(memory);
    CHKPT_NEED(guard);
    ASSERT_TRUE(guard->Protect(kGoOn).ok());
    writer.Pause();
    ASSERT_TRUE(FreezeGuard(*guard, nullptr, kPlenty).ok());
    writer.Resume();
    Bell bell;
    SaveOptions options = {.threads = 2, .guard = guard};
    options.position = Start();
    auto pipeline = SavePipeline::Start(memory, options, bell.Ringer());
    std::this_thread::sleep_for(std::chrono::microseconds(random() % 8000));
    pipeline.value()->Cancel();
    pipeline.value()->Join();
  }
  writer.Stop();
  std::uint64_t damaged = 0;
  std::vector<std::uint64_t> words(kPageWords);
  for (std::uint64_t page = 0; page < memory->page_count(); ++page) {
    ASSERT_TRUE(memory->CopyOut({page, 1}, reinterpret_cast<std::uint8_t*>(words.data())).ok());
    std::uint64_t counter = 0;
    damaged += StampPages::Get().Check(page, words.data(), &counter) == StampState::kDamaged;
  }
  EXPECT_EQ(damaged, 0u);
}

INSTANTIATE_TEST_SUITE_P(Kinds, LiveSnapshotTest,
                         testing::Values(MemoryKind{"SmallPages", Backing::kAnonymous, false},
                                         MemoryKind{"HugePages", Backing::kAnonymous, true},
                                         MemoryKind{"Memfd", Backing::kMemfd, false},
                                         MemoryKind{"Attached", Backing::kAttached, false}),
                         [](const auto& each) { return each.param.name; });

TEST(LiveSnapshotTest, OfWhichPagesAreDroppedIsLostAndNotWrong) {
  const Memory memory = Allocate({{0, 16 * kMiB}});
  FillRandomly(*memory, 6);
  const auto guard = OpenGuard(memory);
  CHKPT_NEED(guard);
  ASSERT_TRUE(guard->Protect(kGoOn).ok());
  ASSERT_TRUE(FreezeGuard(*guard, nullptr, kPlenty).ok());
  ::madvise(memory->regions()[0].host + 8 * kMiB, 1 * kMiB, MADV_DONTNEED);
  auto saved = Save(memory, {.threads = 2, .guard = guard});
  ASSERT_FALSE(saved.ok());
  EXPECT_EQ(saved.error().code, ErrorCode::kSnapshotLost);
}

TEST(LiveSnapshotTest, PagesMayBeDroppedOnceTheyAreEncoded) {
  const Memory memory = Allocate({{0, 16 * kMiB}});
  FillRandomly(*memory, 7);
  const auto guard = OpenGuard(memory);
  CHKPT_NEED(guard);
  ASSERT_TRUE(guard->Protect(kGoOn).ok());
  ASSERT_TRUE(FreezeGuard(*guard, nullptr, kPlenty).ok());
  auto saved = Save(memory, {.threads = 2, .guard = guard});
  ASSERT_TRUE(saved.ok());
  ::madvise(memory->regions()[0].host, 8 * kMiB, MADV_DONTNEED);
  EXPECT_TRUE(guard->Release({0, kChunkPages}).ok());
}

TEST(LiveSnapshotTest, KeepsOnlyWhatAnIncrementStores) {
  const Memory memory = Allocate({{0, 16 * kMiB}});
  FillRandomly(*memory, 8);
  const EncodeOptions encode = {.dedup = false};
  auto base = Save(memory, {.encode = encode, .threads = 2});
  ASSERT_TRUE(base.ok());
  auto changed = std::make_shared<DirtyBitmap>(memory->page_count());
  const Bytes first = RandomBytes(40 * kPageBytes, 1);
  ASSERT_TRUE(memory->Write(100 * kPageBytes, first).ok());
  changed->MarkRun({100, 40});
  const auto guard = OpenGuard(memory);
  CHKPT_NEED(guard);
  ASSERT_TRUE(guard->Protect(kGoOn).ok());
  ASSERT_TRUE(FreezeGuard(*guard, changed.get(), kPlenty).ok());
  const std::uint64_t expected = DigestOf(*memory);
  const Bytes second = RandomBytes(2000 * kPageBytes, 2);
  ASSERT_TRUE(memory->Write(0, second).ok());
  EXPECT_EQ(guard->counts().saved_pages, 40u);
  SaveOptions options = {.encode = encode, .threads = 2, .changed = changed, .guard = guard};
  options.position.epoch = 1;
  auto increment = Save(memory, options);
  ASSERT_TRUE(increment.ok()) << increment.error().message;
  EXPECT_EQ(increment.value().totals.pages - increment.value().totals.parent_pages, 40u);
  const Memory restored = Allocate({{0, 16 * kMiB}});
  const auto chain = std::make_shared<ChainLoad>(memory->page_count());
  for (Saved* saved : {&increment.value(), &base.value()}) {
    CloseStream(saved);
    const LoadOptions load = {.position = Start(saved->epoch), .chain = chain};
    ASSERT_TRUE(Load(restored, saved->stream, 2, 1 << 20, load).ok());
    chain->Advance();
  }
  EXPECT_EQ(DigestOf(*restored), expected);
}

class TrackedSnapshotTest : public testing::TestWithParam<MemoryKind> {};

// Null: this machine has no such tracker, or no guard; it was said.
std::unique_ptr<DirtyTracker> OpenLiveTracker(const Memory& memory) {
  auto tracker = WriteProtectTracker::Open(memory);
  if (tracker.ok() && WriteGuard::Check(*memory).ok()) return std::move(tracker.value());
  std::printf("skipped: no tracker, or no guard\n");
  return nullptr;
}

TEST_P(TrackedSnapshotTest, TheTrackerTellsEveryPageThatWasWrittenSinceTheSnapshot) {
  const Memory memory =
      MustAllocate({{0, 640 * 1024}, {kMiB, 6 * kMiB}}, GetParam().backing, GetParam().huge_pages);
  FillRandomly(*memory, 11);
  const auto tracker = OpenLiveTracker(memory);
  CHKPT_NEED(tracker);
  ASSERT_TRUE(tracker->Arm(kGoOn).ok());
  StampWriter writer(memory, {.threads = 2, .pages_per_second = 5000, .seed = 3});
  writer.Start();
  DirtyBitmap ignored(memory->page_count());
  for (int round = 0; round < 3; ++round) {
    writer.Resume();
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    writer.Pause();
    ASSERT_TRUE(tracker->Harvest(&ignored, kGoOn).ok());
    auto guard = tracker->ShareGuard();
    ASSERT_TRUE(guard.ok()) << guard.error().message;
    ASSERT_TRUE(FreezeGuard(*guard.value(), nullptr, kPlenty).ok());
    const std::uint64_t expected = DigestOf(*memory);
    writer.Resume();
    auto saved = Save(memory, {.threads = 2, .guard = guard.value()});
    ASSERT_TRUE(saved.ok()) << saved.error().message;
    guard.value()->Thaw();
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    writer.Pause();
    const Memory restored = Restore(saved.value(), memory);
    ASSERT_EQ(DigestOf(*restored), expected) << round;
    DirtyBitmap told(memory->page_count());
    ASSERT_TRUE(tracker->Harvest(&told, kGoOn).ok());
    std::uint64_t different = 0;
    Bytes now(kPageBytes);
    Bytes then(kPageBytes);
    for (std::uint64_t page = 0; page < memory->page_count(); ++page) {
      ASSERT_TRUE(memory->CopyOut({page, 1}, now.data()).ok());
      ASSERT_TRUE(restored->CopyOut({page, 1}, then.data()).ok());
      if (now == then) continue;
      ++different;
      EXPECT_TRUE(told.IsMarked(page)) << page;
    }
    EXPECT_GT(different, 0u);
  }
}

TEST_P(TrackedSnapshotTest, TheTrackerIsExactAfterItsFirstSnapshot) {
  const Memory memory = MustAllocate({{0, 8 * kMiB}}, GetParam().backing, GetParam().huge_pages);
  const auto tracker = OpenLiveTracker(memory);
  CHKPT_NEED(tracker);
  ASSERT_TRUE(tracker->Arm(kGoOn).ok());
  DirtyBitmap ignored(memory->page_count());
  ASSERT_TRUE(tracker->Harvest(&ignored, kGoOn).ok());
  ASSERT_TRUE(tracker->ShareGuard().ok());
  OracleOptions options;
  options.writes = 40'000 / static_cast<unsigned>(kThrift);
  options.batch_writes = 20'000 / static_cast<unsigned>(kThrift);
  const OracleReport report = TrackerOracle(tracker.get(), options).Run();
  EXPECT_FALSE(report.failed);
  EXPECT_GT(report.told_pages, 0u);
  EXPECT_EQ(report.missed_pages, 0u);
}

// A page that was only read is an entry of the zero page: no content, and nothing to tell. Every
// other one, so that a harvest protects them one by one, while the guest writes them.
TEST_P(TrackedSnapshotTest, TellsWritesToPagesThatWereOnlyRead) {
  if (GetParam().backing == Backing::kMemfd) GTEST_SKIP() << "no zero page in shared memory";
  const Memory memory = MustAllocate({{0, 4 * kMiB}}, GetParam().backing, GetParam().huge_pages);
  const auto tracker = OpenLiveTracker(memory);
  CHKPT_NEED(tracker);
  ASSERT_TRUE(tracker->Arm(kGoOn).ok());
  ASSERT_TRUE(tracker->ShareGuard().ok());
  ASSERT_TRUE(tracker->Arm(kGoOn).ok());
  std::uint8_t* const host = memory->regions()[0].host;
  const std::uint64_t pages = memory->page_count();
  for (unsigned round = 0; round < 200 / static_cast<unsigned>(kThrift); ++round) {
    ASSERT_TRUE(memory->Zero({0, pages}).ok());
    DirtyBitmap told(pages);
    ASSERT_TRUE(tracker->Harvest(&told, kGoOn).ok());
    for (std::uint64_t page = 0; page < pages; page += 2) ReadGuest(host + page * kPageBytes);
    std::atomic<bool> is_writing{false};
    std::thread writer([&] {
      const std::uint8_t written = 1;
      for (std::uint64_t page = 0; page < pages; page += 2) {
        CopyGuest(host + page * kPageBytes, &written, 1);
        is_writing = true;
      }
    });
    while (!is_writing) std::this_thread::yield();
    DirtyBitmap set(pages);
    const bool harvested = tracker->Harvest(&set, kGoOn).ok();
    writer.join();
    ASSERT_TRUE(harvested && tracker->Harvest(&set, kGoOn).ok());
    std::uint64_t untold = 0;
    for (std::uint64_t page = 0; page < pages; page += 2) untold += set.IsMarked(page) ? 0 : 1;
    ASSERT_EQ(untold, 0u) << round;
  }
}

INSTANTIATE_TEST_SUITE_P(Kinds, TrackedSnapshotTest,
                         testing::Values(MemoryKind{"SmallPages", Backing::kAnonymous, false},
                                         MemoryKind{"HugePages", Backing::kAnonymous, true},
                                         MemoryKind{"Memfd", Backing::kMemfd, false}),
                         [](const auto& each) { return each.param.name; });

TEST(LiveSnapshotTest, IsRefusedWhereWritesWouldNotBeSeen) {
  TestFile file(4 * kMiB);
  const GuestMemory::FileSpec spec = {{0, 4 * kMiB}, file.fd(), 0, true};
  EXPECT_EQ(CodeOf(WriteGuard::Open(GuestMemory::Map({&spec, 1}).value(), {})),
            ErrorCode::kUnsupported);
  EXPECT_EQ(CodeOf(WriteGuard::Open(GuestMemory::OpenFiles({&spec, 1}, false).value(), {})),
            ErrorCode::kUnsupported);
  const Memory memory = Allocate({{0, 4 * kMiB}});
  const auto guard = OpenGuard(memory);
  CHKPT_NEED(guard);
  EXPECT_EQ(CodeOf(WriteGuard::Open(memory, {})), ErrorCode::kUnsupported);
}

// Two threads look at a large region, one at a small one: what they find is one image.
TEST(LiveImageTest, TheImageOfALargeRegionHasAllPagesThatHoldSomething) {
  const std::vector<RegionSpec> specs = {{0, 3 * kPageBytes}, {kMiB, 160 * kMiB}};
  const Memory memory = MustAllocate(specs, Backing::kAnonymous, false);
  std::vector<bool> written(static_cast<std::size_t>(memory->page_count()));
  const auto write = [&](std::uint64_t page) {
    written[static_cast<std::size_t>(page)] = true;
    const Region& region = memory->regions()[memory->RegionOfPage(page)];
    region.host[(page - region.first_page) * kPageBytes] = 1;
  };
  for (std::uint64_t page = 1; page < memory->page_count(); page += 97) write(page);
  const auto guard = OpenGuard(memory);
  CHKPT_NEED(guard);
  ASSERT_TRUE(guard->Protect(kGoOn).ok());
  // Since the protection: all around where the threads part, and at the ends.
  const std::uint64_t middle = (3 + 160 * kMiB / kPageBytes / 2) / 64 * 64;
  for (std::uint64_t page = middle - 70; page < middle + 70; ++page) write(page);
  write(0);
  write(memory->page_count() - 1);
  ASSERT_TRUE(FreezeGuard(*guard, nullptr, kPlenty).ok());
  std::uint64_t wrong = 0;
  for (std::uint64_t page = 0; page < memory->page_count(); ++page) {
    const bool is_in = (guard->image()[page / 64] >> (page % 64) & 1) != 0;
    if (is_in != written[static_cast<std::size_t>(page)]) ++wrong;
  }
  EXPECT_EQ(wrong, 0U);
  // What was written since is kept at once, whoever found it.
  for (std::uint64_t page = middle - 70; page < middle + 70; ++page) {
    EXPECT_NE(guard->Saved(page), nullptr) << page;
  }
  guard->Thaw();
}

}  // namespace
}  // namespace chkpt

// Fetching chosen pages: they become those of the checkpoint, all others stay, and what cannot be
// verified is never written.
#include "core/lazy/page_fetch.h"

#include <map>

#include "test/lazy_fixtures.h"

namespace chkpt {
namespace {

using Layers = std::vector<std::shared_ptr<const BlockLayer>>;

std::shared_ptr<const BlockLayer> OpenLayer(const Saving& saving, bool has_parent = false) {
  LazyLayer layer = LayerOf(saving, FileOf(saving));
  layer.has_parent = has_parent;
  auto opened = BlockLayer::Open(std::move(layer), *saving.memory);
  EXPECT_TRUE(opened.ok());
  return opened.value();
}

// The checkpoint in a file, in memory, and in memory cut in pieces.
std::vector<std::shared_ptr<const BlockLayer>> OpenEverywhere(const Saving& saving) {
  std::vector<std::shared_ptr<const BlockLayer>> layers{OpenLayer(saving)};
  for (const std::uint64_t piece_bytes : {std::uint64_t{1} << 40, std::uint64_t{50'000}}) {
    auto opened = BlockLayer::Open(LayerOf(saving, MemoryOf(saving, piece_bytes)), *saving.memory);
    EXPECT_TRUE(opened.ok());
    layers.push_back(opened.value());
  }
  return layers;
}

std::vector<std::uint8_t> PageOf(const GuestMemory& memory, std::uint64_t page) {
  std::vector<std::uint8_t> bytes(kPageBytes);
  EXPECT_TRUE(memory.CopyOut({page, 1}, bytes.data()).ok());
  return bytes;
}

bool NeverCancel() { return false; }

TEST(PageFetchTest, ChosenPagesBecomeThoseOfTheCheckpointAndAllOthersStay) {
  for (const BlockCodec codec : {BlockCodec::kRaw, BlockCodec::kLz4}) {
    const Saving saving = SaveToFile(codec, 31);
    const auto places = OpenEverywhere(saving);
    std::mt19937_64 random(7);
    for (std::size_t turn = 0; turn < 2 * places.size(); ++turn) {
      const Layers layers = {places[turn / 2]};
      auto target = Allocate(kRegions, turn % 2 == 0 ? Backing::kAnonymous : Backing::kMemfd);
      FillRandomly(*target, 32);
      auto before = Allocate(kRegions);
      FillRandomly(*before, 32);
      DirtyBitmap wanted(target->page_count());
      for (std::uint64_t page = 0; page < target->page_count(); ++page) {
        // Scattered pages, and whole stretches that begin and end anywhere.
        const bool in_stretch = page / 200 % 3 == 1;
        if (in_stretch || random() % 9 == 0) wanted.Mark(page);
      }
      std::atomic<std::uint64_t> done{0};
      PageFetch fetch(target, layers);
      auto counts = fetch.Run(wanted, 3, NeverCancel, &done);
      ASSERT_TRUE(counts.ok()) << counts.error().message;
      std::uint64_t different = 0;
      for (std::uint64_t page = 0; page < target->page_count(); ++page) {
        const auto old = PageOf(*before, page);
        const auto now = PageOf(*saving.memory, page);
        ASSERT_EQ(PageOf(*target, page), wanted.IsMarked(page) ? now : old) << page;
        if (wanted.IsMarked(page) && old != now) ++different;
      }
      EXPECT_EQ(counts.value().pages, wanted.CountMarked());
      EXPECT_EQ(done, wanted.CountMarked());
      EXPECT_EQ(counts.value().written, different);
      // Once more: nothing is written.
      EXPECT_EQ(fetch.Run(wanted, 1, NeverCancel).value().written, 0u);
    }
  }
}

TEST(PageFetchTest, WhatALayerLeavesToItsParentIsTakenFromThere) {
  const Saving parent = SaveToFile(BlockCodec::kLz4, 33);
  const Saving child = SaveToFile(BlockCodec::kRaw, 34);
  const Layers layers = {OpenLayer(child, true), OpenLayer(parent)};
  DirtyBitmap held(child.memory->page_count());
  layers[0]->MarkHeld(&held);
  auto target = Allocate(kRegions);
  FillRandomly(*target, 35);
  DirtyBitmap all(target->page_count());
  all.MarkRun({0, target->page_count()});
  ASSERT_TRUE(PageFetch(target, layers).Run(all, 2, NeverCancel).ok());
  std::map<bool, int> seen;
  for (std::uint64_t page = 0; page < target->page_count(); ++page) {
    const GuestMemory& source = held.IsMarked(page) ? *child.memory : *parent.memory;
    ++seen[held.IsMarked(page)];
    ASSERT_EQ(PageOf(*target, page), PageOf(source, page)) << page;
  }
  EXPECT_GT(seen[false], 0);
  EXPECT_GT(seen[true], 0);
}

TEST(PageFetchTest, ContentIsAllThatCanDiffer) {
  const Saving saving = SaveToFile(BlockCodec::kLz4, 36);
  auto target = Allocate(kRegions);
  FillRandomly(*target, 37);
  PageFetch fetch(target, {OpenLayer(saving)});
  DirtyBitmap content(target->page_count());
  fetch.MarkContent(&content);
  ASSERT_TRUE(fetch.Run(content, 2, NeverCancel).ok());
  EXPECT_EQ(DigestOf(*target), saving.digest);
}

TEST(PageFetchTest, DamageIsAnErrorAndNeverContent) {
  Saving saving = SaveToFile(BlockCodec::kLz4, 38, {{0, 4 << 20}});
  const Layers layers = {OpenLayer(saving)};
  const auto places = OpenEverywhere(saving);
  for (std::size_t i = 63; i < saving.saved.stream.size(); i += 4096) {
    saving.saved.stream[i] ^= 0x40;
  }
  ASSERT_TRUE(WriteAll(saving.file->fd(), kStartOffset, saving.saved.stream).ok());
  auto target = Allocate({{0, 4 << 20}});
  FillRandomly(*target, 39);
  auto before = Allocate({{0, 4 << 20}});
  FillRandomly(*before, 39);
  DirtyBitmap all(target->page_count());
  all.MarkRun({0, target->page_count()});
  PageFetch fetch(target, layers);
  EXPECT_EQ(CodeOf(fetch.Run(all, 2, NeverCancel)), ErrorCode::kDigest);
  for (std::uint64_t page = 0; page < target->page_count(); ++page) {
    const auto now = PageOf(*target, page);
    ASSERT_TRUE(now == PageOf(*before, page) || now == PageOf(*saving.memory, page)) << page;
  }
  // In memory a block is verified once: these were not yet.
  for (const auto& place : places) {
    EXPECT_EQ(CodeOf(PageFetch(target, {place}).Run(all, 2, NeverCancel)), ErrorCode::kDigest);
    EXPECT_EQ(CodeOf(PageFetch(target, {place}).Run(all, 2, NeverCancel)), ErrorCode::kDigest);
  }
  ASSERT_EQ(::ftruncate(saving.file->fd(), 0), 0);
  EXPECT_EQ(CodeOf(fetch.Run(all, 2, NeverCancel)), ErrorCode::kTruncated);
  EXPECT_EQ(CodeOf(fetch.Run(all, 2, [] { return true; })), ErrorCode::kAborted);
}

TEST(PageFetchTest, TrackersSeeWhatWasWritten) {
  const Saving saving = SaveToFile(BlockCodec::kRaw, 40);
  auto target = Allocate(kRegions);
  auto log = std::make_shared<DirtyBitmap>(target->page_count());
  target->AddWriteLog(log);
  DirtyBitmap all(target->page_count());
  all.MarkRun({0, target->page_count()});
  const auto counts = PageFetch(target, {OpenLayer(saving)}).Run(all, 2, NeverCancel);
  ASSERT_TRUE(counts.ok());
  EXPECT_EQ(log->CountMarked(), counts.value().written);
  target->RemoveWriteLog(log.get());
}

}  // namespace
}  // namespace chkpt

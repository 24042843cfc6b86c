// What the suites of random access share: a memory saved to a file, and layers over it.
#pragma once

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "core/lazy/block_layer.h"
#include "test/memory_fixtures.h"
#include "test/pipeline_fixtures.h"

namespace chkpt {

// Chunks that are moved as a whole, and ends of regions that are not.
inline const std::vector<RegionSpec> kRegions = {
    {0, 320 * 1024}, {0x100000, 3 * 1024 * 1024 + 20480}, {std::uint64_t{5} << 30, 6 << 20}};

// A memory and the memory context it was saved to, in a file that is padded so that offsets fit.
struct Saving {
  std::shared_ptr<GuestMemory> memory;
  std::uint64_t digest = 0;
  Saved saved;
  std::unique_ptr<TestFile> file;
};

inline Saving SaveToFile(BlockCodec codec, std::uint64_t seed,
                         const std::vector<RegionSpec>& regions = kRegions) {
  Saving saving;
  saving.memory = Allocate(regions);
  FillRandomly(*saving.memory, seed);
  saving.digest = DigestOf(*saving.memory);
  auto saved = Save(saving.memory, {.encode = {.codec = codec}, .threads = 2});
  EXPECT_TRUE(saved.ok());
  saving.saved = std::move(saved.value());
  saving.file = std::make_unique<TestFile>(0);
  EXPECT_TRUE(WriteAll(saving.file->fd(), kStartOffset, saving.saved.stream).ok());
  return saving;
}

inline std::uint64_t EndOf(const Saving& saving) {
  return kStartOffset + saving.saved.stream.size();
}

inline LazyLayer LayerOf(const Saving& saving, std::unique_ptr<BlockSource> source) {
  LazyLayer layer;
  layer.source = std::move(source);
  layer.uuid = Start().uuid;
  layer.epoch = Start().epoch;
  layer.groups = saving.saved.groups;
  layer.first_offset = kStartOffset;
  layer.end_offset = EndOf(saving);
  return layer;
}

inline std::unique_ptr<BlockSource> FileOf(const Saving& saving) {
  const ExtentSource::Extent extent{.bytes = EndOf(saving), .fd = saving.file->fd()};
  return std::move(ExtentSource::Open({&extent, 1}).value());
}

// In memory, in pieces of `piece_bytes`; frames may go over their ends. `saving` keeps the bytes.
inline std::unique_ptr<BlockSource> MemoryOf(const Saving& saving, std::uint64_t piece_bytes) {
  static constexpr std::uint8_t kBefore[kStartOffset] = {};
  const std::vector<std::uint8_t>& stream = saving.saved.stream;
  std::vector<ExtentSource::Extent> extents{{.bytes = kStartOffset, .memory = kBefore}};
  for (std::uint64_t at = 0; at < stream.size(); at += piece_bytes) {
    extents.push_back({.bytes = std::min<std::uint64_t>(piece_bytes, stream.size() - at),
                       .memory = stream.data() + at});
  }
  return std::move(ExtentSource::Open(extents).value());
}

}  // namespace chkpt

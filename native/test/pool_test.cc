// Packs of a pool: what is cut out of streams, what is found again, and what a forged pool can do.
#include <dirent.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>

#include "core/base/bytes.h"
#include "core/format/frame.h"
#include "core/pool/pool_runs.h"
#include "core/pool/pool_writer.h"
#include "test/memory_fixtures.h"

namespace chkpt {
namespace {

namespace fs = std::filesystem;

constexpr const char* kPackA = "00000000-0000-4000-8000-00000000000a.pack";
constexpr const char* kPackB = "00000000-0000-4000-8000-00000000000b.pack";

// A frame as the cutter sees one; digests do not matter to it.
Bytes FrameOf(std::uint32_t type, std::span<const std::uint8_t> payload) {
  Bytes frame(kFrameHeaderBytes + Pad8(payload.size()));
  Store(frame.data(), type);
  Store(frame.data() + 8, static_cast<std::uint64_t>(payload.size()));
  std::copy(payload.begin(), payload.end(), frame.begin() + kFrameHeaderBytes);
  return frame;
}

// A PAGE_BLOCK that looks compressed.
Bytes BlockOf(std::size_t bytes, std::uint64_t seed) {
  Bytes payload = RandomBytes(bytes, seed);
  payload[0] = 1;
  return FrameOf(0x12, payload);
}

Bytes RawBlockOf(std::size_t pages, std::uint64_t seed) {
  Bytes payload = RandomBytes(16 + pages * kPageBytes + 8, seed);
  payload[0] = 0;
  Store(payload.data() + 4, static_cast<std::uint32_t>(pages * kPageBytes));
  return FrameOf(0x12, payload);
}

void Append(Bytes* target, const Bytes& bytes) {
  target->insert(target->end(), bytes.begin(), bytes.end());
}

// Small and large blocks, raw ones, and frames that are none.
Bytes PoolStream(std::uint64_t seed, std::size_t blocks = 60) {
  Bytes stream = FrameOf(1, RandomBytes(11, seed));
  for (std::size_t i = 0; i < blocks; ++i) {
    const std::uint64_t own = seed * 1000 + i;
    if (i % 7 == 3) Append(&stream, FrameOf(0x11, {}));
    if (i % 11 == 5) Append(&stream, FrameOf(0x80000013, RandomBytes(4000, own)));
    if (i % 5 == 4) {
      Append(&stream, RawBlockOf(1 + i % 16, own));
    } else {
      Append(&stream, BlockOf(i % 6 == 0 ? 100 : 600 + 97 * i, own));
    }
  }
  return stream;
}

class PoolTest : public ::testing::Test {
 protected:
  PoolTest() {
    char path[] = "/tmp/chkpt-pool-XXXXXX";
    root_ = ::mkdtemp(path);
    pool_ = root_ + "/pool";
    fs::create_directory(pool_);
  }
  ~PoolTest() override { fs::remove_all(root_); }

  struct Saved {
    std::string folder;
    Bytes map;
    std::uint64_t own_bytes = 0;
    std::uint64_t bytes = 0;
    std::uint64_t shared_bytes = 0;
    std::vector<PoolWriter::PackFile> packs;
  };

  static OwnedFd Open(const std::string& path, int flags) {
    OwnedFd file(::open(path.c_str(), flags | O_CLOEXEC, 0600));
    EXPECT_GE(file.get(), 0) << path;
    return file;
  }

  // A save of one context, in pieces of `piece` bytes, whose pack is published as `pack`.
  Saved Save(const Bytes& stream, const std::string& pack, std::size_t piece = 1 << 20) {
    Saved saved;
    saved.folder = root_ + "/" + pack + ".work";
    saved.bytes = stream.size();
    fs::create_directory(saved.folder);
    PoolWriter writer(pool_, saved.folder);
    EXPECT_TRUE(writer.Load().ok());
    const OwnedFd own = Open(saved.folder + "/own", O_WRONLY | O_CREAT);
    const OwnedFd packed = Open(saved.folder + "/" + pack, O_WRONLY | O_CREAT);
    EXPECT_TRUE(writer.BeginPack(pack).ok());
    std::uint64_t pack_bytes = 0;
    for (std::size_t at = 0; at < stream.size(); at += piece) {
      const std::span<const std::uint8_t> bytes =
          std::span(stream).subspan(at, std::min(piece, stream.size() - at));
      // Cut once more, so that pieces of one call meet, too.
      const std::span<const std::uint8_t> pieces[] = {bytes.first(bytes.size() / 2),
                                                      bytes.subspan(bytes.size() / 2)};
      auto written = writer.Write(pieces, {own.get(), saved.own_bytes}, {packed.get(), pack_bytes});
      EXPECT_TRUE(written.ok());
      Append(&saved.map, written.value().map);
      saved.own_bytes += written.value().own_bytes;
      pack_bytes += written.value().pack_bytes;
    }
    auto end = writer.EndContext({own.get(), saved.own_bytes});
    EXPECT_TRUE(end.ok());
    Append(&saved.map, end.value().map);
    saved.own_bytes += end.value().own_bytes;
    EXPECT_TRUE(writer.EndPack({packed.get(), pack_bytes}).ok());
    saved.packs = writer.TakePacks();
    saved.shared_bytes = writer.shared_bytes();
    fs::create_hard_link(saved.folder + "/" + pack, pool_ + "/" + pack);
    return saved;
  }

  static Result<Bytes> TryLoad(const Saved& saved, std::span<const std::uint8_t> map) {
    const OwnedFd own = Open(saved.folder + "/own", O_RDONLY);
    std::vector<OwnedFd> files;
    std::vector<PooledContext::File> packs;
    for (const PoolWriter::PackFile& pack : saved.packs) {
      files.push_back(Open(saved.folder + "/" + pack.name, O_RDONLY));
      packs.push_back({files.back().get(), pack.bytes});
    }
    std::vector<ExtentSource::Extent> extents;
    Status status = AppendExtents(
        {.bytes = saved.bytes, .own = {own.get(), saved.own_bytes}, .packs = packs, .map = map},
        &extents);
    if (!status.ok()) return std::move(status.error());
    auto source = ExtentSource::Open(extents);
    EXPECT_TRUE(source.ok());
    EXPECT_EQ(source.value()->byte_count(), saved.bytes);
    Bytes bytes(saved.bytes);
    status = source.value()->Read(0, bytes);
    if (!status.ok()) return std::move(status.error());
    return bytes;
  }

  static Bytes Load(const Saved& saved) {
    auto bytes = TryLoad(saved, saved.map);
    EXPECT_TRUE(bytes.ok());
    return bytes.ok() ? bytes.value() : Bytes{};
  }

  static std::uint64_t SizeOf(const std::string& path) { return fs::file_size(path); }

  std::string root_;
  std::string pool_;
};

TEST(FrameCutterTest, HoweverAStreamIsCutIntoPiecesItsCutsAreTheSameBytesAndTheSameObjects) {
  const Bytes stream = PoolStream(1);
  std::vector<Bytes> expected;
  for (const std::size_t piece : {stream.size(), std::size_t{1}, std::size_t{55}, std::size_t{57},
                                  std::size_t{4096}, std::size_t{70001}}) {
    FrameCutter cutter;
    Bytes all;
    std::vector<Bytes> objects;
    const auto take = [&](std::vector<Cut>& cuts) {
      for (const Cut& cut : cuts) {
        all.insert(all.end(), cut.bytes.begin(), cut.bytes.end());
        if (cut.is_object) objects.emplace_back(cut.bytes.begin(), cut.bytes.end());
      }
      cuts.clear();
    };
    std::vector<Cut> cuts;
    for (std::size_t at = 0; at < stream.size(); at += piece) {
      cutter.Push(std::span(stream).subspan(at, std::min(piece, stream.size() - at)), &cuts);
      take(cuts);
      cutter.Forget();
    }
    cutter.Finish(&cuts);
    take(cuts);
    EXPECT_EQ(all, stream) << piece;
    if (expected.empty()) expected = objects;
    EXPECT_EQ(objects, expected) << piece;
  }
  EXPECT_GT(expected.size(), 100u);
}

TEST(FrameCutterTest, BytesThatAreNoFramesPassAsTheyAre) {
  const Bytes noise = RandomBytes(100000, 5);
  FrameCutter cutter;
  std::vector<Cut> cuts;
  cutter.Push(noise, &cuts);
  ASSERT_EQ(cuts.size(), 1u);
  EXPECT_FALSE(cuts[0].is_object);
  EXPECT_EQ(cuts[0].bytes.size(), noise.size());
  // And the next context is looked at again.
  cutter.Finish(&cuts);
  cuts.clear();
  const Bytes block = BlockOf(600, 1);
  cutter.Push(block, &cuts);
  EXPECT_EQ(cuts.size(), 2u);
}

TEST(PoolIndexTest, FindsWhatWasPutLastUnderADigestAndLength) {
  PoolIndex index;
  for (std::uint64_t i = 0; i < 5000; ++i) {
    index.Put({.low = i % 50, .high = i}, {.pack = static_cast<std::uint32_t>(i), .bytes = 7});
  }
  EXPECT_EQ(index.size(), 5000u);
  for (std::uint64_t i = 0; i < 5000; ++i) {
    const PoolIndex::Place* place = index.Find({.low = i % 50, .high = i}, 7);
    ASSERT_NE(place, nullptr);
    EXPECT_EQ(place->pack, i);
  }
  EXPECT_EQ(index.Find({.low = 3, .high = 3}, 8), nullptr);
  EXPECT_EQ(index.Find({.low = 3, .high = 4}, 7), nullptr);
  index.Put({.low = 3, .high = 3}, {.pack = 1, .bytes = 8});
  EXPECT_EQ(index.Find({.low = 3, .high = 3}, 7), nullptr);
  EXPECT_EQ(index.size(), 5000u);
}

TEST_F(PoolTest, EveryPieceSizeGivesTheStreamBackAndASecondSaveOfItTakesNoObjects) {
  const Bytes stream = PoolStream(2);
  const Saved first = Save(stream, kPackA, 1000);
  EXPECT_EQ(Load(first), stream);
  EXPECT_EQ(first.shared_bytes, 0u);
  const Saved second = Save(stream, kPackB);
  EXPECT_EQ(Load(second), stream);
  ASSERT_EQ(second.packs.size(), 1u);
  EXPECT_EQ(second.packs[0].name, kPackA);
  EXPECT_EQ(SizeOf(second.folder + "/" + kPackB), kPackFooterBytes);
  EXPECT_EQ(second.shared_bytes + second.own_bytes, stream.size());
  // In small pieces, what comes before enough of the pack is wanted is stored once more, and no
  // more.
  const Saved third = Save(stream, "00000000-0000-4000-8000-00000000000c.pack", 999);
  EXPECT_EQ(Load(third), stream);
  EXPECT_GT(third.shared_bytes, second.shared_bytes * 9 / 10);
}

TEST_F(PoolTest, EqualBlocksOfOneSaveAreStoredOnceAlsoWithinOneCall) {
  Bytes stream = BlockOf(5000, 1);
  Append(&stream, BlockOf(6000, 2));
  Append(&stream, BlockOf(5000, 1));
  const Saved saved = Save(stream, kPackA);
  EXPECT_EQ(Load(saved), stream);
  EXPECT_EQ(SizeOf(saved.folder + "/" + kPackA), 11000u + 2 * kPackEntryBytes + kPackFooterBytes);
}

TEST_F(PoolTest, WhatIsRemovedFromThePoolStaysWithTheSavesThatUseIt) {
  const Bytes stream = PoolStream(3);
  const Saved first = Save(stream, kPackA);
  const Saved second = Save(stream, kPackB);
  fs::remove_all(first.folder);
  fs::remove_all(pool_);
  EXPECT_EQ(Load(second), stream);
}

TEST_F(PoolTest, DamagedContentIsNotReliedOnButStoredAnew) {
  const Bytes stream = PoolStream(4);
  const Saved first = Save(stream, kPackA);
  {
    std::fstream file(pool_ + "/" + kPackA, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(static_cast<std::streamoff>(stream.size() / 3));
    file.put('\0');
  }
  EXPECT_NE(Load(first), stream);
  const Saved second = Save(stream, kPackB);
  EXPECT_EQ(Load(second), stream);
  EXPECT_EQ(second.packs.size(), 2u);
  // The third one finds the sound copy.
  const Saved third = Save(stream, "00000000-0000-4000-8000-00000000000c.pack");
  EXPECT_EQ(Load(third), stream);
}

TEST_F(PoolTest, EqualDigestsOfOtherContentAreNoReasonToShare) {
  // A pack whose table claims the digests of the stream for other bytes.
  const Bytes stream = PoolStream(5);
  FrameCutter cutter;
  std::vector<Cut> cuts;
  cutter.Push(stream, &cuts);
  std::vector<PackObject> table;
  std::uint64_t offset = 0;
  for (const Cut& cut : cuts) {
    if (!cut.is_object) continue;
    const auto bytes = static_cast<std::uint32_t>(cut.bytes.size());
    table.push_back({.digest = DigestOf(cut.bytes), .offset = offset, .bytes = bytes});
    offset += bytes;
  }
  const Bytes end = EncodePackEnd(table);
  const OwnedFd file = Open(pool_ + "/" + kPackA, O_WRONLY | O_CREAT);
  ASSERT_TRUE(WriteAll(file.get(), 0, RandomBytes(offset, 9)).ok());
  ASSERT_TRUE(WriteAll(file.get(), offset, end).ok());
  const Saved saved = Save(stream, kPackB);
  EXPECT_EQ(Load(saved), stream);
  EXPECT_EQ(saved.shared_bytes, 0u);
  ASSERT_EQ(saved.packs.size(), 1u);
  EXPECT_EQ(saved.packs[0].name, kPackB);
  // It was looked at, and is not kept.
  EXPECT_FALSE(fs::exists(saved.folder + "/" + kPackA));
}

TEST_F(PoolTest, APackOfWhichLittleIsWantedIsNotKeptAlive) {
  Bytes large;
  for (std::uint64_t i = 0; i < 40; ++i) Append(&large, BlockOf(5000, i));
  Save(large, kPackA);
  Bytes little = BlockOf(5000, 7);
  Append(&little, BlockOf(5000, 1000));
  const Saved saved = Save(little, kPackB);
  EXPECT_EQ(Load(saved), little);
  ASSERT_EQ(saved.packs.size(), 1u);
  EXPECT_EQ(saved.packs[0].name, kPackB);
}

TEST_F(PoolTest, ForgedTablesAndThingsThatAreNoPacksAreNotUsed) {
  const Bytes stream = PoolStream(6);
  const Saved first = Save(stream, kPackA);
  const std::string path = pool_ + "/" + kPackA;
  std::ifstream in(path, std::ios::binary);
  const Bytes good((std::istreambuf_iterator<char>(in)), {});
  const auto read = [&](const Bytes& bytes) {
    const TestFile file(bytes.size());
    EXPECT_TRUE(WriteAll(file.fd(), 0, bytes).ok());
    return ReadPackTable(file.fd(), bytes.size(), 1u << 20);
  };
  ASSERT_TRUE(read(good).ok());
  EXPECT_FALSE(ReadPackTable(Open(path, O_RDONLY).get(), good.size(), 3).ok());
  const std::size_t count = read(good).value().size();
  const std::size_t table = good.size() - kPackFooterBytes - count * kPackEntryBytes;
  for (std::size_t at = table; at < good.size(); at += 5) {
    Bytes bad = good;
    bad[at] ^= 0x10;
    EXPECT_FALSE(read(bad).ok()) << at;
  }
  for (const std::size_t size : {std::size_t{0}, std::size_t{31}, good.size() - 1}) {
    EXPECT_FALSE(read(Bytes(good.begin(), good.begin() + static_cast<std::ptrdiff_t>(size))).ok());
  }
  // Sound digests, lengths that do not add up.
  std::vector<PackObject> objects = read(good).value();
  objects[0].bytes = 0;
  Bytes bad(good.begin(), good.begin() + static_cast<std::ptrdiff_t>(table));
  Append(&bad, EncodePackEnd(objects));
  EXPECT_FALSE(read(bad).ok());

  fs::remove(path);
  fs::create_directory(path);
  fs::create_symlink(first.folder + "/" + kPackA,
                     pool_ + "/00000000-0000-4000-8000-00000000000d.pack");
  std::ofstream(pool_ + "/other.pack") << "x";
  const Saved second = Save(stream, kPackB);
  EXPECT_EQ(Load(second), stream);
  EXPECT_EQ(second.shared_bytes, 0u);
}

TEST_F(PoolTest, AForgedMapIsRefusedOrReadsOnlyInsideTheFilesOfTheCheckpoint) {
  const Bytes stream = PoolStream(7, 20);
  const Saved saved = Save(stream, kPackA);
  ASSERT_TRUE(TryLoad(saved, saved.map).ok());
  EXPECT_FALSE(TryLoad(saved, std::span(saved.map).first(saved.map.size() - 1)).ok());
  EXPECT_FALSE(TryLoad(saved, std::span(saved.map).first(saved.map.size() - kPoolRunBytes)).ok());
  for (std::size_t at = 0; at < saved.map.size(); ++at) {
    for (const std::uint8_t flip : {std::uint8_t{0x01}, std::uint8_t{0x80}}) {
      Bytes map = saved.map;
      map[at] = static_cast<std::uint8_t>(map[at] ^ flip);
      auto bytes = TryLoad(saved, map);
      if (bytes.ok()) {
        EXPECT_NE(bytes.value(), stream) << at;
      }
    }
  }
}

TEST_F(PoolTest, AFullFileIsAnErrorOfTheSave) {
  const OwnedFd full(::open("/dev/full", O_WRONLY | O_CLOEXEC));
  if (full.get() < 0) GTEST_SKIP() << "no /dev/full";
  const std::string folder = root_ + "/full";
  fs::create_directory(folder);
  std::ofstream(folder + "/" + kPackA).flush();
  PoolWriter writer(pool_, folder);
  ASSERT_TRUE(writer.Load().ok());
  ASSERT_TRUE(writer.BeginPack(kPackA).ok());
  const Bytes stream = PoolStream(8);
  const std::span<const std::uint8_t> pieces[] = {stream};
  auto written = writer.Write(pieces, {full.get(), 0}, {full.get(), 0});
  ASSERT_FALSE(written.ok());
  EXPECT_EQ(written.error().code, ErrorCode::kNoSpace);
}

}  // namespace
}  // namespace chkpt

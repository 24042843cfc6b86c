// Regions of memory as files of gzip members, and back.
#include <gtest/gtest.h>
#include <zlib.h>

#include <vector>

#include "core/base/xxh3.h"
#include "core/codec/gzip.h"
#include "core/parallel/gzip_load.h"
#include "core/parallel/gzip_save.h"
#include "memory_fixtures.h"
#include "pipeline_fixtures.h"

namespace chkpt::gzip {
namespace {

const auto kNeverCancelled = [] { return false; };
// The last member that is not small is a short one.
constexpr std::uint64_t kRegionBytes = 5 * kMiB + 3 * kPageBytes;

Bytes ContentOfMember(const GuestMemory& memory, const Region& region) {
  Bytes bytes(region.bytes);
  EXPECT_TRUE(memory.CopyOut(region.pages(), bytes.data()).ok());
  return bytes;
}

Bytes ContentOfMember(const TestFile& file) {
  Bytes bytes(static_cast<std::size_t>(file.Stat().st_size));
  EXPECT_TRUE(ReadAll(file.fd(), 0, bytes).ok());
  return bytes;
}

std::vector<Member> MustSave(const GuestMemory& memory, const TestFile& file, unsigned threads = 2,
                             std::size_t member_bytes = kMemberBytes, std::size_t region = 0) {
  auto output = SlabOutput::Open(file.fd(), 0);
  auto members = SaveRegion(memory, memory.regions()[region], *output.value(),
                            {.threads = threads, .member_bytes = member_bytes}, kNeverCancelled);
  EXPECT_TRUE(members.ok());
  return members.value();
}

Status Load(GuestMemory& memory, const TestFile& file, std::span<const Member> members,
            unsigned threads = 2, std::size_t member_bytes = kMemberBytes) {
  return LoadMembers(memory, memory.regions()[0], file.fd(), members,
                     {.threads = threads, .member_bytes = member_bytes}, kNeverCancelled);
}

Status LoadAll(GuestMemory& memory, const TestFile& file) {
  return LoadStream(memory, memory.regions()[0], file.fd(),
                    static_cast<std::uint64_t>(file.Stat().st_size), {}, kNeverCancelled);
}

// The members as zlib reads them, one by one.
std::vector<Bytes> MembersByZlib(const Bytes& file) {
  std::vector<Bytes> members;
  z_stream stream{};
  EXPECT_EQ(inflateInit2(&stream, 15 + 16), Z_OK);
  stream.next_in = const_cast<std::uint8_t*>(file.data());
  stream.avail_in = static_cast<uInt>(file.size());
  while (stream.avail_in != 0) {
    inflateReset(&stream);
    Bytes bytes(kMemberBytesMax);
    stream.next_out = bytes.data();
    stream.avail_out = static_cast<uInt>(bytes.size());
    EXPECT_EQ(inflate(&stream, Z_FINISH), Z_STREAM_END);
    bytes.resize(stream.total_out);
    members.push_back(std::move(bytes));
  }
  inflateEnd(&stream);
  return members;
}

TEST(GzipMemoryTest, TheFileDoesNotDependOnThreadsAndZlibReadsIt) {
  auto memory = Allocate({{0, kRegionBytes}, {kGiB, 3 * kPageBytes}});
  FillRandomly(*memory, 31);
  for (const std::size_t region : {0u, 1u}) {
    const TestFile reference(0);
    const auto members = MustSave(*memory, reference, 1, kMemberBytes, region);
    const Bytes file = ContentOfMember(reference);
    const Bytes content = ContentOfMember(*memory, memory->regions()[region]);
    Bytes decoded;
    std::vector<std::size_t> sizes;
    for (const Bytes& member : MembersByZlib(file)) {
      decoded.insert(decoded.end(), member.begin(), member.end());
      sizes.push_back(member.size());
    }
    EXPECT_TRUE(decoded == content);
    const MemberLayout layout(content.size(), kMemberBytes);
    ASSERT_EQ(sizes.size(), layout.count());
    ASSERT_EQ(members.size(), layout.count());
    for (std::size_t i = 0; i < sizes.size(); ++i) EXPECT_EQ(sizes[i], layout.BytesOf(i));
    for (std::size_t i = sizes.size() - std::min<std::size_t>(4, sizes.size()); i < sizes.size();
         ++i) {
      EXPECT_EQ(sizes[i], kPageBytes);
    }
    for (const unsigned threads : {2u, 5u}) {
      const TestFile other(0);
      EXPECT_EQ(MustSave(*memory, other, threads, kMemberBytes, region), members);
      EXPECT_TRUE(ContentOfMember(other) == file);
    }
  }
}

TEST(GzipMemoryTest, PartsOfARegionAreFilesOfTheirOwn) {
  auto memory = Allocate({{0, 2 * kPageBytes}, {kGiB, kRegionBytes}});
  FillRandomly(*memory, 36);
  auto target = Allocate({{0, 2 * kPageBytes}, {kGiB, kRegionBytes}});
  const Region& region = memory->regions()[1];
  const PageRun pages = region.pages();
  for (const PageRun part :
       {PageRun{pages.first, 777}, PageRun{pages.first + 777, pages.count - 777}}) {
    const TestFile file(0);
    auto output = SlabOutput::Open(file.fd(), 0);
    auto members =
        SaveRegion(*memory, region.Part(part), *output.value(), {.threads = 2}, kNeverCancelled);
    ASSERT_TRUE(members.ok());
    Bytes decoded;
    for (const Bytes& member : MembersByZlib(ContentOfMember(file))) {
      decoded.insert(decoded.end(), member.begin(), member.end());
    }
    EXPECT_TRUE(decoded == ContentOfMember(*memory, region.Part(part)));
    const Region there = target->regions()[1].Part(part);
    const Status loaded =
        part.first == pages.first
            ? LoadMembers(*target, there, file.fd(), members.value(), {.threads = 2},
                          kNeverCancelled)
            : LoadStream(*target, there, file.fd(), static_cast<std::uint64_t>(file.Stat().st_size),
                         {}, kNeverCancelled);
    EXPECT_TRUE(loaded.ok());
  }
  EXPECT_TRUE(ContentOfMember(*target, target->regions()[1]) == ContentOfMember(*memory, region));
}

TEST(GzipMemoryTest, ComesBackWithAndWithoutItsTableIntoMemoryOfEveryKind) {
  auto memory = Allocate({{0, kRegionBytes}});
  FillRandomly(*memory, 32);
  const TestFile file(0);
  const auto members = MustSave(*memory, file);
  const Bytes content = ContentOfMember(*memory, memory->regions()[0]);
  for (const Backing backing : {Backing::kAnonymous, Backing::kMemfd}) {
    for (const bool fresh : {true, false}) {
      for (const unsigned threads : {0u, 1u, 2u, 5u}) {
        auto target = Allocate({{0, kRegionBytes}}, backing);
        if (!fresh) {
          FillRandomly(*target, 33);
          target->MarkUsed();
        }
        Status status =
            threads == 0 ? LoadAll(*target, file) : Load(*target, file, members, threads);
        ASSERT_TRUE(status.ok()) << status.error().message;
        EXPECT_TRUE(ContentOfMember(*target, target->regions()[0]) == content);
      }
    }
  }
}

TEST(GzipMemoryTest, UntouchedMemoryIsNeitherReadNorWritten) {
  auto memory = Allocate({{0, kGiB}});
  const std::uint8_t byte = 9;
  ASSERT_TRUE(memory->Write(300 * kMiB, {&byte, 1}).ok());
  const std::atomic<bool> cancelled{false};
  const std::uint64_t before = CountPresent(*memory, cancelled).value();
  const TestFile file(0);
  const auto members = MustSave(*memory, file);
  EXPECT_EQ(CountPresent(*memory, cancelled).value(), before);
  EXPECT_LT(file.Stat().st_size, static_cast<off_t>(2 * kMiB));
  for (const bool with_table : {true, false}) {
    auto target = Allocate({{0, kGiB}}, Backing::kMemfd);
    Status status = with_table ? Load(*target, file, members) : LoadAll(*target, file);
    ASSERT_TRUE(status.ok());
    EXPECT_LE(CountPresent(*target, cancelled).value(), kChunkPages);
    std::uint8_t read = 0;
    ASSERT_TRUE(target->Read(300 * kMiB, {&read, 1}).ok());
    EXPECT_EQ(read, 9);
  }
}

TEST(GzipMemoryTest, AFileOfOneMemberAsGem5WritesItIsRead) {
  auto memory = Allocate({{0, kRegionBytes}});
  FillRandomly(*memory, 34);
  const Bytes content = ContentOfMember(*memory, memory->regions()[0]);
  z_stream stream{};
  ASSERT_EQ(deflateInit2(&stream, 1, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
  Bytes encoded(deflateBound(&stream, static_cast<uLong>(content.size())));
  stream.next_in = const_cast<std::uint8_t*>(content.data());
  stream.avail_in = static_cast<uInt>(content.size());
  stream.next_out = encoded.data();
  stream.avail_out = static_cast<uInt>(encoded.size());
  ASSERT_EQ(::deflate(&stream, Z_FINISH), Z_STREAM_END);
  encoded.resize(stream.total_out);
  deflateEnd(&stream);
  const TestFile file(0);
  ASSERT_TRUE(WriteAll(file.fd(), 0, encoded).ok());
  auto target = Allocate({{0, kRegionBytes}});
  ASSERT_TRUE(LoadAll(*target, file).ok());
  EXPECT_TRUE(ContentOfMember(*target, target->regions()[0]) == content);
}

TEST(GzipMemoryTest, EveryFlippedBitIsFoundByTheTableAndNoneGivesOtherMemoryWithout) {
  auto memory = Allocate({{0, 16 * kPageBytes}});
  FillRandomly(*memory, 35);
  const TestFile file(0);
  const auto members = MustSave(*memory, file, 1, 4 * kPageBytes);
  const Bytes content = ContentOfMember(*memory, memory->regions()[0]);
  const Bytes sound = ContentOfMember(file);
  auto target = Allocate({{0, 16 * kPageBytes}});
  for (std::size_t at = 0; at < sound.size(); at += 31 * kThrift) {
    const std::uint8_t damaged = sound[at] ^ static_cast<std::uint8_t>(1u << (at % 8));
    ASSERT_TRUE(WriteAll(file.fd(), at, {&damaged, 1}).ok());
    Status status = Load(*target, file, members, 1, 4 * kPageBytes);
    ASSERT_FALSE(status.ok()) << at;
    ASSERT_EQ(status.error().code, ErrorCode::kDigest) << at;
    auto other = Allocate({{0, 16 * kPageBytes}});
    if (LoadAll(*other, file).ok()) {
      ASSERT_TRUE(ContentOfMember(*other, other->regions()[0]) == content) << at;
    }
    ASSERT_TRUE(WriteAll(file.fd(), at, {sound.data() + at, 1}).ok());
  }
}

TEST(GzipMemoryTest, ShortLongAndForeignFilesAreTypedErrors) {
  auto memory = Allocate({{0, kRegionBytes}});
  FillRandomly(*memory, 36);
  const TestFile file(0);
  auto members = MustSave(*memory, file);
  const Bytes sound = ContentOfMember(file);
  auto target = Allocate({{0, kRegionBytes}});
  const auto cut_to = [&](std::size_t bytes) {
    EXPECT_EQ(::ftruncate(file.fd(), static_cast<off_t>(bytes)), 0);
  };
  cut_to(sound.size() - 1);
  EXPECT_EQ(CodeOf(Load(*target, file, members)), ErrorCode::kTruncated);
  EXPECT_EQ(CodeOf(LoadAll(*target, file)), ErrorCode::kTruncated);
  // The last member is whole, and one is missing.
  cut_to(sound.size() - members.back().bytes);
  EXPECT_EQ(CodeOf(Load(*target, file, members)), ErrorCode::kTruncated);
  EXPECT_EQ(CodeOf(LoadAll(*target, file)), ErrorCode::kTruncated);
  cut_to(0);
  EXPECT_EQ(CodeOf(LoadAll(*target, file)), ErrorCode::kTruncated);

  ASSERT_TRUE(WriteAll(file.fd(), 0, sound).ok());
  ASSERT_TRUE(WriteAll(file.fd(), sound.size(),
                       {sound.data() + sound.size() - members.back().bytes, members.back().bytes})
                  .ok());
  EXPECT_EQ(CodeOf(LoadAll(*target, file)), ErrorCode::kTrailingData);
  cut_to(sound.size());
  const Bytes zeros(100);
  ASSERT_TRUE(WriteAll(file.fd(), sound.size(), zeros).ok());
  EXPECT_EQ(CodeOf(LoadAll(*target, file)), ErrorCode::kFormat);

  members[0].bytes = 0xffffffff;
  EXPECT_EQ(CodeOf(Load(*target, file, members)), ErrorCode::kLimit);
  // A table that is right about bytes which decode to something else than the member should be.
  ASSERT_TRUE(WriteAll(file.fd(), 0, {sound.data() + members[0].bytes % 1, 8}).ok());
  deflate::Encoder encoder;
  Bytes small(MemberBound(kPageBytes));
  small.resize(EncodeMember(encoder, Bytes(kPageBytes, 3), small.data()));
  ASSERT_TRUE(WriteAll(file.fd(), 0, small).ok());
  members[0] = {static_cast<std::uint32_t>(small.size()), XXH3_64bits(small.data(), small.size())};
  EXPECT_EQ(CodeOf(Load(*target, file, members)), ErrorCode::kTruncated);
}

TEST(GzipMemoryTest, AFullDeviceAndACancelEndASave) {
  auto memory = Allocate({{0, kRegionBytes}});
  FillRandomly(*memory, 37);
  const int full = ::open("/dev/full", O_WRONLY | O_CLOEXEC);
  ASSERT_GE(full, 0);
  auto output = SlabOutput::Open(full, 0);
  ::close(full);
  auto failed =
      SaveRegion(*memory, memory->regions()[0], *output.value(), {.threads = 3}, kNeverCancelled);
  EXPECT_EQ(CodeOf(std::move(failed)), ErrorCode::kNoSpace);
  std::atomic<int> asked{0};
  const TestFile file(0);
  output = SlabOutput::Open(file.fd(), 0);
  auto cancelled = SaveRegion(*memory, memory->regions()[0], *output.value(), {.threads = 3},
                              [&] { return ++asked > 5; });
  EXPECT_EQ(CodeOf(std::move(cancelled)), ErrorCode::kAborted);
  EXPECT_EQ(
      CodeOf(LoadStream(*memory, memory->regions()[0], file.fd(), 100, {}, [] { return true; })),
      ErrorCode::kAborted);
}

}  // namespace
}  // namespace chkpt::gzip

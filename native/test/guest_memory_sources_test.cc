// Memory that comes from outside: files, mapped or not, and attached memory.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <string>
#include <utility>
#include <vector>

#include "core/memory/guest_memory.h"
#include "core/memory/process_maps.h"
#include "test/memory_fixtures.h"

namespace chkpt {
namespace {

// --- files ---------------------------------------------------------------------------------------

using Factory = Result<Memory> (*)(const GuestMemory::FileSpec&);
Result<Memory> MapOne(const GuestMemory::FileSpec& file) { return GuestMemory::Map({&file, 1}); }
Result<Memory> OpenOne(const GuestMemory::FileSpec& file) {
  return GuestMemory::OpenFiles({&file, 1}, false);
}

TEST(GuestMemoryFileTest, AFileShorterThanItsRegionIsRefused) {
  const TestFile file(kMiB);
  for (const Factory factory : {MapOne, OpenOne}) {
    EXPECT_TRUE(
        factory({.region = {0, kMiB}, .fd = file.fd(), .fd_offset = 0, .writable = true}).ok());
    EXPECT_TRUE(
        factory({.region = {0, 4096}, .fd = file.fd(), .fd_offset = kMiB - 4096, .writable = true})
            .ok());
    for (const std::uint64_t offset : {std::uint64_t{4096}, kMiB, kTiB, ~std::uint64_t{0} - 4095,
                                       ~std::uint64_t{0} - kMiB + 1, std::uint64_t{1} << 63}) {
      EXPECT_EQ(CodeOf(factory(
                    {.region = {0, kMiB}, .fd = file.fd(), .fd_offset = offset, .writable = true})),
                ErrorCode::kMemoryShort)
          << offset;
    }
  }
}

TEST(GuestMemoryFileTest, DescriptorsThatCannotDoWhatIsAskedAreRefused) {
  const TestFile file(kMiB, true);
  const int read_only = file.Reopen(O_RDONLY);
  const int write_only = file.Reopen(O_WRONLY);
  const int append = file.Reopen(O_RDWR | O_APPEND);
  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);
  for (const Factory factory : {MapOne, OpenOne}) {
    const auto code = [factory](int fd, bool writable) {
      return CodeOf(factory({.region = {0, kMiB}, .fd = fd, .fd_offset = 0, .writable = writable}));
    };
    EXPECT_EQ(code(read_only, true), ErrorCode::kPermission);
    EXPECT_EQ(code(write_only, true), ErrorCode::kPermission);
    EXPECT_EQ(code(write_only, false), ErrorCode::kPermission);
    EXPECT_EQ(code(ends[0], false), ErrorCode::kUnsupported);
    EXPECT_EQ(code(-1, false), ErrorCode::kIo);
  }
  // pwrite would append whatever the offset; a mapping does not care.
  EXPECT_EQ(CodeOf(OpenOne({.region = {0, kMiB}, .fd = append, .fd_offset = 0, .writable = true})),
            ErrorCode::kUnsupported);
  EXPECT_TRUE(OpenOne({.region = {0, kMiB}, .fd = append, .fd_offset = 0, .writable = false}).ok());
  EXPECT_EQ(
      CodeOf(MapOne({.region = {0, 4096}, .fd = file.fd(), .fd_offset = 512, .writable = false})),
      ErrorCode::kFormat);
  for (const int fd : {read_only, write_only, append, ends[0], ends[1]}) ::close(fd);
}

TEST(GuestMemoryFileTest, ReadOnlyMemoryRefusesEveryWrite) {
  const TestFile file(kMiB);
  const int read_only = file.Reopen(O_RDONLY);
  Bytes page(kPageBytes, 1);
  for (const Factory factory : {MapOne, OpenOne}) {
    const Memory memory =
        factory({.region = {0, kMiB}, .fd = read_only, .fd_offset = 0, .writable = false}).value();
    EXPECT_EQ(CodeOf(memory->Write(0, page)), ErrorCode::kPermission);
    EXPECT_EQ(CodeOf(memory->CopyIn({0, 1}, page.data())), ErrorCode::kPermission);
    EXPECT_EQ(CodeOf(memory->Zero({0, 1})), ErrorCode::kPermission);
    EXPECT_TRUE(memory->Read(0, page).ok());
  }
  Bytes all(kMiB, 1);
  ASSERT_TRUE(ReadAll(file.fd(), 0, all).ok());
  EXPECT_TRUE(all == Bytes(kMiB)) << "something was written";
  ::close(read_only);
}

TEST(GuestMemoryFileTest, MappedAndFileMemoryOutliveTheCallersDescriptor) {
  Memory memories[2];
  const Bytes data = RandomBytes(kMiB, 4);
  {
    const TestFile file(2 * kMiB);
    ASSERT_TRUE(WriteAll(file.fd(), kMiB, data).ok());
    memories[0] =
        MapOne({.region = {0, kMiB}, .fd = file.fd(), .fd_offset = kMiB, .writable = true}).value();
    memories[1] =
        OpenOne({.region = {0, kMiB}, .fd = file.fd(), .fd_offset = kMiB, .writable = true})
            .value();
  }
  for (const Memory& memory : memories) {
    Bytes read(kMiB);
    ASSERT_TRUE(memory->Read(0, read).ok());
    EXPECT_EQ(read, data);
    EXPECT_NE(::fcntl(memory->regions()[0].fd, F_GETFD) & FD_CLOEXEC, 0);
  }
}

TEST(GuestMemoryFileTest, AFileCutAfterOpeningGivesMemoryShortWithThePage) {
  const TestFile file(kMiB);
  const Memory memory =
      OpenOne({.region = {0, kMiB}, .fd = file.fd(), .fd_offset = 0, .writable = true}).value();
  ASSERT_EQ(::ftruncate(file.fd(), 10 * kPageBytes + 100), 0);
  Bytes page(kPageBytes);
  EXPECT_TRUE(memory->CopyOut({9, 1}, page.data()).ok());
  Status status = memory->CopyOut({10, 1}, page.data());
  ASSERT_EQ(CodeOf(status), ErrorCode::kMemoryShort);
  EXPECT_EQ(status.error().page, 10U);
}

TEST(GuestMemoryFileTest, FreshFilesAreExtendedAndMarkedFreshOnlyWhereTheyHoldNoData) {
  for (const bool on_disk : {false, true}) {
    const TestFile file(0, on_disk);
    // In the order of the file, and against it.
    const GuestMemory::FileSpec files[] = {
        {.region = {0, kMiB}, .fd = file.fd(), .fd_offset = 6 * kGiB, .writable = true},
        {.region = {8 * kGiB, kMiB}, .fd = file.fd(), .fd_offset = 0, .writable = true},
        {.region = {9 * kGiB, kMiB}, .fd = file.fd(), .fd_offset = kMiB, .writable = true}};
    {
      const Memory memory = GuestMemory::OpenFiles(files, true).value();
      EXPECT_EQ(static_cast<std::uint64_t>(file.Stat().st_size), 6 * kGiB + kMiB);
      for (const Region& region : memory->regions()) EXPECT_TRUE(region.fresh);
      const Bytes byte(1, 7);
      ASSERT_TRUE(memory->Write(8 * kGiB + 5000, byte).ok());
      EXPECT_FALSE(memory->regions()[1].fresh);
    }
    const Memory again = GuestMemory::OpenFiles(files, true).value();
    EXPECT_EQ(static_cast<std::uint64_t>(file.Stat().st_size), 6 * kGiB + kMiB) << "never cut";
    EXPECT_TRUE(again->regions()[0].fresh);
    EXPECT_FALSE(again->regions()[1].fresh) << "a load would leave old bytes where zeros belong";
    EXPECT_TRUE(again->regions()[2].fresh);
    EXPECT_FALSE(GuestMemory::OpenFiles(files, false).value()->regions()[0].fresh);
  }
}

TEST(GuestMemoryFileTest, TheSizeOfAMemfdCannotBeCutUnderTheGuest) {
  const Memory memory = MustAllocate({{0, kMiB}}, Backing::kMemfd);
  EXPECT_EQ(::ftruncate(memory->regions()[0].fd, 4096), -1);
  EXPECT_EQ(::ftruncate(memory->regions()[0].fd, 2 * kMiB), -1);
}

TEST(GuestMemoryFileTest, ReadAllAndWriteAllMoveEveryByteOrSayWhatStoppedThem) {
  const TestFile file(6 * kGiB);
  const Bytes data = RandomBytes(3 * kMiB + 17, 6);
  ASSERT_TRUE(WriteAll(file.fd(), 6 * kGiB - data.size(), data).ok());
  Bytes read(data.size());
  ASSERT_TRUE(ReadAll(file.fd(), 6 * kGiB - data.size(), read).ok());
  EXPECT_EQ(read, data);
  // A short read, then the end of the file.
  Status status = ReadAll(file.fd(), 6 * kGiB - 10, std::span(read).first(11));
  EXPECT_EQ(CodeOf(status), ErrorCode::kMemoryShort);
  EXPECT_EQ(status.error().offset, 6 * kGiB);
  EXPECT_EQ(CodeOf(ReadAll(-1, 0, read)), ErrorCode::kIo);
  const int read_only = file.Reopen(O_RDONLY);
  EXPECT_EQ(CodeOf(WriteAll(read_only, 0, data)), ErrorCode::kIo);
  ::close(read_only);
}

TEST(GuestMemoryFileTest, AWriteThatStopsHalfwayIsAnErrorNotAShortFile) {
  // The limit makes the first write short and the next one fail, as a disk that fills up does.
  const TestFile file(0);
  rlimit before = {};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  const rlimit limit = {.rlim_cur = 5 * kPageBytes, .rlim_max = before.rlim_max};
  const auto old_handler = std::signal(SIGXFSZ, SIG_IGN);
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &limit), 0);
  const Bytes data = RandomBytes(10 * kPageBytes, 7);
  Status status = WriteAll(file.fd(), 0, data);
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
  static_cast<void>(std::signal(SIGXFSZ, old_handler));
  EXPECT_EQ(CodeOf(status), ErrorCode::kNoSpace);
  EXPECT_EQ(status.error().offset, 5 * kPageBytes);
}

TEST(GuestMemoryFileTest, ABlockDeviceIsMemoryOfItsDriversSize) {
  const TestFile file(kMiB, true);
  const LoopDevice device(file.fd());
  if (!device.ok()) GTEST_SKIP() << "block device: no loop device (not root?)";
  for (const Factory factory : {MapOne, OpenOne}) {
    EXPECT_EQ(
        CodeOf(factory(
            {.region = {0, kMiB + 4096}, .fd = device.fd(), .fd_offset = 0, .writable = true})),
        ErrorCode::kMemoryShort);
    const Memory memory =
        factory({.region = {0, kMiB}, .fd = device.fd(), .fd_offset = 0, .writable = true}).value();
    const Bytes data = RandomBytes(4 * kPageBytes, 10);
    Bytes read(data.size());
    ASSERT_TRUE(memory->Write(kMiB - data.size(), data).ok());
    ASSERT_TRUE(memory->Read(kMiB - data.size(), read).ok());
    EXPECT_EQ(read, data);
    ASSERT_TRUE(memory->Zero({252, 4}).ok());
    ASSERT_TRUE(memory->Read(kMiB - data.size(), read).ok());
    EXPECT_EQ(read, Bytes(data.size()));
  }
}

// --- attached memory
// -------------------------------------------------------------------------------

TEST(GuestMemoryAttachTest, AttachedMemoryShorterThanItsRegionIsRefused) {
  Bytes bytes(2 * kPageBytes);
  const GuestMemory::AttachSpec attach = {
      .region = {0, 2 * kPageBytes}, .host = bytes.data(), .host_bytes = 2 * kPageBytes - 1};
  EXPECT_EQ(CodeOf(GuestMemory::Attach({&attach, 1})), ErrorCode::kMemoryShort);
}

TEST(GuestMemoryAttachTest,
     OnlyPrivateAnonymousMemoryIsTrustedToHaveNoContentWhereItWasNotTouched) {
  constexpr std::size_t kBytes = 1 << 20;
  const TestFile file(kBytes);
  const auto presence = [](int flags, int fd) {
    void* const host = ::mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, flags, fd, 0);
    EXPECT_NE(host, MAP_FAILED);
    const GuestMemory::AttachSpec attach = {
        .region = {0, kBytes}, .host = static_cast<std::uint8_t*>(host), .host_bytes = kBytes};
    const Memory memory = GuestMemory::Attach({&attach, 1}).value();
    EXPECT_FALSE(memory->regions()[0].fresh);
    const Presence found = memory->regions()[0].presence;
    ::munmap(host, kBytes);
    return found;
  };
  EXPECT_EQ(presence(MAP_PRIVATE | MAP_ANONYMOUS, -1), Presence::kPagemap);
  EXPECT_EQ(presence(MAP_SHARED | MAP_ANONYMOUS, -1), Presence::kAll);
  EXPECT_EQ(presence(MAP_PRIVATE, file.fd()), Presence::kAll);
  EXPECT_EQ(presence(MAP_SHARED, file.fd()), Presence::kAll);
}

TEST(GuestMemoryAttachTest, AttachedMemoryOfAnyKindIsZeroedInPlaceAndNotUnmapped) {
  for (const int kind : {MAP_PRIVATE, MAP_SHARED}) {
    void* const space =
        ::mmap(nullptr, 4 * kPageBytes, PROT_READ | PROT_WRITE, kind | MAP_ANONYMOUS, -1, 0);
    ASSERT_NE(space, MAP_FAILED);
    std::uint8_t* const host = static_cast<std::uint8_t*>(space);
    std::fill_n(host, 4 * kPageBytes, std::uint8_t{1});
    {
      const GuestMemory::AttachSpec attach = {
          .region = {kGiB, 4 * kPageBytes}, .host = host, .host_bytes = 4 * kPageBytes};
      const Memory memory = GuestMemory::Attach({&attach, 1}).value();
      ASSERT_TRUE(memory->Zero({1, 2}).ok());
    }
    for (std::size_t i = 0; i < 4 * kPageBytes; ++i) {
      ASSERT_EQ(host[i], i / kPageBytes == 1 || i / kPageBytes == 2 ? 0 : 1) << i;
    }
    ::munmap(space, 4 * kPageBytes);
  }
}

TEST(ProcessMapsTest, LinesOfOtherKindsAreNotAnonymousAndNeighboursJoin) {
  const ProcessMaps maps(
      "00010000-00020000 r-xp 00000000 fe:00 123                    /usr/bin/node\n"
      "00020000-00030000 rw-p 00000000 00:00 0                      [heap]\n"
      "00030000-00040000 rw-p 00000000 00:00 0 \n"
      "00040000-00050000 ---p 00000000 00:00 0                      [anon:V8 space]\n"
      "00060000-00070000 rw-s 00000000 00:01 42                     /dev/zero (deleted)\n"
      "00070000-00080000 rw-p 00000000 00:05 7                      /dev/zero\n"
      "00080000-00090000 r--p 00000000 00:00 0                      [vvar]\n"
      "nonsense\n"
      "zzz-00095000 rw-p 00000000 00:00 0\n"
      "00095000 rw-p 00000000 00:00 0\n"
      "7ffffffde000-7ffffffff000 rw-p 00000000 00:00 0              [stack]");
  EXPECT_TRUE(maps.IsPrivateAnonymous(0x20000, 0x30000));
  EXPECT_TRUE(maps.IsPrivateAnonymous(0x2fff8, 0x10008));
  EXPECT_TRUE(maps.IsPrivateAnonymous(0x7ffffffde000, 0x21000));
  EXPECT_FALSE(maps.IsPrivateAnonymous(0x1fff0, 0x20));
  EXPECT_FALSE(maps.IsPrivateAnonymous(0x20000, 0x30001));
  EXPECT_FALSE(maps.IsPrivateAnonymous(0x50000, 1));
  for (const std::uint64_t address : {0x10000, 0x60000, 0x70000, 0x80000, 0x90000}) {
    EXPECT_FALSE(maps.IsPrivateAnonymous(address, 1)) << address;
  }
  EXPECT_FALSE(maps.IsPrivateAnonymous(0x20000, ~std::uint64_t{0}));
  EXPECT_FALSE(ProcessMaps("").IsPrivateAnonymous(0, 1));
}

}  // namespace
}  // namespace chkpt

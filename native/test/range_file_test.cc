// Guest memory to and from any place in a file.
#include "core/memory/range_file.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <array>
#include <atomic>

#include "core/base/exchange_paths.h"
#include "test/memory_fixtures.h"

namespace chkpt {
namespace {

// They touch at 1 MiB; a hole follows.
constexpr std::array<RegionSpec, 3> kApart = {
    {{0, kMiB}, {kMiB, 2 * kMiB + 8192}, {8 * kMiB, kMiB}}};
constexpr std::uint64_t kOdd = 104;

Memory RegionsApart() { return GuestMemory::Allocate(kApart, {}).value(); }

class RangeFileTest : public testing::Test {
 protected:
  std::atomic<bool> not_cancelled_{false};
};

TEST_F(RangeFileTest, WhatWasWrittenComesBackAtAnyPlaceOfTheFile) {
  const TestFile file(0, true);
  const Memory memory = RegionsApart();
  const Bytes content = RandomBytes(12 * 4096, 1);
  for (const std::uint64_t at : {std::uint64_t{0}, kMiB - 4096, 2 * kMiB}) {
    ASSERT_TRUE(memory->Write(at, content).ok());
  }
  const std::uint64_t bytes = 3 * kMiB + 8192;
  ASSERT_TRUE(CopyRangeToFile(*memory, 0, bytes, file.fd(), kOdd, not_cancelled_).ok());
  EXPECT_EQ(static_cast<std::uint64_t>(file.Stat().st_size), kOdd + bytes);
  Bytes expected(bytes);
  Bytes stored(bytes);
  ASSERT_TRUE(memory->Read(0, expected).ok());
  ASSERT_TRUE(ReadAll(file.fd(), kOdd, stored).ok());
  EXPECT_EQ(stored, expected);

  const Memory copy = RegionsApart();
  ASSERT_TRUE(CopyRangeFromFile(*copy, 0, bytes, file.fd(), kOdd, not_cancelled_).ok());
  Bytes read(bytes);
  ASSERT_TRUE(copy->Read(0, read).ok());
  EXPECT_EQ(read, expected);
}

TEST_F(RangeFileTest, ZerosStayHolesInTheFile) {
  const TestFile file(0, true);
  const Memory memory = RegionsApart();
  ASSERT_TRUE(memory->Write(0, Bytes(kMiB)).ok());
  ASSERT_TRUE(memory->Write(2 * kMiB, RandomBytes(4096, 2)).ok());
  ASSERT_TRUE(CopyRangeToFile(*memory, 0, 3 * kMiB, file.fd(), kOdd, not_cancelled_).ok());
  EXPECT_EQ(static_cast<std::uint64_t>(file.Stat().st_size), kOdd + 3 * kMiB);
  EXPECT_LT(static_cast<std::uint64_t>(file.Stat().st_blocks) * 512, kMiB);
}

TEST_F(RangeFileTest, RangesOutsideMemoryOrNotOfPagesAreRefusedBeforeAnythingIsWritten) {
  const TestFile file(0, true);
  const Memory memory = RegionsApart();
  const std::uint64_t top = ~std::uint64_t{0} - 4095;
  for (const auto& [address, bytes] :
       std::initializer_list<std::pair<std::uint64_t, std::uint64_t>>{{0, 4 * kMiB},
                                                                      {100, 4096},
                                                                      {0, 100},
                                                                      {7 * kMiB, 2 * kMiB},
                                                                      {top, 8192},
                                                                      {20 * kMiB, 4096}}) {
    EXPECT_EQ(CopyRangeToFile(*memory, address, bytes, file.fd(), 0, not_cancelled_).error().code,
              ErrorCode::kFormat);
    EXPECT_EQ(CopyRangeFromFile(*memory, address, bytes, file.fd(), 0, not_cancelled_).error().code,
              ErrorCode::kFormat);
  }
  EXPECT_EQ(file.Stat().st_size, 0);
}

TEST_F(RangeFileTest, AFileThatEndsTooEarlyIsToldBeforeMemoryIsTouched) {
  const TestFile file(kMiB, true);
  const Memory memory = RegionsApart();
  ASSERT_TRUE(WriteAll(file.fd(), 0, RandomBytes(4096, 3)).ok());
  EXPECT_EQ(CopyRangeFromFile(*memory, 0, kMiB, file.fd(), 1, not_cancelled_).error().code,
            ErrorCode::kMemoryShort);
  Bytes read(4096, 1);
  ASSERT_TRUE(memory->Read(0, read).ok());
  EXPECT_EQ(read, Bytes(4096));
}

TEST_F(RangeFileTest, CancelledEndsIt) {
  const TestFile file(kMiB, true);
  const Memory memory = RegionsApart();
  const std::atomic<bool> cancelled{true};
  EXPECT_EQ(CopyRangeToFile(*memory, 0, kMiB, file.fd(), 0, cancelled).error().code,
            ErrorCode::kAborted);
  EXPECT_EQ(CopyRangeFromFile(*memory, 0, kMiB, file.fd(), 0, cancelled).error().code,
            ErrorCode::kAborted);
}

TEST(ExchangePathsTest, TwoFoldersChangePlaces) {
  char root[] = "/tmp/chkpt-exchange-XXXXXX";
  ASSERT_NE(::mkdtemp(root), nullptr);
  const std::string left = std::string(root) + "/a";
  const std::string right = std::string(root) + "/b";
  ASSERT_EQ(::mkdir(left.c_str(), 0700), 0);
  ASSERT_EQ(::mkdir(right.c_str(), 0700), 0);
  struct stat before;
  struct stat after;
  ASSERT_EQ(::stat(left.c_str(), &before), 0);
  Status exchanged = ExchangePaths(left, right);
  if (!exchanged.ok() && exchanged.error().code == ErrorCode::kUnsupported) {
    GTEST_SKIP() << "this file system cannot exchange names";
  }
  ASSERT_EQ(::stat(right.c_str(), &after), 0);
  EXPECT_EQ(before.st_ino, after.st_ino);
  EXPECT_EQ(ExchangePaths(left, right + "c").error().code, ErrorCode::kNotFound);
  ::rmdir(left.c_str());
  ::rmdir(right.c_str());
  ::rmdir(root);
}

}  // namespace
}  // namespace chkpt

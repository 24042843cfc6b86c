// Pages of a Palacios migration: exact bytes, placed where they belong, and nothing placed of what
// is none.
#include "core/foreign/palacios_pages.h"

#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <string>

#include "test/memory_fixtures.h"

namespace chkpt {
namespace {

constexpr std::array<RegionSpec, 2> kTwoPieces = {{{0, 8 * 4096}, {8 * 4096, 8 * 4096}}};

Memory TwoPieces() { return GuestMemory::Allocate(kTwoPieces, {}).value(); }

// The bytes of one page's frames, from the published description.
Bytes Frames(const Bytes& page) {
  const std::string key("\x0b\x80memory_page", 13);
  const std::string record("\x23\x01\xcd\xab\x0b\0\0\0\0\0\0\0memory_page\0\x10\0\0\0\0\0\0", 31);
  Bytes bytes(key.begin(), key.end());
  bytes.insert(bytes.end(), record.begin(), record.end());
  bytes.insert(bytes.end(), page.begin(), page.end());
  bytes.insert(bytes.end(), key.begin(), key.end());
  return bytes;
}

TEST(PalaciosPagesTest, FramesAreThoseOfTheOriginalAcrossRegionsThatTouch) {
  const Memory memory = TwoPieces();
  const Bytes content = RandomBytes(2 * 4096, 1);
  ASSERT_TRUE(memory->Write(7 * 4096, content).ok());
  auto bytes = EncodePalaciosPages(*memory, {7, 2});
  ASSERT_TRUE(bytes.ok());
  Bytes expected = Frames(Bytes(content.begin(), content.begin() + 4096));
  const Bytes second = Frames(Bytes(content.begin() + 4096, content.end()));
  expected.insert(expected.end(), second.begin(), second.end());
  EXPECT_EQ(bytes.value(), expected);
  EXPECT_EQ(expected.size(), 2 * kPalaciosPageBytes);
}

TEST(PalaciosPagesTest, PagesComeBackAndAreLogged) {
  const Memory memory = TwoPieces();
  const auto log = std::make_shared<DirtyBitmap>(memory->page_count());
  memory->AddWriteLog(log);
  const Bytes content = RandomBytes(4096, 2);
  Bytes frames = Frames(content);
  const Bytes zero = Frames(Bytes(4096));
  frames.insert(frames.end(), zero.begin(), zero.end());
  ASSERT_TRUE(memory->Write(8 * 4096, RandomBytes(4096, 3)).ok());
  ASSERT_TRUE(PlacePalaciosPages(*memory, 7, frames).ok());
  Bytes read(2 * 4096);
  ASSERT_TRUE(memory->Read(7 * 4096, read).ok());
  EXPECT_TRUE(std::equal(content.begin(), content.end(), read.begin()));
  EXPECT_TRUE(
      std::all_of(read.begin() + 4096, read.end(), [](std::uint8_t byte) { return byte == 0; }));
  EXPECT_TRUE(log->IsMarked(7));
  EXPECT_TRUE(log->IsMarked(8));
  EXPECT_FALSE(memory->regions()[0].fresh);
}

TEST(PalaciosPagesTest, OneWrongByteOfAFramePlacesNothing) {
  const Memory memory = TwoPieces();
  for (const std::size_t at :
       {std::size_t{0}, std::size_t{1}, std::size_t{12}, std::size_t{13}, std::size_t{17},
        std::size_t{30}, std::size_t{43}, kPalaciosPageBytes - 13, kPalaciosPageBytes - 1}) {
    Bytes frames = Frames(RandomBytes(4096, 4));
    const Bytes last = Frames(RandomBytes(4096, 5));
    frames.insert(frames.end(), last.begin(), last.end());
    frames[kPalaciosPageBytes + at] ^= 1;
    Status placed = PlacePalaciosPages(*memory, 3, frames);
    ASSERT_FALSE(placed.ok()) << at;
    EXPECT_EQ(placed.error().code, ErrorCode::kFormat);
    EXPECT_EQ(placed.error().page, 4u);
    Bytes read(4096, 1);
    ASSERT_TRUE(memory->Read(3 * 4096, read).ok());
    EXPECT_EQ(read, Bytes(4096));
  }
}

}  // namespace
}  // namespace chkpt

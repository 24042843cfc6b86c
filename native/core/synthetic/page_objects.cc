#include "core/synthetic/page_objects.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstring>

#include "core/synthetic/page_buffer.h"

namespace chkpt {
namespace {

// What one word of a structure holds.
enum class Field : std::uint8_t {
  kZero,
  kConstant,  // type, operations table, flags: the same in all objects of the cache
  kNeighbor,  // list pointer to the object before or after
  kNearby,    // pointer into the same few MiB
  kCount,     // reference count or length
  kPair,      // two 32-bit numbers
  kName,      // up to 8 characters
  kHash,      // a hash value or a key
};

// Of 32 fields. Zeros and constants lead, as in real caches.
constexpr Field kFieldOfDraw[32] = {
    Field::kZero,     Field::kZero,     Field::kZero,     Field::kZero,     Field::kZero,
    Field::kZero,     Field::kZero,     Field::kZero,     Field::kConstant, Field::kConstant,
    Field::kConstant, Field::kConstant, Field::kConstant, Field::kConstant, Field::kNeighbor,
    Field::kNeighbor, Field::kNeighbor, Field::kNeighbor, Field::kNearby,   Field::kNearby,
    Field::kNearby,   Field::kNearby,   Field::kNearby,   Field::kCount,    Field::kCount,
    Field::kCount,    Field::kCount,    Field::kPair,     Field::kPair,     Field::kName,
    Field::kName,     Field::kHash};

constexpr std::size_t kObjectWords[16] = {6,  6,  7,  8,  8,  8,  12, 12,
                                          16, 16, 24, 24, 32, 48, 64, 128};
constexpr std::size_t kObjectWordsMax = 128;

struct Layout {
  std::size_t word_count = 0;
  std::uint64_t arena = 0;  // address of the extent's memory
  std::array<Field, kObjectWordsMax> fields{};
  std::array<std::uint64_t, kObjectWordsMax> constants{};
};

void MakeLayout(std::uint64_t extent_seed, Layout* layout) {
  PageRandom random(extent_seed);
  const std::uint64_t shape = random.Next();
  layout->word_count = kObjectWords[shape & 15];
  // Of 16 fields, how many are never used besides those drawn as zero: 2 to 9.
  const std::uint64_t unused_share = 2 + (shape >> 8 & 7);
  // Kernel direct map, user heap, user mmap.
  constexpr std::uint64_t kArenas[4] = {0xffff888000000000u, 0xffff888000000000u,
                                        0x0000555500000000u, 0x00007f1200000000u};
  layout->arena = kArenas[shape >> 4 & 3] + ((shape >> 32) << 12 & 0xffc00000u);
  for (std::size_t i = 0; i < layout->word_count; ++i) {
    const std::uint64_t bits = random.Next();
    layout->fields[i] = bits >> 60 < unused_share ? Field::kZero : kFieldOfDraw[bits & 31];
    const bool small = (bits >> 5 & 1) != 0;
    layout->constants[i] = small ? bits >> 8 & 0xff : 0xffffffff81000000u + (bits >> 8 & 0xfffff8u);
  }
}

std::uint64_t MakeName(std::uint64_t bits) {
  constexpr char kLetters[] = "etaoinshrdlcumwfgypbvk-_eaorstin";
  std::uint64_t name = 0;
  const std::uint64_t length = 3 + (bits >> 60) % 6;
  for (std::uint64_t i = 0; i < length; ++i) {
    name = name << 8 | static_cast<std::uint8_t>(kLetters[bits >> (i * 5) & 31]);
  }
  return name;
}

std::uint64_t FieldValue(Field field, std::uint64_t constant, std::uint64_t address,
                         std::uint64_t stride, std::uint64_t bits) {
  switch (field) {
    case Field::kZero: return 0;
    case Field::kConstant: return constant;
    case Field::kNeighbor: return (bits & 1) != 0 ? address + stride : address - stride;
    case Field::kNearby: return (address & ~std::uint64_t{0x3fffff}) + (bits & 0x3ffff0);
    case Field::kCount: return (bits & 3) != 0 ? 1 : bits >> 8 & 0xff;
    case Field::kPair: return (bits & 0xffff) | (bits >> 16 & 0xff) << 32;
    case Field::kName: return MakeName(bits);
    case Field::kHash: return bits;
  }
  return 0;
}

}  // namespace

void WriteObjectPage(const PageSeeds& seeds, std::uint8_t* target) {
  Layout layout;
  MakeLayout(seeds.extent, &layout);
  PageRandom random(seeds.page);
  const std::uint64_t page_address = layout.arena + (random.Next() & 0x3ff000);
  const std::uint64_t stride = layout.word_count * sizeof(std::uint64_t);

  std::uint64_t words[kPageWords];
  std::size_t at = 0;
  while (at < kPageWords) {
    const std::uint64_t address = page_address + at * sizeof(std::uint64_t);
    const std::size_t count = std::min(layout.word_count, kPageWords - at);
    if ((random.Next() & 7) == 0) {  // a free object: a pointer to the next free one, then zeros
      std::memset(words + at, 0, count * sizeof(std::uint64_t));
      words[at] = address + stride;
      at += count;
      continue;
    }
    for (std::size_t i = 0; i < count; ++i) {
      words[at++] =
          FieldValue(layout.fields[i], layout.constants[i], address, stride, random.Next());
    }
  }
  std::memcpy(target, words, sizeof(words));
}

}  // namespace chkpt

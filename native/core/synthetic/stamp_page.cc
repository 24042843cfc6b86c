#include "core/synthetic/stamp_page.h"

#include <atomic>
#include <cstring>

#include "core/synthetic/page_code.h"
#include "core/synthetic/page_objects.h"
#include "core/synthetic/page_random.h"
#include "core/synthetic/page_text.h"

namespace chkpt {
namespace {

constexpr std::uint64_t kMagic = 0x0a0d504d41545389u;  // 0x89 "STAMP" CR LF
constexpr std::uint64_t kBodySeed = 0x7374616d70u;
constexpr std::size_t kPageNumberWord = 1;
constexpr std::size_t kCounterWord = 2;
constexpr std::size_t kChecksumWord = kPageWords - 1;
// Where the derived words are: the last word of every eighth of the page but the last.
constexpr std::size_t kDerivedStride = kPageWords / 8;
constexpr std::size_t kDerivedCount = 7;

constexpr std::size_t DerivedPlace(std::size_t index) { return (index + 1) * kDerivedStride - 1; }

std::uint64_t DerivedWord(std::uint64_t page, std::uint64_t counter, std::size_t index) {
  return MixWords(page * kDerivedCount + index, counter);
}

std::uint64_t Checksum(std::uint64_t page, std::uint64_t counter) {
  std::uint64_t sum = MixWords(kMagic ^ page, counter);
  for (std::size_t i = 0; i < kDerivedCount; ++i) {
    sum = MixWords(sum, DerivedWord(page, counter, i));
  }
  return sum;
}

// Puts the words that change into a body.
template <typename Store>
void StoreStamp(std::uint64_t page, std::uint64_t counter, Store store) {
  store(kPageNumberWord, page);
  store(kCounterWord, counter);
  for (std::size_t i = 0; i < kDerivedCount; ++i) {
    store(DerivedPlace(i), DerivedWord(page, counter, i));
  }
  store(kChecksumWord, Checksum(page, counter));
  store(0, kMagic);
}

}  // namespace

const StampPages& StampPages::Get() {
  // Never deleted: a thread may stamp until the very end of the process.
  static const StampPages* const pages = new StampPages;
  return *pages;
}

StampPages::StampPages() : bodies_(kBodyCount) {
  const TextWriter text;
  const CodeWriter code;
  for (std::size_t index = 0; index < bodies_.size(); ++index) {
    const std::size_t extent = index / kBlockPages;
    const PageSeeds seeds{MixWords(kBodySeed, extent), MixWords(kBodySeed + 1, index)};
    alignas(8) std::uint8_t buffer[kPageBufferBytes];
    switch (extent % 3) {
      case 0: text.WritePage(seeds, buffer); break;
      case 1: code.WritePage(seeds, buffer); break;
      default: WriteObjectPage(seeds, buffer); break;
    }
    std::memcpy(bodies_[index].data(), buffer, kPageBytes);
  }
}

void StampPages::Write(std::uint64_t page, std::uint64_t counter, std::uint64_t* target) const {
  const auto store = [target](std::size_t place, std::uint64_t word) {
    std::atomic_ref(target[place]).store(word, std::memory_order_relaxed);
  };
  const auto load = [target](std::size_t place) {
    return std::atomic_ref(target[place]).load(std::memory_order_relaxed);
  };
  if (load(0) != kMagic || load(kPageNumberWord) != page) {
    const Body& body = BodyOf(page);
    for (std::size_t place = 0; place < kPageWords; ++place) store(place, body[place]);
  }
  StoreStamp(page, counter, store);
}

StampState StampPages::Check(std::uint64_t page, const std::uint64_t* words,
                             std::uint64_t* counter) const {
  if (words[0] != kMagic) return StampState::kNone;
  Body expected = BodyOf(page);
  StoreStamp(page, words[kCounterWord],
             [&expected](std::size_t place, std::uint64_t word) { expected[place] = word; });
  if (std::memcmp(words, expected.data(), kPageBytes) != 0) return StampState::kDamaged;
  *counter = words[kCounterWord];
  return StampState::kValid;
}

}  // namespace chkpt

#include "core/codec/lz4_encoder.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

#include "core/base/bytes.h"
#include "core/base/result.h"

namespace chkpt {
namespace {

// Shorter matches are left to the literals. LZ4 allows 4; in memory matches of 4 and 5 bytes are a
// third of all sequences and save one or two bytes each, while a sequence costs 20 ns, most of it
// in branches that cannot be predicted.
constexpr std::uint32_t kMatchBytesMin = 6;
// Of the format: a block ends with 5 literals, and its last match begins 12 bytes before the end.
constexpr std::uint32_t kLastLiterals = 5;
// No match begins in the last bytes, so that every read and every copy in strides stays inside.
constexpr std::uint32_t kTailBytes = 48;
constexpr std::uint32_t kFormatMatchMin = 4;
constexpr std::uint32_t kNibbleMax = 15;
constexpr std::uint32_t kByteMax = 255;
// The step between pairs of positions grows by one every 8 pairs without a match.
constexpr int kSkipShift = 3;

constexpr int kTableBits = 13;
constexpr std::uint64_t kPrime = 0x9e3779b185ebca87;

std::uint64_t MatchKey(std::uint64_t word) { return word << (64 - 8 * kMatchBytesMin); }

std::size_t Slot(std::uint64_t word) {
  return static_cast<std::size_t>((MatchKey(word) * kPrime) >> (64 - kTableBits));
}

std::uint32_t EqualBytes(std::uint64_t difference) {
  return static_cast<std::uint32_t>(std::countr_zero(difference)) / 8;
}

// How many bytes at `later` equal those at `earlier`, at most end - later. Reads 16 bytes at both.
std::uint32_t CommonBytes(const std::uint8_t* earlier, const std::uint8_t* later,
                          const std::uint8_t* end) {
  const std::uint64_t first = Load<std::uint64_t>(later) ^ Load<std::uint64_t>(earlier);
  if (first != 0) [[likely]]
    return EqualBytes(first);
  const std::uint64_t second = Load<std::uint64_t>(later + 8) ^ Load<std::uint64_t>(earlier + 8);
  if (second != 0) [[likely]]
    return 8 + EqualBytes(second);
  const std::uint8_t* const begin = later;
  for (later += 16, earlier += 16; end - later >= 8; later += 8, earlier += 8) {
    const std::uint64_t difference = Load<std::uint64_t>(later) ^ Load<std::uint64_t>(earlier);
    if (difference != 0) return static_cast<std::uint32_t>(later - begin) + EqualBytes(difference);
  }
  for (; later < end && *later == *earlier; ++later) ++earlier;
  return static_cast<std::uint32_t>(later - begin);
}

std::uint8_t* PutLength(std::uint8_t* target, std::uint32_t rest) {
  for (; rest >= kByteMax; rest -= kByteMax) *target++ = kByteMax;
  *target++ = static_cast<std::uint8_t>(rest);
  return target;
}

// Copies in strides of 32 bytes: reads and writes up to 31 bytes more.
std::uint8_t* PutLiterals(std::uint8_t* target, const std::uint8_t* literals, std::uint32_t count) {
  std::uint8_t* const end = target + count;
  for (; target < end; target += 32, literals += 32) std::memcpy(target, literals, 32);
  return end;
}

std::uint8_t* PutSequence(std::uint8_t* target, const std::uint8_t* literals, std::uint32_t count,
                          std::uint32_t distance, std::uint32_t match_bytes) {
  const std::uint32_t match = match_bytes - kFormatMatchMin;
  std::uint8_t* const token = target++;
  if (count < kNibbleMax) [[likely]] {
    *token = static_cast<std::uint8_t>(count << 4);
    std::memcpy(target, literals, 16);
    target += count;
  } else {
    *token = kNibbleMax << 4;
    target = PutLiterals(PutLength(target, count - kNibbleMax), literals, count);
  }
  Store<std::uint16_t>(target, static_cast<std::uint16_t>(distance));
  target += 2;
  if (match < kNibbleMax) [[likely]] {
    *token |= static_cast<std::uint8_t>(match);
    return target;
  }
  *token |= kNibbleMax;
  return PutLength(target, match - kNibbleMax);
}

std::uint8_t* PutLastLiterals(std::uint8_t* target, const std::uint8_t* literals,
                              std::uint32_t count) {
  *target++ = static_cast<std::uint8_t>(std::min(count, kNibbleMax) << 4);
  if (count >= kNibbleMax) target = PutLength(target, count - kNibbleMax);
  if (count != 0) std::memcpy(target, literals, count);
  return target + count;
}

struct Match {
  const std::uint8_t* position;
  const std::uint8_t* candidate;
};

// The next match that begins at or behind `position`; nothing when none begins at or before `last`.
//
// Positions are looked up in pairs: both words, slots and candidates are loaded before the first
// branch, which is where the time goes. An empty slot names position 0: the bytes decide.
inline Match FindMatch(std::uint16_t* table, const std::uint8_t* source,
                       const std::uint8_t* position, const std::uint8_t* last, std::uint32_t step) {
  for (std::uint32_t misses = 0;; ++misses) {
    const std::uint64_t word = Load<std::uint64_t>(position);
    const std::uint64_t next_word = Load<std::uint64_t>(position + 1);
    const std::size_t slot = Slot(word);
    const std::size_t next_slot = Slot(next_word);
    const std::uint8_t* const candidate = source + table[slot];
    const std::uint8_t* const next_candidate = source + table[next_slot];
    const auto offset = static_cast<std::uint16_t>(position - source);
    table[slot] = offset;
    if (MatchKey(Load<std::uint64_t>(candidate) ^ word) == 0) return {position, candidate};
    table[next_slot] = static_cast<std::uint16_t>(offset + 1);
    if (MatchKey(Load<std::uint64_t>(next_candidate) ^ next_word) == 0) {
      return {position + 1, next_candidate};
    }
    position += step + (misses >> kSkipShift);
    if (position > last) [[unlikely]]
      return {nullptr, nullptr};
  }
}

}  // namespace

std::size_t EncodeLz4(std::span<const std::uint8_t> bytes, int acceleration, std::uint8_t* target) {
  CHKPT_CHECK(bytes.size() <= kBlockBytes && acceleration >= 1);
  const std::uint8_t* const source = bytes.data();
  const std::uint8_t* const source_end = source + bytes.size();
  std::uint8_t* const begin = target;
  const std::uint8_t* literals = source;  // those not written yet
  if (bytes.size() > 2 * kTailBytes) {
    // Last position seen for a hash of 6 bytes. 16 KiB: half the first-level cache.
    std::array<std::uint16_t, std::size_t{1} << kTableBits> table{};
    const std::uint32_t step = 1 + static_cast<std::uint32_t>(acceleration);
    const std::uint8_t* const last = source_end - kTailBytes;
    for (const std::uint8_t* next = source + 1;; next = literals) {
      auto [position, candidate] = FindMatch(table.data(), source, next, last, step);
      if (position == nullptr) break;
      const auto distance = static_cast<std::uint32_t>(position - candidate);
      const std::uint8_t* const checked = position + kMatchBytesMin;
      while (position > literals && candidate > source && position[-1] == candidate[-1]) {
        --position;
        --candidate;
      }
      const std::uint8_t* const end =
          checked + CommonBytes(checked - distance, checked, source_end - kLastLiterals);
      target = PutSequence(target, literals, static_cast<std::uint32_t>(position - literals),
                           distance, static_cast<std::uint32_t>(end - position));
      literals = end;
      if (end > last) break;
      table[Slot(Load<std::uint64_t>(end - 2))] = static_cast<std::uint16_t>(end - 2 - source);
    }
  }
  target = PutLastLiterals(target, literals, static_cast<std::uint32_t>(source_end - literals));
  const auto encoded = static_cast<std::size_t>(target - begin);
  return encoded < bytes.size() ? encoded : 0;
}

}  // namespace chkpt

#include "core/codec/deflate_encoder.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "core/base/bytes.h"
#include "core/base/check.h"
#include "core/codec/huffman.h"

namespace chkpt::deflate {
namespace {

// Shorter matches cost about as much as their literals.
constexpr std::uint32_t kMatchBytesMin = 4;
constexpr unsigned kTableBits = 14;
constexpr std::size_t kBlockSourceBytes = 64u << 10;
constexpr std::size_t kSequencesMax = 8192;
// What positions in the table are above their offset, so that an empty place is too far away.
constexpr std::uint32_t kBias = kWindowBytes + 1;
// No match begins in the last bytes, so that every read of 8 bytes stays inside.
constexpr std::size_t kTailBytes = 16;
// From this length on no longer match is looked for.
constexpr std::uint32_t kGoodMatchBytes = 32;
// The step grows by one every 32 positions without a match.
constexpr unsigned kSkipShift = 5;

std::size_t Slot(std::uint32_t word) { return (word * 0x9e3779b1u) >> (32 - kTableBits); }

constexpr std::array<std::uint8_t, kMatchBytesMax + 1> MakeLengthCodes() {
  std::array<std::uint8_t, kMatchBytesMax + 1> codes{};
  for (unsigned code = 0; code < kLengthCodes; ++code) {
    for (unsigned length = kLengthBase[code]; length <= kMatchBytesMax; ++length) {
      codes[length] = static_cast<std::uint8_t>(code);
    }
  }
  return codes;
}
constexpr auto kLengthCode = MakeLengthCodes();

struct DistanceParts {
  unsigned code;
  unsigned extra_bits;
  std::uint32_t extra;
};

DistanceParts SplitDistance(std::uint32_t distance) {
  const std::uint32_t rest = distance - 1;
  if (rest < 4) return {rest, 0, 0};
  const unsigned extra_bits = static_cast<unsigned>(std::bit_width(rest)) - 2;
  return {2 * extra_bits + (rest >> extra_bits), extra_bits, rest & ((1u << extra_bits) - 1)};
}

// How many bytes at `later` equal those at `earlier`, at most `most`. Reads 8 bytes at a time that
// lie inside `most`, then one.
std::uint32_t CommonBytes(const std::uint8_t* earlier, const std::uint8_t* later,
                          std::uint32_t most) {
  std::uint32_t length = 0;
  for (; length + 8 <= most; length += 8) {
    const std::uint64_t difference =
        Load<std::uint64_t>(later + length) ^ Load<std::uint64_t>(earlier + length);
    if (difference != 0)
      return length + static_cast<std::uint32_t>(std::countr_zero(difference)) / 8;
  }
  while (length < most && later[length] == earlier[length]) ++length;
  return length;
}

// Code lengths as runs of a code of their own, RFC 1951 section 3.2.7.
class CodeLengthRuns {
 public:
  explicit CodeLengthRuns(std::span<const std::uint8_t> lengths) {
    for (std::size_t at = 0; at < lengths.size();) {
      const std::uint8_t length = lengths[at];
      std::size_t run = 1;
      while (at + run < lengths.size() && lengths[at + run] == length) ++run;
      at += run;
      if (length == 0) {
        AddZeros(run);
      } else {
        Add(length, 0, 0);
        AddRepeats(length, run - 1);
      }
    }
    MakeCodeLengths(counts_, kCodeLengthBitsMax, lengths_);
    MakeCodes(lengths_, codes_);
    order_count_ = kCodeLengthSymbols;
    while (order_count_ > 4 && lengths_[kCodeLengthOrder[order_count_ - 1]] == 0) --order_count_;
  }

  std::uint64_t bits() const {
    std::uint64_t bits = 5 + 5 + 4 + 3 * order_count_;
    for (const Item& item : items()) bits += lengths_[item.symbol] + item.extra_bits;
    return bits;
  }

  template <typename Writer>
  void Write(std::size_t literal_count, std::size_t distance_count, Writer& writer) const {
    writer.Put(literal_count - 257, 5);
    writer.Put(distance_count - 1, 5);
    writer.Put(order_count_ - 4, 4);
    writer.Flush();
    for (std::size_t i = 0; i < order_count_; ++i) {
      writer.Put(lengths_[kCodeLengthOrder[i]], 3);
      writer.Flush();
    }
    for (const Item& item : items()) {
      writer.Put(codes_[item.symbol], lengths_[item.symbol]);
      writer.Put(item.extra, item.extra_bits);
      writer.Flush();
    }
  }

 private:
  struct Item {
    std::uint8_t symbol;
    std::uint8_t extra_bits;
    std::uint8_t extra;
  };

  void AddZeros(std::size_t run) {
    while (run >= 11) {
      const std::size_t part = std::min<std::size_t>(run, 138);
      Add(18, 7, part - 11);
      run -= part;
    }
    if (run >= 3) {
      Add(17, 3, run - 3);
      run = 0;
    }
    for (; run > 0; --run) Add(0, 0, 0);
  }
  void AddRepeats(std::uint8_t length, std::size_t run) {
    while (run >= 3) {
      const std::size_t part = std::min<std::size_t>(run, 6);
      Add(16, 2, part - 3);
      run -= part;
    }
    for (; run > 0; --run) Add(length, 0, 0);
  }
  void Add(unsigned symbol, unsigned extra_bits, std::size_t extra) {
    items_[item_count_++] = {static_cast<std::uint8_t>(symbol),
                             static_cast<std::uint8_t>(extra_bits),
                             static_cast<std::uint8_t>(extra)};
    ++counts_[symbol];
  }
  std::span<const Item> items() const { return {items_.data(), item_count_}; }

  std::array<Item, kLiteralSymbols + kDistanceSymbols> items_;
  std::size_t item_count_ = 0;
  std::array<std::uint32_t, kCodeLengthSymbols> counts_{};
  std::array<std::uint8_t, kCodeLengthSymbols> lengths_{};
  std::array<std::uint16_t, kCodeLengthSymbols> codes_{};
  std::size_t order_count_ = 0;
};

std::size_t UsedCount(std::span<const std::uint8_t> lengths, std::size_t least) {
  std::size_t count = lengths.size();
  while (count > least && lengths[count - 1] == 0) --count;
  return count;
}

}  // namespace

// Bits, the first one lowest. At most 57 may be put between two flushes, which write 8 bytes.
struct Encoder::BitWriter {
  std::uint8_t* out;
  std::uint64_t bits = 0;
  unsigned count = 0;

  void Put(std::uint64_t value, unsigned bit_count) {
    bits |= value << count;
    count += bit_count;
  }
  void Flush() {
    Store<std::uint64_t>(out, bits);
    out += count / 8;
    bits >>= count & ~7u;
    count %= 8;
  }
  void Align() {
    count = (count + 7) & ~7u;
    Flush();
  }
};

// The codes of one block.
struct Encoder::Codes {
  std::array<std::uint8_t, kLiteralSymbols> literal_bits{};
  std::array<std::uint16_t, kLiteralSymbols> literals{};
  std::array<std::uint8_t, kDistanceSymbols> distance_bits{};
  std::array<std::uint16_t, kDistanceSymbols> distances{};

  static const Codes& Fixed() {
    static const Codes codes = [] {
      Codes fixed;
      for (unsigned i = 0; i < kLiteralSymbols; ++i) {
        fixed.literal_bits[i] = static_cast<std::uint8_t>(FixedLiteralBits(i));
      }
      fixed.distance_bits.fill(kFixedDistanceBits);
      fixed.Complete();
      return fixed;
    }();
    return codes;
  }
  void Complete() {
    MakeCodes(literal_bits, literals);
    MakeCodes(distance_bits, distances);
  }
};

Encoder::Encoder() : buckets_(std::size_t{1} << kTableBits) { sequences_.reserve(kSequencesMax); }

std::size_t Encoder::Bound(std::size_t source_bytes) {
  // Stored blocks are never larger than what is written; a block that is not the last one has at
  // least kSequencesMax matches or kBlockSourceBytes.
  const std::size_t blocks = source_bytes / (kSequencesMax * kMatchBytesMin) + 1;
  return source_bytes + 10 * blocks + 16;
}

std::size_t Encoder::Encode(std::span<const std::uint8_t> source, std::uint8_t* target) {
  CHKPT_CHECK(source.size() <= kSourceBytesMax);
  std::fill(buckets_.begin(), buckets_.end(), Bucket{0, 0});
  BitWriter writer{.out = target};
  std::size_t start = 0;
  do {
    const std::size_t end = ParseBlock(source, start);
    WriteBlock(source.subspan(start, end - start), end == source.size(), writer);
    start = end;
  } while (start < source.size());
  writer.Align();
  return static_cast<std::size_t>(writer.out - target);
}

void Encoder::Note(std::span<const std::uint8_t> source, std::size_t at) {
  Bucket& bucket = buckets_[Slot(Load<std::uint32_t>(source.data() + at))];
  bucket = {static_cast<std::uint32_t>(at) + kBias, bucket.newer};
}

Encoder::Match Encoder::FindMatch(std::span<const std::uint8_t> source, std::size_t at) {
  const std::uint8_t* const here = source.data() + at;
  const std::uint32_t word = Load<std::uint32_t>(here);
  const std::uint32_t place = static_cast<std::uint32_t>(at) + kBias;
  Bucket& bucket = buckets_[Slot(word)];
  const Bucket before = bucket;
  bucket = {place, before.newer};
  const auto most =
      static_cast<std::uint32_t>(std::min<std::size_t>(kMatchBytesMax, source.size() - at));
  Match best{0, 0};
  for (const std::uint32_t candidate : {before.newer, before.older}) {
    const std::uint32_t distance = place - candidate;
    if (distance > kWindowBytes) break;
    if (Load<std::uint32_t>(here - distance) != word) continue;
    const std::uint32_t length = CommonBytes(here - distance, here, most);
    if (length > best.length) best = {length, distance};
    if (length >= kGoodMatchBytes) break;
  }
  return best;
}

void Encoder::Add(const std::uint8_t* literals, std::size_t count, Match match) {
  sequences_.push_back({static_cast<std::uint32_t>(count), static_cast<std::uint16_t>(match.length),
                        static_cast<std::uint16_t>(match.distance)});
  for (std::size_t i = 0; i < count; ++i) ++literal_counts_[literals[i]];
  if (match.length == 0) return;
  ++literal_counts_[kFirstLength + kLengthCode[match.length]];
  ++distance_counts_[SplitDistance(match.distance).code];
}

std::size_t Encoder::ParseBlock(std::span<const std::uint8_t> source, std::size_t start) {
  sequences_.clear();
  literal_counts_.fill(0);
  distance_counts_.fill(0);
  literal_counts_[kEndOfBlock] = 1;
  const std::size_t limit = std::min(source.size(), start + kBlockSourceBytes);
  const std::size_t search_limit = source.size() < kTailBytes ? 0 : source.size() - kTailBytes;
  std::size_t literals = start;  // where those begin that no sequence has yet
  std::size_t at = start;
  while (at < limit && at < search_limit && sequences_.size() < kSequencesMax) {
    const Match match = FindMatch(source, at);
    if (match.length < kMatchBytesMin) {
      at += 1 + ((at - literals) >> kSkipShift);
      continue;
    }
    Add(source.data() + literals, at - literals, match);
    const std::size_t end = at + match.length;
    if (end < search_limit) {
      Note(source, at + 1);
      Note(source, end - 1);
    }
    at = end;
    literals = end;
  }
  if (sequences_.size() == kSequencesMax) return literals;
  // A match may go over the limit; a step over it is taken back.
  const std::size_t end = at >= search_limit && limit == source.size()
                              ? source.size()
                              : std::max(std::min(at, limit), literals);
  if (end != literals) Add(source.data() + literals, end - literals, {0, 0});
  return end;
}

std::uint64_t Encoder::CodedBits(const Codes& codes) const {
  std::uint64_t bits = 0;
  for (std::size_t i = 0; i < kLiteralSymbols; ++i) {
    bits += std::uint64_t{literal_counts_[i]} * codes.literal_bits[i];
  }
  for (std::size_t i = 0; i < kLengthCodes; ++i) {
    bits += std::uint64_t{literal_counts_[kFirstLength + i]} * kLengthExtra[i];
  }
  for (std::size_t i = 0; i < kDistanceCodes; ++i) {
    bits += std::uint64_t{distance_counts_[i]} * (codes.distance_bits[i] + kDistanceExtra[i]);
  }
  return bits;
}

void Encoder::WriteBlock(std::span<const std::uint8_t> block, bool last, BitWriter& writer) {
  Codes own;
  MakeCodeLengths(literal_counts_, kCodeBitsMax, own.literal_bits);
  MakeCodeLengths(distance_counts_, kCodeBitsMax, own.distance_bits);
  const std::size_t literal_count = UsedCount(own.literal_bits, 257);
  const std::size_t distance_count = UsedCount(own.distance_bits, 1);
  std::array<std::uint8_t, kLiteralSymbols + kDistanceSymbols> lengths;
  std::copy_n(own.literal_bits.begin(), literal_count, lengths.begin());
  std::copy_n(own.distance_bits.begin(), distance_count, lengths.begin() + literal_count);
  const CodeLengthRuns runs({lengths.data(), literal_count + distance_count});

  const std::uint64_t dynamic_bits = runs.bits() + CodedBits(own);
  const std::uint64_t fixed_bits = CodedBits(Codes::Fixed());
  const std::uint64_t stored_bits = 8 * (block.size() + 5 * (block.size() / kStoredBytesMax + 1));
  const std::uint64_t final_bit = last ? 1 : 0;
  if (stored_bits <= dynamic_bits && stored_bits <= fixed_bits) {
    do {
      const std::size_t part = std::min(block.size(), kStoredBytesMax);
      writer.Put((part == block.size() ? final_bit : 0) | kStored << 1, 3);
      writer.Align();
      writer.Put(part | (~part & 0xffff) << 16, 32);
      writer.Flush();
      if (part != 0) std::memcpy(writer.out, block.data(), part);
      writer.out += part;
      block = block.subspan(part);
    } while (!block.empty());
    return;
  }
  if (fixed_bits <= dynamic_bits) {
    writer.Put(final_bit | kFixed << 1, 3);
    writer.Flush();
    return WriteSequences(block.data(), Codes::Fixed(), writer);
  }
  writer.Put(final_bit | kDynamic << 1, 3);
  runs.Write(literal_count, distance_count, writer);
  own.Complete();
  WriteSequences(block.data(), own, writer);
}

void Encoder::WriteSequences(const std::uint8_t* literals, const Codes& codes,
                             BitWriter& writer) const {
  const auto put_literal = [&](std::uint8_t literal) {
    writer.Put(codes.literals[literal], codes.literal_bits[literal]);
  };
  for (const Sequence& sequence : sequences_) {
    std::uint32_t count = sequence.literals;
    // Three codes of 15 bits, and 7 that are left, fit.
    for (; count >= 3; count -= 3, literals += 3) {
      put_literal(literals[0]);
      put_literal(literals[1]);
      put_literal(literals[2]);
      writer.Flush();
    }
    for (; count > 0; --count) put_literal(*literals++);
    writer.Flush();
    if (sequence.length == 0) continue;
    const unsigned length_code = kLengthCode[sequence.length];
    writer.Put(codes.literals[kFirstLength + length_code],
               codes.literal_bits[kFirstLength + length_code]);
    writer.Put(sequence.length - kLengthBase[length_code], kLengthExtra[length_code]);
    const DistanceParts distance = SplitDistance(sequence.distance);
    writer.Put(codes.distances[distance.code], codes.distance_bits[distance.code]);
    writer.Put(distance.extra, distance.extra_bits);
    writer.Flush();
    literals += sequence.length;
  }
  writer.Put(codes.literals[kEndOfBlock], codes.literal_bits[kEndOfBlock]);
  writer.Flush();
}

}  // namespace chkpt::deflate

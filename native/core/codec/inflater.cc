#include "core/codec/inflater.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "core/base/bytes.h"

namespace chkpt::deflate {
namespace {

constexpr unsigned kLiteralTableBits = 11;
constexpr unsigned kDistanceTableBits = 8;

constexpr std::uint32_t kLiteral = 0x8000;
constexpr std::uint32_t kLink = 0x4000;  // the value is where a second table starts
constexpr std::uint32_t kEnd = 0x2000;
constexpr std::uint32_t kInvalid = 0x1000;

constexpr std::size_t kNewBytes = 96u << 10;
// What one round of DecodeBlock may write: a match, and the overshoot of its last copy.
constexpr std::size_t kRoundBytes = kMatchBytesMax + 64;

constexpr std::uint32_t MakeEntry(unsigned value, std::uint32_t flags, unsigned extra_bits) {
  return value << 16 | flags | extra_bits << 8;
}
unsigned BitsOf(std::uint32_t entry) { return entry & 0xff; }
unsigned ExtraOf(std::uint32_t entry) { return (entry >> 8) & 0xf; }
unsigned ValueOf(std::uint32_t entry) { return entry >> 16; }

Error Invalid(const char* what) { return {.code = ErrorCode::kDecode, .message = what}; }
Error Cut() {
  return {.code = ErrorCode::kTruncated, .message = "compressed data end in the middle"};
}
// Which of the two a reader that is short of bytes means.
Error EndOf(const BitReader& input) { return input.error() ? *input.error() : Cut(); }

std::uint32_t LiteralEntry(std::size_t symbol) {
  if (symbol < kEndOfBlock) return MakeEntry(static_cast<unsigned>(symbol), kLiteral, 0);
  if (symbol == kEndOfBlock) return MakeEntry(0, kEnd, 0);
  const std::size_t code = symbol - kFirstLength;
  if (code >= kLengthCodes) return MakeEntry(0, kInvalid, 0);
  return MakeEntry(kLengthBase[code], 0, kLengthExtra[code]);
}
std::uint32_t DistanceEntry(std::size_t symbol) {
  if (symbol >= kDistanceCodes) return MakeEntry(0, kInvalid, 0);
  return MakeEntry(kDistanceBase[symbol], 0, kDistanceExtra[symbol]);
}
std::uint32_t CodeLengthEntry(std::size_t symbol) {
  return MakeEntry(static_cast<unsigned>(symbol), 0, 0);
}

std::uint32_t Reverse(std::uint32_t code, unsigned bits) {
  std::uint32_t reversed = 0;
  for (unsigned i = 0; i < bits; ++i, code >>= 1) reversed = reversed << 1 | (code & 1);
  return reversed;
}

// False when the lengths are those of no code that may occur.
bool IsCode(const std::array<std::uint32_t, kCodeBitsMax + 1>& of_length, bool may_be_incomplete) {
  std::uint32_t left = 1;
  unsigned longest = 0;
  for (unsigned bits = 1; bits <= kCodeBitsMax; ++bits) {
    left <<= 1;
    if (of_length[bits] > left) return false;
    left -= of_length[bits];
    if (of_length[bits] != 0) longest = bits;
  }
  return left == 0 || (may_be_incomplete && longest <= 1);
}

// A table that is looked up with `table_bits` bits; codes that are longer have a second table
// behind it, for the longest code with these first bits.
template <typename EntryOf>
bool BuildTable(std::span<const std::uint8_t> lengths, unsigned table_bits, bool may_be_incomplete,
                const EntryOf& entry_of, std::vector<std::uint32_t>* table) {
  std::array<std::uint32_t, kCodeBitsMax + 1> of_length{};
  for (const std::uint8_t bits : lengths) ++of_length[bits];
  of_length[0] = 0;
  if (!IsCode(of_length, may_be_incomplete)) return false;
  std::array<std::uint32_t, kCodeBitsMax + 2> next{};
  for (unsigned bits = 1; bits <= kCodeBitsMax; ++bits) {
    next[bits + 1] = (next[bits] + of_length[bits]) << 1;
  }
  const std::size_t first_entries = std::size_t{1} << table_bits;
  table->assign(first_entries, MakeEntry(0, kInvalid, 0));
  // Links carry the bits that their second table takes; it is made once all of them are known.
  std::array<std::uint32_t, kLiteralSymbols> codes{};
  for (std::size_t symbol = 0; symbol < lengths.size(); ++symbol) {
    const unsigned bits = lengths[symbol];
    if (bits == 0) continue;
    codes[symbol] = Reverse(next[bits]++, bits);
    if (bits <= table_bits) continue;
    std::uint32_t& link = (*table)[codes[symbol] & (first_entries - 1)];
    const unsigned before = (link & kLink) != 0 ? ExtraOf(link) : 0;
    link = MakeEntry(0, kLink, std::max(before, bits - table_bits));
  }
  for (std::size_t i = 0; i < first_entries; ++i) {
    const std::uint32_t link = (*table)[i];
    if ((link & kLink) == 0) continue;
    const std::size_t start = table->size();
    (*table)[i] = link | static_cast<std::uint32_t>(start) << 16;
    table->resize(start + (std::size_t{1} << ExtraOf(link)), MakeEntry(0, kInvalid, 0));
  }
  for (std::size_t symbol = 0; symbol < lengths.size(); ++symbol) {
    const unsigned bits = lengths[symbol];
    if (bits == 0) continue;
    const std::uint32_t entry = entry_of(symbol) | bits;
    std::size_t first = codes[symbol];
    std::size_t step = std::size_t{1} << bits;
    std::size_t end = first_entries;
    if (bits > table_bits) {
      const std::uint32_t link = (*table)[first & (first_entries - 1)];
      end = ValueOf(link) + (std::size_t{1} << ExtraOf(link));
      first = ValueOf(link) + (first >> table_bits);
      step >>= table_bits;
    }
    for (std::size_t i = first; i < end; i += step) (*table)[i] = entry;
  }
  return true;
}

template <unsigned table_bits>
std::uint32_t LookUp(const std::uint32_t* table, std::uint64_t bits) {
  const std::uint32_t entry = table[bits & ((1u << table_bits) - 1)];
  if ((entry & kLink) == 0) [[likely]]
    return entry;
  const std::uint64_t rest = (bits >> table_bits) & ((1u << ExtraOf(entry)) - 1);
  return table[ValueOf(entry) + rest];
}

// Writes up to 7 bytes more.
void CopyMatch(std::uint8_t* target, std::size_t distance, std::size_t length) {
  const std::uint8_t* source = target - distance;
  std::uint8_t* const end = target + length;
  if (distance >= 8) {
    for (; target < end; target += 8, source += 8) std::memcpy(target, source, 8);
  } else if (distance == 1) {
    std::memset(target, *source, length);
  } else {
    while (target < end) *target++ = *source++;
  }
}

}  // namespace

Inflater::Inflater() : window_(kWindowBytes + kNewBytes + kRoundBytes) {}

Status Inflater::Run(BitReader& input, const ByteSink& sink) {
  first_ = handed_over_ = out_ = 0;
  bool last = false;
  while (!last) {
    input.Refill();
    last = input.Take(1) != 0;
    const std::uint32_t type = input.Take(2);
    if (input.overrun()) return EndOf(input);
    Status status = Ok();
    if (type == kStored) {
      status = CopyStored(input, sink);
    } else if (type == kFixed) {
      SetFixedCodes();
      status = DecodeBlock(input, sink);
    } else if (type == kDynamic) {
      status = ReadCodes(input);
      if (status.ok()) status = DecodeBlock(input, sink);
    } else {
      return Invalid("a block has a type that does not exist");
    }
    if (!status.ok()) return status;
  }
  return Flush(sink);
}

void Inflater::SetFixedCodes() {
  std::array<std::uint8_t, kLiteralSymbols> lengths;
  for (unsigned i = 0; i < kLiteralSymbols; ++i) {
    lengths[i] = static_cast<std::uint8_t>(FixedLiteralBits(i));
  }
  static_cast<void>(BuildTable(lengths, kLiteralTableBits, false, LiteralEntry, &literals_));
  std::array<std::uint8_t, kDistanceSymbols> distances;
  distances.fill(kFixedDistanceBits);
  static_cast<void>(BuildTable(distances, kDistanceTableBits, false, DistanceEntry, &distances_));
}

Status Inflater::ReadCodes(BitReader& input) {
  input.Refill();
  const std::size_t literal_count = input.Take(5) + 257;
  const std::size_t distance_count = input.Take(5) + 1;
  const std::size_t order_count = input.Take(4) + 4;
  if (literal_count > 286 || distance_count > kDistanceCodes) {
    return Invalid("a block has more codes than there are");
  }
  std::array<std::uint8_t, kCodeLengthSymbols> code_lengths{};
  for (std::size_t i = 0; i < order_count; ++i) {
    input.Refill();
    code_lengths[kCodeLengthOrder[i]] = static_cast<std::uint8_t>(input.Take(3));
  }
  if (input.overrun()) return EndOf(input);
  if (!BuildTable(code_lengths, kCodeLengthBitsMax, false, CodeLengthEntry, &code_lengths_)) {
    return Invalid("the code of the code lengths is no code");
  }
  std::array<std::uint8_t, kLiteralSymbols + kDistanceSymbols> lengths{};
  const std::span<std::uint8_t> all(lengths.data(), literal_count + distance_count);
  Status status = ReadLengths(input, all);
  if (!status.ok()) return status;
  if (lengths[kEndOfBlock] == 0) return Invalid("a block has no code for its end");
  if (!BuildTable(all.first(literal_count), kLiteralTableBits, true, LiteralEntry, &literals_) ||
      !BuildTable(all.subspan(literal_count), kDistanceTableBits, true, DistanceEntry,
                  &distances_)) {
    return Invalid("the codes of a block are no codes");
  }
  return Ok();
}

Status Inflater::ReadLengths(BitReader& input, std::span<std::uint8_t> lengths) {
  for (std::size_t at = 0; at < lengths.size();) {
    input.Refill();
    const std::uint32_t entry =
        LookUp<kCodeLengthBitsMax>(code_lengths_.data(), input.cursor().bits);
    static_cast<void>(input.Take(BitsOf(entry)));
    const unsigned symbol = ValueOf(entry);
    std::uint8_t value = 0;
    std::size_t run = 1;
    if (symbol < 16) {
      value = static_cast<std::uint8_t>(symbol);
    } else if (symbol == 16) {
      if (at == 0) return Invalid("a code length repeats one that is not there");
      value = lengths[at - 1];
      run = 3 + input.Take(2);
    } else {
      run = symbol == 17 ? 3 + input.Take(3) : 11 + input.Take(7);
    }
    if (input.overrun()) return EndOf(input);
    if (run > lengths.size() - at) return Invalid("code lengths repeat over their end");
    std::fill_n(lengths.begin() + static_cast<std::ptrdiff_t>(at), run, value);
    at += run;
  }
  return Ok();
}

Status Inflater::CopyStored(BitReader& input, const ByteSink& sink) {
  input.AlignToByte();
  std::uint8_t header[4];
  if (input.ReadBytes(header) != sizeof header) return EndOf(input);
  std::size_t left = Load<std::uint16_t>(header);
  if ((left ^ Load<std::uint16_t>(header + 2)) != 0xffff) {
    return Invalid("the length of a stored block is not the one it repeats");
  }
  while (left != 0) {
    const std::size_t room = kWindowBytes + kNewBytes - std::min(out_, kWindowBytes + kNewBytes);
    if (room == 0) {
      Status status = Flush(sink);
      if (!status.ok()) return status;
      continue;
    }
    const std::size_t part = std::min(left, room);
    if (input.ReadBytes({window_.data() + out_, part}) != part) return EndOf(input);
    out_ += part;
    left -= part;
  }
  return Ok();
}

Status Inflater::Flush(const ByteSink& sink) {
  if (out_ != handed_over_) {
    Status status = sink({window_.data() + handed_over_, out_ - handed_over_});
    if (!status.ok()) return status;
  }
  if (out_ > kWindowBytes) {
    const std::size_t shift = out_ - kWindowBytes;
    std::memmove(window_.data(), window_.data() + shift, kWindowBytes);
    first_ -= std::min(first_, shift);
    out_ = kWindowBytes;
  }
  handed_over_ = out_;
  return Ok();
}

Status Inflater::DecodeBlock(BitReader& input, const ByteSink& sink) {
  const std::uint32_t* const literals = literals_.data();
  const std::uint32_t* const distances = distances_.data();
  std::uint8_t* const full = window_.data() + kWindowBytes + kNewBytes;
  std::uint8_t* out = window_.data() + out_;
  std::uint8_t* first = window_.data() + first_;
  BitCursor at = input.cursor();
  for (;;) {
    if (out >= full) {
      out_ = static_cast<std::size_t>(out - window_.data());
      Status status = Flush(sink);
      if (!status.ok()) return status;
      out = window_.data() + out_;
      first = window_.data() + first_;
    }
    input.Refill(at);
    std::uint32_t entry = LookUp<kLiteralTableBits>(literals, at.bits);
    if ((entry & kLiteral) != 0) {
      // Three codes of 15 bits are there.
      for (int i = 0; i < 3 && (entry & kLiteral) != 0; ++i) {
        at.Consume(BitsOf(entry));
        *out++ = static_cast<std::uint8_t>(ValueOf(entry));
        entry = LookUp<kLiteralTableBits>(literals, at.bits);
      }
      if (at.overrun()) return EndOf(input);
      continue;
    }
    at.Consume(BitsOf(entry));
    if ((entry & (kEnd | kInvalid)) != 0) {
      if (at.overrun()) return EndOf(input);
      if ((entry & kInvalid) != 0) return Invalid("a code of literals and lengths does not exist");
      out_ = static_cast<std::size_t>(out - window_.data());
      input.set_cursor(at);
      return Ok();
    }
    const std::size_t length = ValueOf(entry) + at.Take(ExtraOf(entry));
    entry = LookUp<kDistanceTableBits>(distances, at.bits);
    at.Consume(BitsOf(entry));
    const std::size_t distance = ValueOf(entry) + at.Take(ExtraOf(entry));
    if (at.overrun()) return EndOf(input);
    if ((entry & kInvalid) != 0) return Invalid("a code of distances does not exist");
    if (distance > static_cast<std::size_t>(out - first)) {
      return Invalid("a distance goes back before the start");
    }
    CopyMatch(out, distance, length);
    out += length;
  }
}

}  // namespace chkpt::deflate

#include "core/codec/huffman.h"

#include <algorithm>
#include <array>

#include "core/base/check.h"
#include "core/codec/deflate_format.h"

namespace chkpt::deflate {
namespace {

struct Leaf {
  std::uint32_t count;
  std::uint16_t symbol;
};

// Depths of the leaves of a Huffman tree, in place: A. Moffat, J. Katajainen, "In-place calculation
// of minimum-redundancy codes" (1995). In: counts, ascending. Out: depths, descending.
void TreeDepths(std::span<std::uint32_t> weights) {
  const std::size_t count = weights.size();
  std::size_t leaf = 2;
  std::size_t root = 0;
  weights[0] += weights[1];
  for (std::size_t next = 1; next + 1 < count; ++next) {
    const auto take = [&]() -> std::uint32_t {
      if (leaf >= count || (root < next && weights[root] < weights[leaf])) {
        const std::uint32_t weight = weights[root];
        weights[root++] = static_cast<std::uint32_t>(next);  // its parent
        return weight;
      }
      return weights[leaf++];
    };
    const std::uint32_t first = take();
    weights[next] = first + take();
  }
  weights[count - 2] = 0;
  for (std::size_t next = count - 2; next-- > 0;) weights[next] = weights[weights[next]] + 1;
  // Depths of inner nodes become depths of leaves.
  std::uint32_t available = 1;
  std::uint32_t depth = 0;
  std::size_t inner = count - 1;  // one past the inner node looked at
  std::size_t next = count;
  while (available > 0) {
    std::uint32_t used = 0;
    while (inner > 0 && weights[inner - 1] == depth) {
      ++used;
      --inner;
    }
    while (available > used) {
      weights[--next] = depth;
      --available;
    }
    available = 2 * used;
    ++depth;
  }
}

// How many codes have each length, no length above `bits_max`: those that were longer are paid for
// by making shorter ones longer.
void LimitLengths(std::span<std::uint32_t> of_length, unsigned bits_max) {
  std::uint32_t room = 1u << bits_max;  // in codes of bits_max bits
  std::uint32_t used = 0;
  for (unsigned bits = 1; bits <= bits_max; ++bits) used += of_length[bits] << (bits_max - bits);
  while (used > room) {
    unsigned bits = bits_max - 1;
    while (of_length[bits] == 0) --bits;
    // A leaf becomes a node of two: itself and one that was too long.
    --of_length[bits];
    of_length[bits + 1] += 2;
    --of_length[bits_max];
    --used;
  }
  CHKPT_CHECK(used == room);
}

}  // namespace

void MakeCodeLengths(std::span<const std::uint32_t> counts, unsigned bits_max,
                     std::span<std::uint8_t> lengths) {
  std::array<Leaf, kLiteralSymbols> leaves;
  std::size_t leaf_count = 0;
  for (std::size_t symbol = 0; symbol < counts.size(); ++symbol) {
    lengths[symbol] = 0;
    if (counts[symbol] != 0) {
      leaves[leaf_count++] = {counts[symbol], static_cast<std::uint16_t>(symbol)};
    }
  }
  if (leaf_count < 2) {
    const std::size_t symbol = leaf_count == 0 ? 0 : leaves[0].symbol;
    lengths[symbol] = 1;
    lengths[symbol == 0 ? 1 : 0] = 1;
    return;
  }
  const std::span<Leaf> used(leaves.data(), leaf_count);
  std::sort(used.begin(), used.end(), [](const Leaf& left, const Leaf& right) {
    return left.count != right.count ? left.count < right.count : left.symbol < right.symbol;
  });
  std::array<std::uint32_t, kLiteralSymbols> depths;
  for (std::size_t i = 0; i < leaf_count; ++i) depths[i] = used[i].count;
  TreeDepths({depths.data(), leaf_count});
  std::array<std::uint32_t, kCodeBitsMax + 1> of_length{};
  for (std::size_t i = 0; i < leaf_count; ++i) ++of_length[std::min(depths[i], bits_max)];
  LimitLengths(of_length, bits_max);
  std::size_t next = 0;
  for (unsigned bits = bits_max; bits > 0; --bits) {
    for (std::uint32_t i = 0; i < of_length[bits]; ++i) {
      lengths[used[next++].symbol] = static_cast<std::uint8_t>(bits);
    }
  }
}

void MakeCodes(std::span<const std::uint8_t> lengths, std::span<std::uint16_t> codes) {
  std::array<std::uint32_t, kCodeBitsMax + 1> of_length{};
  for (const std::uint8_t bits : lengths) ++of_length[bits];
  of_length[0] = 0;
  std::array<std::uint32_t, kCodeBitsMax + 1> next{};
  for (unsigned bits = 1; bits <= kCodeBitsMax; ++bits) {
    next[bits] = (next[bits - 1] + of_length[bits - 1]) << 1;
  }
  for (std::size_t symbol = 0; symbol < lengths.size(); ++symbol) {
    const unsigned bits = lengths[symbol];
    std::uint32_t code = bits == 0 ? 0 : next[bits]++;
    std::uint32_t reversed = 0;
    for (unsigned i = 0; i < bits; ++i, code >>= 1) reversed = (reversed << 1) | (code & 1);
    codes[symbol] = static_cast<std::uint16_t>(reversed);
  }
}

}  // namespace chkpt::deflate

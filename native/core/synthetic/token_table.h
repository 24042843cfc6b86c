// TokenTable: short byte strings drawn with the weights they were added with. What makes generated
// text and code compress as real ones do is that few tokens are frequent and many are rare.
//
// Thread safety: immutable after Seal(); any number of threads may draw.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>
#include <vector>

namespace chkpt {

// Copied whole and then cut, so that copying costs no branch: a target needs kTokenBytesMax bytes
// of slack.
inline constexpr std::size_t kTokenBytesMax = 31;
struct Token {
  std::array<std::uint8_t, kTokenBytesMax> bytes{};
  std::uint8_t byte_count = 0;
};
static_assert(sizeof(Token) == 32);

Token MakeToken(std::string_view text);

// Appends a token at `target` and returns the place after it. REQUIRES: sizeof(Token) bytes at
// target.
inline std::uint8_t* AppendToken(const Token& token, std::uint8_t* target) {
  std::memcpy(target, &token, sizeof(Token));
  return target + token.byte_count;
}

class TokenTable {
 public:
  // REQUIRES: not sealed, weight < 2^40, at most 65536 tokens.
  void Add(const Token& token, std::uint64_t weight);
  // The weight of the token at place `rank` of a list in order of frequency (Zipf); a larger
  // `flatness` makes the frequent ones less frequent. Integers, so that tables are the same on
  // every machine. REQUIRES: flatness > 0.
  static std::uint64_t ZipfWeight(std::size_t rank, std::size_t flatness);
  // REQUIRES: at least one token of weight > 0.
  void Seal();

  std::size_t size() const { return tokens_.size(); }
  const Token& at(std::size_t index) const { return tokens_[index]; }
  // Index of the token that 16 random bits choose.
  std::size_t Draw(std::uint64_t bits) const { return slots_[bits % kSlots]; }
  const Token& Pick(std::uint64_t bits) const { return tokens_[Draw(bits)]; }

 private:
  static constexpr std::size_t kSlots = 16384;
  std::vector<Token> tokens_;
  std::vector<std::uint64_t> weights_;
  std::vector<std::uint16_t> slots_;
};

}  // namespace chkpt

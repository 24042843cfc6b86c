#include "core/synthetic/token_table.h"

#include <algorithm>

#include "core/base/check.h"

namespace chkpt {

Token MakeToken(std::string_view text) {
  Token token;
  CHKPT_CHECK(text.size() <= kTokenBytesMax);
  std::copy(text.begin(), text.end(), token.bytes.begin());
  token.byte_count = static_cast<std::uint8_t>(text.size());
  return token;
}

void TokenTable::Add(const Token& token, std::uint64_t weight) {
  CHKPT_CHECK(slots_.empty() && tokens_.size() < 65536);
  tokens_.push_back(token);
  weights_.push_back(weight);
}

std::uint64_t TokenTable::ZipfWeight(std::size_t rank, std::size_t flatness) {
  return (std::uint64_t{1} << 32) / (rank + flatness);
}

void TokenTable::Seal() {
  std::uint64_t total = 0;
  for (const std::uint64_t weight : weights_) total += weight;
  CHKPT_CHECK(total >= kSlots);

  // Cumulative rounding: of tokens rarer than one slot, one in so many gets a slot.
  slots_.resize(kSlots);
  std::uint64_t cumulative = 0;
  std::size_t slot = 0;
  for (std::size_t index = 0; index < tokens_.size(); ++index) {
    cumulative += weights_[index];
    const std::size_t limit = cumulative / (total / kSlots);
    while (slot < std::min(limit, kSlots)) slots_[slot++] = static_cast<std::uint16_t>(index);
  }
  while (slot < kSlots) slots_[slot++] = static_cast<std::uint16_t>(tokens_.size() - 1);
}

}  // namespace chkpt

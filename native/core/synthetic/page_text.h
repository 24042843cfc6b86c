// Text-like pages: source code, manual prose, logs and markup made of a built-in vocabulary with
// Zipf-like choice.
//
// A text is made of lines; a line is a template ("\treturn %i;\n") whose holes are filled with
// words, identifiers of this file, numbers. Compresses about 2.3:1 with LZ4 at 64 KiB, as a source
// tree in a page cache does.
//
// Thread safety: a TextWriter is immutable; any number of threads may call WritePage.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/synthetic/page_buffer.h"
#include "core/synthetic/page_random.h"
#include "core/synthetic/token_table.h"

namespace chkpt {

class TextWriter {
 public:
  TextWriter();
  TextWriter(const TextWriter&) = delete;
  TextWriter& operator=(const TextWriter&) = delete;

  // REQUIRES: kPageBufferBytes at `target`.
  void WritePage(const PageSeeds& seeds, std::uint8_t* target) const;

 private:
  // What a template is compiled to.
  enum class PieceKind : std::uint8_t { kLiteral, kWord, kIdentifier, kDecimal, kHex, kTime };
  struct Piece {
    PieceKind kind = PieceKind::kLiteral;
    Token literal;
  };
  struct Line {
    std::vector<Piece> pieces;
  };
  // Lines in order of frequency, and slots to draw them with 8 bits.
  struct Style {
    std::vector<Line> lines;
    std::array<std::uint8_t, 256> slots{};
  };
  static constexpr std::size_t kStyleCount = 4;
  static constexpr std::size_t kIdentifierCount = 32;
  using Identifiers = std::array<Token, kIdentifierCount>;

  void AddWords();
  void AddStyle(const char* const* templates, std::size_t count, Style* style);
  // A word without spaces in it.
  const Token& IdentifierPart(std::uint64_t bits) const;
  Identifiers MakeIdentifiers(std::uint64_t extent_seed) const;

  TokenTable words_;
  std::size_t first_phrase_ = 0;  // index in words_; the frequent words are before it
  std::array<Style, kStyleCount> styles_;
};

}  // namespace chkpt

#include "core/synthetic/page_text.h"

#include <algorithm>
#include <iterator>
#include <string>
#include <string_view>

#include "core/base/check.h"

namespace chkpt {
namespace {

// The frequent words, in order; the rest of the vocabulary is made of syllables.
constexpr std::string_view kFrequentWords =
    "the of to is a in and for be are if that this not by as it on with an or from can value data "
    "size "
    "file name type return pointer buffer page memory set function which when will use used number "
    "string address device flags must has read write may kernel error one all call only user list "
    "length other than time length index offset block struct count state have no each first two "
    "same into does after should byte bits process table before request system default option "
    "there "
    "object map entry free given new these but was they then current next last map key more any "
    "interface driver argument field found between because while where signal thread lock mode "
    "path "
    "queue start end open close node tree root cache order event handle result support check line "
    "input output code base group local global need see also during version such module register "
    "specified";

// Take the place of a word now and then.
constexpr std::string_view kPhrases[] = {
    "unsigned long",           "the size of the",       "is set to the value of",
    "on success, zero is",     "the file descriptor",   "const struct",
    "must be called with the", "at the end of the",     "the number of bytes in",
    "a pointer to the",        "if there is no",        "struct device",
    "returns the number of",   "is not supported by",   "in the order in which",
    "may be used to",          "the same as the",       "static const char",
    "see the section about",   "the beginning of each", "as described in the",
    "for the first time",      "will be returned when", "the default value is",
};

constexpr std::string_view kSyllables[] = {
    "al",   "an",   "ar",   "ate",  "ble", "con", "de",  "dis", "ed",  "en",  "er",  "es",
    "ex",   "fer",  "form", "ic",   "im",  "in",  "ing", "is",  "it",  "ive", "le",  "load",
    "lo",   "ly",   "man",  "ment", "mis", "no",  "on",  "or",  "out", "par", "per", "ple",
    "port", "pre",  "pro",  "re",   "ri",  "ro",  "se",  "ser", "st",  "sub", "ta",  "ter",
    "ti",   "tion", "tor",  "tra",  "un",  "ur",  "us",  "ver", "vi",  "y"};

constexpr std::size_t kWordCount = 6000;
constexpr std::size_t kWordFlatness = 40;
constexpr std::size_t kPhraseRank = 20;
// How many bytes a line may have from the one before. A token follows without another look at the
// end of the page.
constexpr std::ptrdiff_t kAlikeBytesMax = 32;
static_assert(kAlikeBytesMax + sizeof(Token) <= kPageSlackBytes);
constexpr std::uint64_t kVocabularySeed = 0x746578742d776f72u;

// %w word, %i identifier of this file, %d decimal number, %h hexadecimal number, %t time. In order
// of frequency.
constexpr const char* kSourceLines[] = {
    "\tif (%i->%i != %i)\n\t\treturn %d;\n",
    "#define %i\t\t0x%h\n",
    "\tstruct %i *%i = &%i->%i;\n",
    "\t%i->%i = %i(%i, %w, %d);\n",
    " * %w %w the %w of %w %w in %w\n",
    "\tunsigned int %i;\t/* %w %w */\n",
    "extern int %i(struct %i *%w, const char *%w);\n",
    "\n",
    "/*\n * %i() - %w %w %w\n * @%w: %w %w of the %w\n */\n",
    "static inline void %i(struct %i *%w)\n{\n",
    "\treturn %i(%w, %i);\n}\n\n",
    "\tfor (%w = 0; %w < %i; %w++) {\n",
    "#include <linux/%w.h>\n",
    "\t__u32 %i[%d];\n",
    "#ifdef CONFIG_%i\n#define %i(%w) %i\n#endif\n",
    "\t\tgoto out_%w;\n\t}\n",
    "EXPORT_SYMBOL_GPL(%i);\n\n",
    "\t{ .%w = %d, .%w = 0x%h, .name = \"%w\" },\n",
    "MODULE_DESCRIPTION(\"%w %w for %w\");\n",
};
constexpr const char* kProseLines[] = {
    "%w %w %w the %w %w ",
    "%w %w of %w %w %w\n",
    "%w, %w %w is %w to ",
    "%w the %w. The %w %w %w\n",
    "%w %w %w; %w (see %i) ",
    "in the %w %w %w.\n",
    "%i %w %w\n.PP\n",
    ".TP\n.B %i\n%w %w %w ",
    "If the %w %w, the %w of %w is %w\n",
    ".SH %w\n",
    "%w \\fI%i\\fP %w\n",
    "\n",
};
constexpr const char* kLogLines[] = {
    "%t host-%w kernel: [%d.%d] %w: %w %w at 0x%h\n",
    "%t INFO  %w.%i: %w %w=%d %w=%d %w\n",
    "%t host-%w %w[%d]: %w %w for %i\n",
    "%t DEBUG %w.%i: %w took %d us\n",
    "%t WARN  %w.%i: %w %w failed, retry %d\n",
    "10.0.%d.%d - - [%t] \"GET /%w/%i HTTP/1.1\" 200 %d\n",
};
constexpr const char* kMarkupLines[] = {
    "    <%w id=\"%i\" class=\"%w\">%w %w</%w>\n",
    "  {\"%w\": \"%i\", \"%w\": %d, \"%w\": [%d, %d]},\n",
    "      <a href=\"/%w/%w.html\">%w %w %w</a>\n",
    "    \"%w\": {\"type\": \"string\", \"%w\": \"%w\"},\n",
    "    <td>%d</td><td>%w</td><td>%i</td>\n",
    "  <p>%w %w the %w of %w %w %w.</p>\n",
    "msgid \"%w %w %w\"\nmsgstr \"%w %w\"\n\n",
};

// How many of 16 extents have which style: source, prose, log, markup.
constexpr std::uint8_t kStyleOfExtent[16] = {0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 3, 3};

Token MakeWord(PageRandom* random) {
  std::string word;
  const std::uint64_t syllables = 1 + random->Below(4);
  for (std::uint64_t i = 0; i < syllables; ++i) {
    word += kSyllables[random->Below(std::size(kSyllables))];
  }
  return MakeToken(word);
}

std::uint8_t* AppendDecimal(std::uint64_t bits, std::uint8_t* target) {
  std::uint32_t value = static_cast<std::uint32_t>(bits) & (0xffffu >> ((bits >> 32) & 15));
  std::uint8_t digits[8];
  std::size_t count = 0;
  do {
    digits[count++] = static_cast<std::uint8_t>('0' + value % 10);
    value /= 10;
  } while (value != 0);
  while (count != 0) *target++ = digits[--count];
  return target;
}

std::uint8_t* AppendHex(std::uint64_t bits, std::uint8_t* target) {
  constexpr char kDigits[] = "0123456789abcdef";
  const unsigned digits = 8;
  for (unsigned i = 0; i < digits; ++i) {
    const bool leading = i < 1;  // most constants are small
    *target++ = static_cast<std::uint8_t>(leading ? '0' : kDigits[(bits >> (i * 4)) & 15]);
  }
  return target;
}

// "Mar  7 12:34:56": the clock of a page advances with every line.
std::uint8_t* AppendTime(std::uint64_t second, std::uint8_t* target) {
  std::memcpy(target, "Mar  7 ", 7);
  const std::uint64_t parts[] = {second / 3600 % 24, second / 60 % 60, second % 60};
  target += 7;
  for (std::size_t i = 0; i < 3; ++i) {
    if (i != 0) *target++ = ':';
    *target++ = static_cast<std::uint8_t>('0' + parts[i] / 10);
    *target++ = static_cast<std::uint8_t>('0' + parts[i] % 10);
  }
  return target;
}

}  // namespace

TextWriter::TextWriter() {
  AddWords();
  AddStyle(kSourceLines, std::size(kSourceLines), &styles_[0]);
  AddStyle(kProseLines, std::size(kProseLines), &styles_[1]);
  AddStyle(kLogLines, std::size(kLogLines), &styles_[2]);
  AddStyle(kMarkupLines, std::size(kMarkupLines), &styles_[3]);
}

void TextWriter::AddWords() {
  std::size_t rank = 0;
  std::string_view rest = kFrequentWords;
  while (!rest.empty()) {
    const std::size_t end = std::min(rest.find(' '), rest.size());
    words_.Add(MakeToken(rest.substr(0, end)), TokenTable::ZipfWeight(rank++, kWordFlatness));
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  first_phrase_ = words_.size();
  for (const std::string_view phrase : kPhrases) {
    words_.Add(MakeToken(phrase), TokenTable::ZipfWeight(kPhraseRank, kWordFlatness));
  }
  PageRandom random(kVocabularySeed);
  while (rank < kWordCount) {
    words_.Add(MakeWord(&random), TokenTable::ZipfWeight(rank++, kWordFlatness));
  }
  words_.Seal();
}

void TextWriter::AddStyle(const char* const* templates, std::size_t count, Style* style) {
  for (std::size_t i = 0; i < count; ++i) {
    Line line;
    std::string literal;
    const auto flush = [&] {
      if (!literal.empty()) line.pieces.push_back({PieceKind::kLiteral, MakeToken(literal)});
      literal.clear();
    };
    for (const char* at = templates[i]; *at != '\0'; ++at) {
      if (*at != '%') {
        literal += *at;
        continue;
      }
      flush();
      switch (*++at) {
        case 'w': line.pieces.push_back({PieceKind::kWord, {}}); break;
        case 'i': line.pieces.push_back({PieceKind::kIdentifier, {}}); break;
        case 'd': line.pieces.push_back({PieceKind::kDecimal, {}}); break;
        case 'h': line.pieces.push_back({PieceKind::kHex, {}}); break;
        case 't': line.pieces.push_back({PieceKind::kTime, {}}); break;
        default: CHKPT_CHECK(false);
      }
    }
    flush();
    style->lines.push_back(std::move(line));
  }
  // Each takes a sixth of the slots that are left, at least one; the last takes the rest.
  std::size_t slot = 0;
  for (std::size_t i = 0; i < count; ++i) {
    const std::size_t left = style->slots.size() - slot - (count - 1 - i);
    const std::size_t share = i + 1 == count ? left : std::max<std::size_t>(1, left / 6);
    std::fill_n(style->slots.begin() + slot, share, static_cast<std::uint8_t>(i));
    slot += share;
  }
}

const Token& TextWriter::IdentifierPart(std::uint64_t bits) const {
  const std::size_t index = words_.Draw(bits);
  const bool phrase = index - first_phrase_ < std::size(kPhrases);
  return words_.at(phrase ? index - first_phrase_ : index);  // a frequent word instead
}

TextWriter::Identifiers TextWriter::MakeIdentifiers(std::uint64_t extent_seed) const {
  Identifiers identifiers;
  PageRandom random(extent_seed);
  const Token& prefix = IdentifierPart(random.Next());
  for (Token& identifier : identifiers) {
    const std::uint64_t bits = random.Next();
    std::uint8_t text[3 * sizeof(Token)];
    std::uint8_t* end = text;
    if (bits >> 62 != 0) {
      end = AppendToken(prefix, end);
      *end++ = '_';
    }
    end = AppendToken(IdentifierPart(bits), end);
    if ((bits >> 60 & 3) == 0) {
      *end++ = '_';
      end = AppendToken(IdentifierPart(bits >> 16), end);
    }
    const auto bytes = std::min<std::size_t>(static_cast<std::size_t>(end - text), kTokenBytesMax);
    std::copy_n(text, bytes, identifier.bytes.begin());
    identifier.byte_count = static_cast<std::uint8_t>(bytes);
  }
  return identifiers;
}

void TextWriter::WritePage(const PageSeeds& seeds, std::uint8_t* target) const {
  const Style& style = styles_[kStyleOfExtent[seeds.extent >> 60]];
  const Identifiers identifiers = MakeIdentifiers(seeds.extent);
  PageRandom random(seeds.page);
  std::uint64_t second = seeds.extent % 80000 + random.Below(64);
  std::uint8_t* const end = target + kPageBytes;

  const std::uint8_t* previous_line = target;
  // Of 16 lines, how many begin as the one before does; differs between files.
  const std::uint64_t alike_share = 5 + (seeds.extent >> 56 & 7);

  // One file in four uses the frequent half of the vocabulary only.
  const std::uint64_t word_mask = (seeds.extent >> 54 & 3) == 0 ? 0x1fff : ~std::uint64_t{0};

  while (target < end) {
    const std::uint64_t shape = random.Next();
    const std::uint8_t* const line_start = target;
    if (shape >> 60 < alike_share && target - previous_line >= kAlikeBytesMax) {
      std::memcpy(target, previous_line, kAlikeBytesMax);
      target += 12 + (shape >> 8 & 15);
    }
    previous_line = line_start;
    const Line& line = style.lines[style.slots[shape & 255]];
    for (const Piece& piece : line.pieces) {
      const std::uint64_t bits = random.Next();
      switch (piece.kind) {
        case PieceKind::kLiteral: target = AppendToken(piece.literal, target); break;
        case PieceKind::kWord: target = AppendToken(words_.Pick(bits & word_mask), target); break;
        case PieceKind::kIdentifier: {
          // The product of two uniform numbers prefers the first identifiers.
          const std::uint64_t place = ((bits & 255) * (bits >> 8 & 255)) >> 11;
          target = AppendToken(identifiers[place], target);
          break;
        }
        case PieceKind::kDecimal: target = AppendDecimal(bits, target); break;
        case PieceKind::kHex: target = AppendHex(bits, target); break;
        case PieceKind::kTime: target = AppendTime(second += bits & 1, target); break;
      }
      if (target >= end) return;
    }
  }
}

}  // namespace chkpt

// Code-like pages: x86-64-like machine code with its statistics, not its meaning.
//
// One program in eight is a table of relocations. The others are made of functions (prologue, body,
// epilogue, padding to 16 bytes). A body is a mix of idioms, short instruction sequences of a
// dictionary with Zipf-like choice, and of instructions made on the spot from opcode, ModRM,
// displacement and immediate statistics. Compresses about 1.8:1 with LZ4 at 64 KiB.
//
// Thread safety: a CodeWriter is immutable; any number of threads may call WritePage.
#pragma once

#include <cstdint>

#include "core/synthetic/page_buffer.h"
#include "core/synthetic/page_random.h"
#include "core/synthetic/token_table.h"

namespace chkpt {

class CodeWriter {
 public:
  CodeWriter();
  CodeWriter(const CodeWriter&) = delete;
  CodeWriter& operator=(const CodeWriter&) = delete;

  // REQUIRES: kPageBufferBytes at `target`.
  void WritePage(const PageSeeds& seeds, std::uint8_t* target) const;

 private:
  // Of 32 steps of a body, which make a new instruction, which repeat what stands nearby; the rest
  // are idioms. Differs between programs.
  struct BodyMix {
    std::uint64_t fresh_limit = 0;
    std::uint64_t repeat_limit = 0;
    std::uint64_t idiom_mask = 0;
  };
  static BodyMix MixOfProgram(std::uint64_t extent_seed);
  void WriteFunctions(const PageSeeds& seeds, std::uint8_t* target) const;
  std::uint8_t* AppendStep(const BodyMix& mix, std::uint64_t bits, const std::uint8_t* begin,
                           std::uint8_t* target) const;

  TokenTable idioms_;
};

}  // namespace chkpt

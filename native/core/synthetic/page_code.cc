#include "core/synthetic/page_code.h"

#include <algorithm>
#include <iterator>
#include <string_view>

#include "core/synthetic/page_buffer.h"

namespace chkpt {
namespace {

constexpr std::size_t kIdiomCount = 3000;
constexpr std::size_t kIdiomFlatness = 8;
constexpr std::size_t kIdiomBytesMax = 20;
constexpr std::ptrdiff_t kRepeatReach = 32 + 1023;
constexpr std::uint64_t kIdiomSeed = 0x636f64652d696469u;

// What follows an opcode.
enum class Tail : std::uint8_t {
  kNone,
  kRegisters,     // ModRM of two registers
  kFrame,         // ModRM, SIB of the stack pointer, 8-bit displacement
  kFieldNear,     // ModRM of a pointer, 8-bit displacement
  kFieldFar,      // ModRM of a pointer, 32-bit displacement, small
  kGlobal,        // ModRM relative to the instruction pointer, 32-bit displacement
  kBranchNear,    // 8-bit displacement
  kBranchFar,     // 32-bit displacement
  kImmediate,     // ModRM of a register, 8-bit immediate
  kImmediateFar,  // 32-bit immediate
};

struct Opcode {
  std::uint8_t byte_count;
  std::uint8_t bytes[3];
  Tail tail;
};

// In order of frequency; the choice prefers the first ones.
constexpr Opcode kOpcodes[] = {
    {2, {0x48, 0x89}, Tail::kRegisters},        // mov r64, r64
    {1, {0xe8}, Tail::kBranchFar},              // call
    {2, {0x48, 0x8b}, Tail::kFieldNear},        // mov r64, [r64 + d8]
    {2, {0x48, 0x8b}, Tail::kFrame},            // mov r64, [rsp + d8]
    {1, {0x74}, Tail::kBranchNear},             // je
    {2, {0x48, 0x8d}, Tail::kGlobal},           // lea r64, [rip + d32]
    {1, {0x75}, Tail::kBranchNear},             // jne
    {2, {0x0f, 0x84}, Tail::kBranchFar},        // je near
    {2, {0x48, 0x85}, Tail::kRegisters},        // test r64, r64
    {1, {0x89}, Tail::kRegisters},              // mov r32, r32
    {2, {0x48, 0x89}, Tail::kFrame},            // mov [rsp + d8], r64
    {1, {0xe9}, Tail::kBranchFar},              // jmp near
    {1, {0x8b}, Tail::kFieldNear},              // mov r32, [r64 + d8]
    {2, {0x48, 0x83}, Tail::kImmediate},        // add/sub/cmp r64, i8
    {1, {0x31}, Tail::kRegisters},              // xor r32, r32
    {1, {0xeb}, Tail::kBranchNear},             // jmp
    {2, {0x0f, 0x85}, Tail::kBranchFar},        // jne near
    {1, {0xbe}, Tail::kImmediateFar},           // mov esi, i32
    {2, {0x4c, 0x89}, Tail::kRegisters},        // mov r64, r8..r15
    {1, {0x83}, Tail::kImmediate},              // cmp r32, i8
    {2, {0x48, 0x8b}, Tail::kGlobal},           // mov r64, [rip + d32]
    {2, {0x41, 0x89}, Tail::kRegisters},        // mov r8d..r15d, r32
    {1, {0x85}, Tail::kRegisters},              // test r32, r32
    {2, {0x48, 0x39}, Tail::kRegisters},        // cmp r64, r64
    {2, {0x0f, 0xb6}, Tail::kFieldNear},        // movzx r32, byte [r64 + d8]
    {2, {0x48, 0x8b}, Tail::kFieldFar},         // mov r64, [r64 + d32]
    {1, {0xbf}, Tail::kImmediateFar},           // mov edi, i32
    {2, {0x48, 0x01}, Tail::kRegisters},        // add r64, r64
    {3, {0x66, 0x0f, 0x6f}, Tail::kFrame},      // movdqa xmm, [rsp + d8]
    {2, {0x0f, 0x87}, Tail::kBranchFar},        // ja near
    {3, {0x49, 0x8b, 0x44}, Tail::kNone},       // mov rax, [r12 + ...]
    {3, {0xf2, 0x0f, 0x10}, Tail::kFieldNear},  // movsd xmm, [r64 + d8]
};

constexpr std::string_view kPrologues[] = {
    std::string_view("\xf3\x0f\x1e\xfa\x41\x57\x41\x56\x41\x55\x41\x54\x55\x53\x48\x83\xec\x28",
                     18),
    std::string_view("\xf3\x0f\x1e\xfa\x41\x54\x55\x53\x48\x89\xfb\x48\x83\xec\x10", 15),
    std::string_view("\xf3\x0f\x1e\xfa\x55\x48\x89\xe5\x53\x48\x83\xec\x18", 13),
    std::string_view("\xf3\x0f\x1e\xfa\x53\x48\x89\xfb", 8),
};
constexpr std::string_view kEpilogues[] = {
    std::string_view("\x48\x83\xc4\x28\x5b\x5d\x41\x5c\x41\x5d\x41\x5e\x41\x5f\xc3", 15),
    std::string_view("\x48\x83\xc4\x10\x5b\x5d\x41\x5c\xc3", 9),
    std::string_view("\x48\x8b\x5d\xf8\xc9\xc3", 6),
    std::string_view("\x5b\xc3", 2),
};
constexpr std::uint8_t kPadding[16] = {0x66, 0x2e, 0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00,
                                       0x00, 0x00, 0x0f, 0x1f, 0x40, 0x00, 0x66, 0x90};
// Registers as compilers use them: rax, rdi, rsi, rbx, rdx, rbp, rcx.
constexpr std::uint8_t kRegisters[16] = {0, 0, 0, 0, 7, 7, 7, 6, 6, 3, 3, 3, 2, 2, 5, 1};
constexpr std::uint8_t kFieldOffsets[16] = {0x08, 0x08, 0x10, 0x10, 0x18, 0x18, 0x20, 0x28,
                                            0x30, 0x38, 0x40, 0x48, 0x50, 0x58, 0x60, 0x78};
constexpr std::uint8_t kImmediates[16] = {1, 1, 1, 0, 0, 8, 8, 0x10, 2, 3, 4, 0xff, 0x20, 7, 6, 5};

std::uint8_t* AppendWord32(std::uint32_t word, std::uint8_t* target) {
  std::memcpy(target, &word, sizeof(word));
  return target + sizeof(word);
}

std::uint8_t ModRm(unsigned mode, std::uint64_t bits) {
  const unsigned reg = kRegisters[bits & 15];
  const unsigned base = kRegisters[bits >> 4 & 15];
  return static_cast<std::uint8_t>(mode << 6 | reg << 3 | base);
}

// `bits` holds the choices in its low 52 bits.
std::uint8_t* AppendTail(Tail tail, std::uint64_t bits, std::uint8_t* target) {
  const std::uint64_t high = bits >> 8;
  switch (tail) {
    case Tail::kNone: return target;
    case Tail::kRegisters: *target++ = ModRm(3, bits); return target;
    case Tail::kFrame:
      *target++ = static_cast<std::uint8_t>((ModRm(1, bits) & 0xf8) | 4);
      *target++ = 0x24;
      *target++ = static_cast<std::uint8_t>((high & 15) * 8);
      return target;
    case Tail::kFieldNear:
      *target++ = ModRm(1, bits);
      *target++ = kFieldOffsets[high & 15];
      return target;
    case Tail::kFieldFar:
      *target++ = ModRm(2, bits);
      return AppendWord32(static_cast<std::uint32_t>(0x80 + (high & 127) * 8), target);
    case Tail::kGlobal:
      *target++ = static_cast<std::uint8_t>((ModRm(0, bits) & 0xf8) | 5);
      return AppendWord32(static_cast<std::uint32_t>(high & 0x1fffff), target);
    case Tail::kBranchNear: *target++ = static_cast<std::uint8_t>(high & 0x7f); return target;
    case Tail::kBranchFar: {
      const std::uint32_t distance = static_cast<std::uint32_t>(high & 0xfffff);
      return AppendWord32((high >> 20 & 1) != 0 ? ~distance : distance, target);
    }
    case Tail::kImmediate:
      *target++ = ModRm(3, bits);
      *target++ = kImmediates[high & 15];
      return target;
    case Tail::kImmediateFar:
      return AppendWord32(static_cast<std::uint32_t>(high & 0xfffff), target);
  }
  return target;
}

std::uint8_t* AppendInstruction(std::uint64_t bits, std::uint8_t* target) {
  // The product of two uniform numbers prefers the first opcodes.
  const std::uint64_t place = ((bits & 63) * (bits >> 6 & 63)) >> 7;
  const Opcode& opcode = kOpcodes[place];
  std::memcpy(target, opcode.bytes, sizeof(opcode.bytes));
  return AppendTail(opcode.tail, bits >> 12, target + opcode.byte_count);
}

// Elf64_Rela entries: offset, type and symbol, addend.
void WriteRelocations(const PageSeeds& seeds, std::uint8_t* target) {
  PageRandom random(seeds.page);
  std::uint64_t offset = (seeds.extent & 0xffffff) * 8 + (seeds.page & 0xffff) * 64;
  std::uint64_t addend = 0x100000 + (seeds.page >> 16 & 0xfffff);
  const std::uint8_t* const end = target + kPageBytes;
  while (target < end) {
    const std::uint64_t bits = random.Next();
    offset += 8 * (1 + ((bits & 7) == 0 ? bits >> 3 & 15 : 0));
    addend += (bits >> 8 & 3) != 0 ? bits >> 10 & 0x70 : bits >> 10 & 0xffff;
    const std::uint64_t words[3] = {offset, 8, addend};
    std::memcpy(target, words, sizeof(words));
    target += sizeof(words);
  }
}

std::uint8_t* AppendText(std::string_view text, std::uint8_t* target) {
  return std::copy(text.begin(), text.end(), target);
}

}  // namespace

CodeWriter::BodyMix CodeWriter::MixOfProgram(std::uint64_t extent_seed) {
  BodyMix mix;
  mix.fresh_limit = 1 + (extent_seed >> 52 & 15);
  mix.repeat_limit = mix.fresh_limit + 2 + (extent_seed >> 48 & 15);
  // Some programs draw from the most frequent idioms only: the first half of the slots.
  constexpr std::uint64_t kSlotMasks[4] = {0x3fff, 0x3fff, 0x3fff, 0x1fff};
  mix.idiom_mask = kSlotMasks[extent_seed >> 46 & 3];
  return mix;
}

CodeWriter::CodeWriter() {
  PageRandom random(kIdiomSeed);
  for (std::size_t rank = 0; rank < kIdiomCount; ++rank) {
    std::uint8_t text[kIdiomBytesMax + 16];
    std::uint8_t* end = text;
    const std::uint64_t instructions = 2 + random.Below(3);
    for (std::uint64_t i = 0; i < instructions && end < text + kIdiomBytesMax - 7; ++i) {
      end = AppendInstruction(random.Next(), end);
    }
    Token idiom;
    idiom.byte_count = static_cast<std::uint8_t>(end - text);
    std::copy(text, end, idiom.bytes.begin());
    idioms_.Add(idiom, TokenTable::ZipfWeight(rank, kIdiomFlatness));
  }
  idioms_.Seal();
}

void CodeWriter::WritePage(const PageSeeds& seeds, std::uint8_t* target) const {
  if (seeds.extent >> 61 == 0) {
    WriteRelocations(seeds, target);
  } else {
    WriteFunctions(seeds, target);
  }
}

void CodeWriter::WriteFunctions(const PageSeeds& seeds, std::uint8_t* target) const {
  PageRandom random(seeds.page);
  const std::uint8_t* const begin = target;
  const std::uint8_t* const end = target + kPageBytes;
  const BodyMix mix = MixOfProgram(seeds.extent);

  while (target < end) {
    const std::uint64_t shape = random.Next();
    target = AppendText(kPrologues[shape & 3], target);
    const std::uint64_t steps = 4 + (shape >> 8 & 63);
    for (std::uint64_t i = 0; i < steps && target < end; ++i) {
      target = AppendStep(mix, random.Next(), begin, target);
    }
    if (target >= end) return;
    target = AppendText(kEpilogues[shape & 3], target);
    const auto misaligned = static_cast<std::size_t>(target - begin) % 16;
    if (misaligned != 0) {
      std::memcpy(target, kPadding + misaligned, sizeof(kPadding) - misaligned);
      target += sizeof(kPadding) - misaligned;
    }
  }
}

std::uint8_t* CodeWriter::AppendStep(const BodyMix& mix, std::uint64_t bits,
                                     const std::uint8_t* begin, std::uint8_t* target) const {
  const std::uint64_t choice = bits >> 59;
  if (choice < mix.fresh_limit) return AppendInstruction(bits, target);
  if (choice < mix.repeat_limit && target - begin >= kRepeatReach) {
    // Unrolled loops and macro expansions: the code of a moment ago again.
    const std::uint64_t distance = 32 + ((bits & 1023) >> (bits >> 10 & 7));
    std::memcpy(target, target - distance, 32);
    return target + 6 + (bits >> 13 & 15);
  }
  const Token& idiom = idioms_.Pick(bits & mix.idiom_mask);
  AppendToken(idiom, target);
  if ((bits >> 20 & 1) != 0) {  // another displacement or register somewhere
    target[(bits >> 21 & 15) % idiom.byte_count] = static_cast<std::uint8_t>(bits >> 25);
  }
  return target + idiom.byte_count;
}

}  // namespace chkpt

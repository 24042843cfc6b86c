// What one page looks like: all zeros, one 8-byte word repeated, or anything else.
//
// One signature, one file per instruction set (page_kernels_*.cc), one dispatcher, one typed test
// suite; the portable version is the oracle. Source page may be guest memory that changes while it
// is read: no byte is loaded twice, and what is classified is what was stored to `target`.
#pragma once

#include <cstddef>
#include <cstdint>

namespace chkpt {

enum class PageClass : std::uint8_t { kZero = 0, kFill = 1, kStored = 2 };

struct PageKernels {
  const char* name;  // "portable", "avx2"

  // Copies one page (4096 bytes) and classifies the copy in the same pass. `fill` gets the first
  // word in every case. `target` holds the copy of a stored page; of others, which their class and
  // `fill` tell whole, it holds nothing in particular. No alignment is required of either.
  PageClass (*copy_classify)(const std::uint8_t* source, std::uint8_t* target, std::uint64_t* fill);

  // Classifies a page without a copy of it. Stops at the first words that decide.
  PageClass (*classify)(const std::uint8_t* page, std::uint64_t* fill);

  // True when both pages hold the same bytes.
  bool (*equal)(const std::uint8_t* left, const std::uint8_t* right);

  // Counts the zero pages among `count` consecutive pages: one pass at read bandwidth.
  std::size_t (*count_zero)(const std::uint8_t* pages, std::size_t count);
};

const PageKernels& PortablePageKernels();
// Null when this build or this CPU has no AVX2.
const PageKernels* Avx2PageKernels();
// The fastest that this CPU runs; decided once.
const PageKernels& BestPageKernels();

}  // namespace chkpt

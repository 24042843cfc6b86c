// Page kernels for x86-64 with AVX2, two cache lines (128 bytes) per step.
//
// No software prefetch: measured on Zen 4, distances from 256 bytes to a page gain nothing.
//
// The shipping build has no per-file flags, so each function and each helper names its target
// itself. A helper is a function, never a lambda: a lambda would not inherit the attribute.
#include "core/scan/page_kernels.h"

#if defined(__x86_64__)

#include <immintrin.h>

#include "core/base/units.h"

// A guest may write the page while it is read: no race of ours, so ThreadSanitizer looks away.
#define CHKPT_AVX2 __attribute__((target("avx2"), no_sanitize("thread")))
#define CHKPT_AVX2_HELPER CHKPT_AVX2 __attribute__((always_inline)) static inline

namespace chkpt {
namespace {

constexpr std::size_t kStepBytes = 128;
static_assert(kPageBytes % kStepBytes == 0);

struct Step {
  __m256i a, b, c, d;
};

CHKPT_AVX2_HELPER __m256i LoadOnce(const std::uint8_t* source) {
  __m256i value = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(source));
  // From here on the value is opaque: the compiler cannot load it a second time, when the guest may
  // have changed it.
  __asm__("" : "+x"(value));
  return value;
}

CHKPT_AVX2_HELPER Step LoadStep(const std::uint8_t* source) {
  return {LoadOnce(source), LoadOnce(source + 32), LoadOnce(source + 64), LoadOnce(source + 96)};
}

CHKPT_AVX2_HELPER void StoreStep(std::uint8_t* target, const Step& step) {
  __m256i* const lanes = reinterpret_cast<__m256i*>(target);
  _mm256_storeu_si256(lanes, step.a);
  _mm256_storeu_si256(lanes + 1, step.b);
  _mm256_storeu_si256(lanes + 2, step.c);
  _mm256_storeu_si256(lanes + 3, step.d);
}

// Zero where every lane of `step` equals `pattern`.
CHKPT_AVX2_HELPER __m256i Difference(const Step& step, __m256i pattern) {
  const __m256i ab =
      _mm256_or_si256(_mm256_xor_si256(step.a, pattern), _mm256_xor_si256(step.b, pattern));
  const __m256i cd =
      _mm256_or_si256(_mm256_xor_si256(step.c, pattern), _mm256_xor_si256(step.d, pattern));
  return _mm256_or_si256(ab, cd);
}

CHKPT_AVX2_HELPER __m256i AnyBits(const Step& step) {
  return _mm256_or_si256(_mm256_or_si256(step.a, step.b), _mm256_or_si256(step.c, step.d));
}

// The first 8 bytes of `step` in every lane, and as a number.
CHKPT_AVX2_HELPER __m256i FirstWord(const Step& step) {
  return _mm256_broadcastq_epi64(_mm256_castsi256_si128(step.a));
}

CHKPT_AVX2_HELPER std::uint64_t WordOf(__m256i pattern) {
  return static_cast<std::uint64_t>(_mm_cvtsi128_si64(_mm256_castsi256_si128(pattern)));
}

CHKPT_AVX2_HELPER bool IsZero(__m256i value) { return _mm256_testz_si256(value, value) != 0; }

CHKPT_AVX2_HELPER void FillSteps(std::uint8_t* target, std::size_t bytes, __m256i pattern) {
  const Step step = {pattern, pattern, pattern, pattern};
  for (std::size_t offset = 0; offset < bytes; offset += kStepBytes) {
    StoreStep(target + offset, step);
  }
}

// What a page begins with, as far as that decides its class.
struct Start {
  std::uint64_t word = 0;    // the first one
  __m256i pattern;           // the same in every lane
  std::size_t repeated = 0;  // bytes that repeat it, a multiple of kStepBytes
  Step different;            // what follows them, unless they are the whole page
};

// Zeros first, before the first word is looked at: a zero page is read at read bandwidth, which
// even one comparison more for each page would not reach.
CHKPT_AVX2_HELPER Start LoadStart(const std::uint8_t* page) {
  Start start;
  start.pattern = _mm256_setzero_si256();
  Step step;
  std::size_t offset = 0;
  for (; offset < kPageBytes; offset += kStepBytes) {
    step = LoadStep(page + offset);
    if (!IsZero(AnyBits(step))) break;
  }
  if (offset == 0) {
    start.pattern = FirstWord(step);
    start.word = WordOf(start.pattern);
    while (IsZero(Difference(step, start.pattern))) {
      offset += kStepBytes;
      if (offset == kPageBytes) break;
      step = LoadStep(page + offset);
    }
  }
  start.repeated = offset;
  start.different = step;
  return start;
}

CHKPT_AVX2_HELPER PageClass UniformClass(const Start& start) {
  return start.word == 0 ? PageClass::kZero : PageClass::kFill;
}

// While the page repeats its first word nothing is stored; from the first difference on the class
// is known and the rest is a plain copy.
CHKPT_AVX2 PageClass CopyClassify(const std::uint8_t* source, std::uint8_t* target,
                                  std::uint64_t* fill) {
  const Start start = LoadStart(source);
  *fill = start.word;
  std::size_t offset = start.repeated;
  if (offset == kPageBytes) return UniformClass(start);
  FillSteps(target, offset, start.pattern);
  Step step = start.different;
  for (;;) {
    StoreStep(target + offset, step);
    offset += kStepBytes;
    if (offset == kPageBytes) return PageClass::kStored;
    step = LoadStep(source + offset);
  }
}

CHKPT_AVX2 PageClass Classify(const std::uint8_t* page, std::uint64_t* fill) {
  const Start start = LoadStart(page);
  *fill = start.word;
  return start.repeated == kPageBytes ? UniformClass(start) : PageClass::kStored;
}

CHKPT_AVX2 bool Equal(const std::uint8_t* left, const std::uint8_t* right) {
  for (std::size_t offset = 0; offset < kPageBytes; offset += kStepBytes) {
    const Step l = LoadStep(left + offset);
    const Step r = LoadStep(right + offset);
    const Step difference = {_mm256_xor_si256(l.a, r.a), _mm256_xor_si256(l.b, r.b),
                             _mm256_xor_si256(l.c, r.c), _mm256_xor_si256(l.d, r.d)};
    if (!IsZero(AnyBits(difference))) return false;
  }
  return true;
}

CHKPT_AVX2_HELPER bool IsZeroPage(const std::uint8_t* page) {
  for (std::size_t offset = 0; offset < kPageBytes; offset += kStepBytes) {
    if (!IsZero(AnyBits(LoadStep(page + offset)))) return false;
  }
  return true;
}

CHKPT_AVX2 std::size_t CountZero(const std::uint8_t* pages, std::size_t count) {
  std::size_t zero_count = 0;
  for (std::size_t page = 0; page < count; ++page) {
    if (IsZeroPage(pages + page * kPageBytes)) ++zero_count;
  }
  return zero_count;
}

constexpr PageKernels kAvx2 = {"avx2", CopyClassify, Classify, Equal, CountZero};

}  // namespace

const PageKernels* Avx2PageKernels() { return __builtin_cpu_supports("avx2") ? &kAvx2 : nullptr; }

}  // namespace chkpt

#else

namespace chkpt {

const PageKernels* Avx2PageKernels() { return nullptr; }

}  // namespace chkpt

#endif

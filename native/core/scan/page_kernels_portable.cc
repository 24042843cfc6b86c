// Page kernels in plain C++: the oracle of the others, and what CPUs without a kernel of their own
// run.
//
// Words are loaded with relaxed atomics, because the guest may write the page at the same time:
// each is loaded once, whole, and the compiler may not load it again. A page at an odd address
// falls back to a byte copy of the word.
#include <cstring>

#include "core/base/units.h"
#include "core/scan/page_kernels.h"

#define CHKPT_GUEST_READ __attribute__((no_sanitize("thread")))
#define CHKPT_GUEST_READ_HELPER CHKPT_GUEST_READ __attribute__((always_inline)) static inline

namespace chkpt {
namespace {

constexpr std::size_t kWordBytes = sizeof(std::uint64_t);
constexpr std::size_t kStepWords = 8;
constexpr std::size_t kStepBytes = kStepWords * kWordBytes;
static_assert(kPageBytes % kStepBytes == 0);

struct Step {
  std::uint64_t words[kStepWords];
};

bool IsWordAligned(const std::uint8_t* address) {
  return reinterpret_cast<std::uintptr_t>(address) % kWordBytes == 0;
}

template <bool kAligned>
CHKPT_GUEST_READ_HELPER std::uint64_t LoadOnce(const std::uint8_t* source) {
  if constexpr (kAligned) {
    return __atomic_load_n(reinterpret_cast<const std::uint64_t*>(source), __ATOMIC_RELAXED);
  }
  std::uint64_t word;
  __builtin_memcpy(&word, source, kWordBytes);
  // From here on the value is opaque: the compiler cannot load it a second time.
  __asm__("" : "+r"(word));
  return word;
}

template <bool kAligned>
CHKPT_GUEST_READ_HELPER Step LoadStep(const std::uint8_t* source) {
  Step step;
  for (std::size_t i = 0; i < kStepWords; ++i) {
    step.words[i] = LoadOnce<kAligned>(source + i * kWordBytes);
  }
  return step;
}

// Zero when every word of `step` equals `pattern`.
CHKPT_GUEST_READ_HELPER std::uint64_t Difference(const Step& step, std::uint64_t pattern) {
  std::uint64_t difference = 0;
  for (const std::uint64_t word : step.words) difference |= word ^ pattern;
  return difference;
}

// Word by word: steps of several words would go through a struct in memory, which costs half of the
// speed.
template <bool kAligned>
CHKPT_GUEST_READ PageClass CopyClassifyAs(const std::uint8_t* source, std::uint8_t* target,
                                          std::uint64_t* fill) {
  const std::uint64_t first = LoadOnce<kAligned>(source);
  std::uint64_t difference = 0;
  __builtin_memcpy(target, &first, kWordBytes);
  for (std::size_t offset = kWordBytes; offset < kPageBytes; offset += kWordBytes) {
    const std::uint64_t word = LoadOnce<kAligned>(source + offset);
    __builtin_memcpy(target + offset, &word, kWordBytes);
    difference |= word ^ first;
  }
  *fill = first;
  if (difference != 0) return PageClass::kStored;
  return first == 0 ? PageClass::kZero : PageClass::kFill;
}

CHKPT_GUEST_READ PageClass CopyClassify(const std::uint8_t* source, std::uint8_t* target,
                                        std::uint64_t* fill) {
  return IsWordAligned(source) ? CopyClassifyAs<true>(source, target, fill)
                               : CopyClassifyAs<false>(source, target, fill);
}

CHKPT_GUEST_READ PageClass Classify(const std::uint8_t* page, std::uint64_t* fill) {
  Step step = LoadStep<false>(page);
  const std::uint64_t word = step.words[0];
  *fill = word;
  for (std::size_t offset = kStepBytes; Difference(step, word) == 0; offset += kStepBytes) {
    if (offset == kPageBytes) return word == 0 ? PageClass::kZero : PageClass::kFill;
    step = LoadStep<false>(page + offset);
  }
  return PageClass::kStored;
}

bool Equal(const std::uint8_t* left, const std::uint8_t* right) {
  return std::memcmp(left, right, kPageBytes) == 0;
}

template <bool kAligned>
CHKPT_GUEST_READ std::size_t CountZeroAs(const std::uint8_t* pages, std::size_t count) {
  std::size_t zero_count = 0;
  for (std::size_t page = 0; page < count; ++page) {
    const std::uint8_t* const bytes = pages + page * kPageBytes;
    std::size_t offset = 0;
    while (offset < kPageBytes && Difference(LoadStep<kAligned>(bytes + offset), 0) == 0)
      offset += kStepBytes;
    if (offset == kPageBytes) ++zero_count;
  }
  return zero_count;
}

CHKPT_GUEST_READ std::size_t CountZero(const std::uint8_t* pages, std::size_t count) {
  return IsWordAligned(pages) ? CountZeroAs<true>(pages, count) : CountZeroAs<false>(pages, count);
}

constexpr PageKernels kPortable = {"portable", CopyClassify, Classify, Equal, CountZero};

}  // namespace

const PageKernels& PortablePageKernels() { return kPortable; }

}  // namespace chkpt

// One suite for all page kernels: each must agree with a byte-by-byte model.
#include "core/scan/page_kernels.h"

#include <gtest/gtest.h>

#include <array>
#include <csignal>
#include <cstring>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "core/base/units.h"

namespace chkpt {
namespace {

constexpr std::size_t kMisalignmentMax = 64;
constexpr std::uint8_t kGuardByte = 0xC5;

using Page = std::array<std::uint8_t, kPageBytes>;

std::uint64_t FirstWord(const std::uint8_t* page) {
  std::uint64_t word;
  std::memcpy(&word, page, sizeof word);
  return word;
}

PageClass ModelClass(const std::uint8_t* page) {
  bool zero = true;
  bool fill = true;
  for (std::size_t i = 0; i < kPageBytes; ++i) {
    zero = zero && page[i] == 0;
    fill = fill && page[i] == page[i % 8];
  }
  return zero ? PageClass::kZero : fill ? PageClass::kFill : PageClass::kStored;
}

Page FillPage(std::uint64_t word) {
  Page page;
  for (std::size_t i = 0; i < kPageBytes; i += 8) std::memcpy(page.data() + i, &word, 8);
  return page;
}

Page RandomPage(std::mt19937_64& random) {
  Page page;
  for (std::size_t i = 0; i < kPageBytes; i += 8) {
    const std::uint64_t word = random();
    std::memcpy(page.data() + i, &word, 8);
  }
  return page;
}

class PageKernelsTest : public testing::TestWithParam<const PageKernels*> {
 protected:
  void SetUp() override {
    if (GetParam() == nullptr) GTEST_SKIP() << "this CPU or this build has no such kernel";
    kernels_ = GetParam();
  }

  // Checks copy_classify and classify of `page` against the model, at the given misalignments.
  void Check(const Page& page, std::size_t source_shift, std::size_t target_shift) {
    std::vector<std::uint8_t> source(kPageBytes + 2 * kMisalignmentMax, kGuardByte);
    std::vector<std::uint8_t> target(kPageBytes + 2 * kMisalignmentMax, kGuardByte);
    std::vector<std::uint8_t> expected = target;
    std::memcpy(source.data() + source_shift, page.data(), kPageBytes);
    std::memcpy(expected.data() + target_shift, page.data(), kPageBytes);

    std::uint64_t fill = 0x0BAD'0BAD'0BAD'0BAD;
    const PageClass page_class =
        kernels_->copy_classify(source.data() + source_shift, target.data() + target_shift, &fill);
    ASSERT_EQ(page_class, ModelClass(page.data()));
    ASSERT_EQ(fill, FirstWord(page.data()));
    // Only a stored page has to be copied.
    if (page_class != PageClass::kStored) {
      std::memcpy(target.data() + target_shift, page.data(), kPageBytes);
    }
    ASSERT_EQ(target, expected) << "the copy differs, or bytes around it were written";

    fill = 0x0BAD'0BAD'0BAD'0BAD;
    ASSERT_EQ(kernels_->classify(source.data() + source_shift, &fill), ModelClass(page.data()));
    ASSERT_EQ(fill, FirstWord(page.data()));
  }

  const PageKernels* kernels_ = nullptr;
};

std::string KernelName(const testing::TestParamInfo<const PageKernels*>& info) {
  return info.param == nullptr ? "None" + std::to_string(info.index) : info.param->name;
}

INSTANTIATE_TEST_SUITE_P(All, PageKernelsTest,
                         testing::Values(&PortablePageKernels(), Avx2PageKernels()), KernelName);

TEST_P(PageKernelsTest, ZeroFillAndRandomPagesAreClassifiedAtAnyAlignment) {
  std::mt19937_64 random(1);
  const Page pages[] = {
      FillPage(0),        FillPage(~std::uint64_t{0}),      FillPage(0x0101'0101'0101'0101),
      FillPage(random()), FillPage(std::uint64_t{1} << 63), RandomPage(random)};
  for (const Page& page : pages) {
    for (std::size_t shift = 0; shift <= kMisalignmentMax; ++shift) {
      Check(page, shift, kMisalignmentMax - shift);
      if (HasFatalFailure()) return;
    }
  }
}

TEST_P(PageKernelsTest, OneChangedBitAnywhereInAUniformPageMakesItStored) {
  for (const std::uint64_t word : {std::uint64_t{0}, std::uint64_t{0xDEAD'BEEF'0123'4567}}) {
    Page page = FillPage(word);
    for (std::size_t byte = 0; byte < kPageBytes; ++byte) {
      const std::uint8_t bit = static_cast<std::uint8_t>(1 << byte % 8);
      page[byte] = static_cast<std::uint8_t>(page[byte] ^ bit);
      Check(page, byte % 8, 8 + byte % 8);
      if (HasFatalFailure()) return;
      page[byte] = static_cast<std::uint8_t>(page[byte] ^ bit);
    }
  }
}

TEST_P(PageKernelsTest, APageThatRepeatsALongerPatternIsStored) {
  for (const std::size_t period : {16, 32, 64, 128, 256, 2048}) {
    Page page;
    for (std::size_t i = 0; i < kPageBytes; ++i) page[i] = i % period < 8 ? 0 : 1;
    Check(page, 0, 0);
  }
}

TEST_P(PageKernelsTest, EqualSeesADifferenceInEveryByte) {
  std::mt19937_64 random(2);
  const Page left = RandomPage(random);
  std::vector<std::uint8_t> right(kPageBytes + 1);
  for (std::size_t shift = 0; shift < 2; ++shift) {
    std::memcpy(right.data() + shift, left.data(), kPageBytes);
    EXPECT_TRUE(kernels_->equal(left.data(), right.data() + shift));
    for (std::size_t byte = 0; byte < kPageBytes; ++byte) {
      right[byte + shift] = static_cast<std::uint8_t>(right[byte + shift] ^ 0x80);
      ASSERT_FALSE(kernels_->equal(left.data(), right.data() + shift)) << byte;
      right[byte + shift] = static_cast<std::uint8_t>(right[byte + shift] ^ 0x80);
    }
  }
}

TEST_P(PageKernelsTest, CountZeroCountsPagesWithoutASingleSetBit) {
  constexpr std::size_t kPages = 64;
  std::mt19937_64 random(3);
  for (const std::size_t shift : {0, 8, 3}) {
    for (int round = 0; round < 50; ++round) {
      std::vector<std::uint8_t> bytes(kPages * kPageBytes + shift);
      std::uint8_t* const pages = bytes.data() + shift;
      std::size_t zero = kPages;
      for (std::size_t page = 0; page < kPages; ++page) {
        if (random() % 3 == 0) continue;
        pages[page * kPageBytes + random() % kPageBytes] =
            static_cast<std::uint8_t>(1 << random() % 8);
        --zero;
      }
      ASSERT_EQ(kernels_->count_zero(pages, kPages), zero);
    }
  }
  EXPECT_EQ(kernels_->count_zero(nullptr, 0), 0U);
}

// A guest sweeps the page with one word or another while it is copied. A page that is called stored
// must be so in its copy, whatever mixture that is, and the fill its first word. Under
// ThreadSanitizer this also shows that reading live guest memory is not reported.
TEST_P(PageKernelsTest, WhatIsClassifiedIsWhatWasCopiedWhileTheGuestWrites) {
  alignas(64) static Page live;
  live = FillPage(0);
  const std::jthread guest([](std::stop_token stop) {
    volatile std::uint64_t* const words = reinterpret_cast<volatile std::uint64_t*>(live.data());
    // Between two sweeps the page is uniform for a while, so that all three classes come up.
    for (std::uint64_t round = 0; !stop.stop_requested(); ++round) {
      const std::uint64_t word = round % 2 == 0 ? 0x1111'1111'1111'1111 : 0;
      for (std::size_t i = 0; i < kPageBytes / 8; ++i) words[i] = word;
      for (int pause = 0; pause < 2000; ++pause) __asm__ volatile("");
    }
  });
  std::size_t stored = 0;
  Page copy;
  // As many copies as it takes to meet the guest in the middle of a page 100 times.
  for (int i = 0; i < 1'000'000 && stored < 100; ++i) {
    std::uint64_t fill = 0;
    const PageClass page_class = kernels_->copy_classify(live.data(), copy.data(), &fill);
    if (page_class == PageClass::kStored) {
      ASSERT_EQ(ModelClass(copy.data()), PageClass::kStored) << "copy " << i;
      ASSERT_EQ(fill, FirstWord(copy.data()));
      ++stored;
    } else {
      // One of the words that the guest writes, and never seen half-way.
      ASSERT_EQ(fill, page_class == PageClass::kZero ? 0U : 0x1111'1111'1111'1111U);
    }
    static_cast<void>(kernels_->count_zero(live.data(), 1));
  }
  EXPECT_GT(stored, 0U) << "the guest never wrote during a copy: this test has shown nothing";
}

#if defined(__x86_64__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)

// The same with a guest that cannot be missed: the CPU traps after every instruction of the kernel,
// and the handler changes a word of the page. A kernel that loads a byte a second time gets another
// value for sure.
struct SteppedGuest {
  volatile std::uint64_t* word = nullptr;
  std::uint64_t random = 1;
  std::uint64_t steps = 0;
};
SteppedGuest stepped_guest;  // a signal handler takes no argument of ours

void OnStep(int) {
  stepped_guest.random = stepped_guest.random * 6364136223846793005U + 1442695040888963407U;
  *stepped_guest.word = stepped_guest.random >> 63 != 0 ? 0x1111'1111'1111'1111 : 0;
  ++stepped_guest.steps;
}

// Bit 8 of the flags is the trap flag. The red zone below the stack pointer stays untouched.
void StartStepping() {
  __asm__ volatile(
      "lea -128(%%rsp), %%rsp; pushfq; orq $0x100, (%%rsp); popfq; lea 128(%%rsp), %%rsp" ::
          : "memory", "cc");
}
void StopStepping() {
  __asm__ volatile(
      "lea -128(%%rsp), %%rsp; pushfq; andq $~0x100, (%%rsp); popfq; lea 128(%%rsp), %%rsp" ::
          : "memory", "cc");
}

TEST_P(PageKernelsTest, EveryByteIsLoadedOnce) {
  struct sigaction action = {};
  struct sigaction before = {};
  action.sa_handler = OnStep;
  ASSERT_EQ(::sigaction(SIGTRAP, &action, &before), 0);
  std::mt19937_64 random(4);
  std::array<int, 3> seen = {};
  // A trap costs microseconds: as many pages as fit in this many steps.
  std::uint64_t steps = 0;
  for (int i = 0; steps < 30'000 && i < 500; ++i) {
    alignas(64) std::array<std::uint8_t, kPageBytes + 8> source = {};
    Page copy;
    // Half of the time misaligned; often in the first words, which also give the fill.
    std::uint8_t* const page = source.data() + (i % 2 == 0 ? 0 : 1 + random() % 7);
    const std::size_t word = i % 3 == 0 ? random() % 4 : random() % (kPageBytes / 8);
    stepped_guest = {reinterpret_cast<volatile std::uint64_t*>(page + word * 8), random(), 0};
    std::uint64_t fill = 0;
    StartStepping();
    const PageClass page_class = kernels_->copy_classify(page, copy.data(), &fill);
    StopStepping();
    ++seen[static_cast<std::size_t>(page_class)];
    steps += stepped_guest.steps;
    if (page_class == PageClass::kStored) {
      EXPECT_EQ(ModelClass(copy.data()), PageClass::kStored) << "word " << word;
      EXPECT_EQ(fill, FirstWord(copy.data())) << "word " << word;
    }
    EXPECT_GT(stepped_guest.steps, 100U)
        << "the kernel was not stepped: this test has shown nothing";
  }
  EXPECT_GT(seen[static_cast<std::size_t>(PageClass::kZero)], 0);
  EXPECT_GT(seen[static_cast<std::size_t>(PageClass::kStored)], 0);
  ASSERT_EQ(::sigaction(SIGTRAP, &before, nullptr), 0);
}

#endif

TEST(BestPageKernelsTest, TheBestKernelIsTheFastestThatThisCpuRuns) {
  const PageKernels* const avx2 = Avx2PageKernels();
  EXPECT_EQ(&BestPageKernels(), avx2 != nullptr ? avx2 : &PortablePageKernels());
#if defined(__x86_64__)
  EXPECT_EQ(avx2 != nullptr, __builtin_cpu_supports("avx2") != 0);
#endif
}

}  // namespace
}  // namespace chkpt

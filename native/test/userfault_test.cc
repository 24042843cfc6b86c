#include "core/lazy/userfault.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "core/base/units.h"
#include "core/memory/mapping.h"

namespace chkpt {
namespace {

constexpr std::uint64_t kRangeBytes = 64 * kPageBytes;

// A range is taken back while a thread runs into its missing pages. The kernel wakes who sleeps
// before it takes the range away, so one that falls asleep in between is ours to wake.
TEST(UserfaultTest, WhoFaultsWhileTheRangeIsTakenBackGoesOn) {
  auto opened = Userfault::Open();
  if (!opened.ok()) GTEST_SKIP() << opened.error().message;
  Userfault& userfault = *opened.value();
  constexpr int kRounds = 600;
  for (int round = 0; round < kRounds; ++round) {
    auto mapped = MapAnonymous(kRangeBytes, false);
    ASSERT_TRUE(mapped.ok());
    std::uint8_t* const host = mapped.value();
    ASSERT_TRUE(userfault.Register(host, kRangeBytes).ok());
    std::atomic<bool> begun{false};
    std::atomic<bool> done{false};
    std::thread guest([&] {
      begun = true;
      for (std::uint64_t at = 0; at < kRangeBytes; at += kPageBytes) {
        static_cast<void>(*static_cast<const volatile std::uint8_t*>(host + at));
      }
      done = true;
    });
    while (!begun) std::this_thread::yield();
    const auto until = std::chrono::steady_clock::now() + std::chrono::nanoseconds(50 * round);
    while (std::chrono::steady_clock::now() < until) {
    }
    ASSERT_TRUE(userfault.Unregister(host, kRangeBytes).ok());
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (!done && std::chrono::steady_clock::now() < deadline) std::this_thread::yield();
    EXPECT_TRUE(done) << "round " << round;
    if (!done) userfault.Wake(host, kRangeBytes);
    guest.join();
    Unmap(host, kRangeBytes);
    if (HasFailure()) return;
  }
}

}  // namespace
}  // namespace chkpt

#include "core/tracking/fault_cost.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>

#include "core/memory/mapping.h"

namespace chkpt {
namespace {

constexpr std::uint64_t kPages = 32;
constexpr int kTimes = 5;

// Nanoseconds of one write to each page.
double WriteEach(std::uint8_t* host, std::uint64_t page) {
  const auto begin = std::chrono::steady_clock::now();
  for (std::uint64_t i = 0; i < kPages; ++i) {
    *static_cast<volatile std::uint8_t*>(host + i * page) = static_cast<std::uint8_t>(i);
  }
  return std::chrono::duration<double, std::nano>(std::chrono::steady_clock::now() - begin).count();
}

}  // namespace

std::optional<double> MeasureFaultCost(WriteProtector* protector, bool shared) {
  const std::uint64_t page = SystemPageBytes();
  const std::uint64_t bytes = kPages * page;
  const int flags = (shared ? MAP_SHARED : MAP_PRIVATE) | MAP_ANONYMOUS;
  void* mapped = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, flags, -1, 0);
  if (mapped == MAP_FAILED) return std::nullopt;
  ::madvise(mapped, bytes, MADV_NOHUGEPAGE);
  auto* host = static_cast<std::uint8_t*>(mapped);
  const std::uint64_t start = reinterpret_cast<std::uintptr_t>(mapped);
  const AddressRange range = {start, start + bytes};
  WriteEach(host, page);

  std::array<double, kTimes> costs = {};
  bool done = protector->Register(range).ok();
  for (double& cost : costs) {
    done = done && protector->Protect(range).ok();
    const double first = WriteEach(host, page);
    cost = (first - WriteEach(host, page)) / kPages;
  }
  protector->Unregister(range);
  ::munmap(mapped, bytes);
  if (!done) return std::nullopt;
  // The median: who writes may be held up.
  std::nth_element(costs.begin(), costs.begin() + kTimes / 2, costs.end());
  return std::max(costs[kTimes / 2], 0.0);
}

}  // namespace chkpt

#include "core/bench/fault_bench.h"

#include <poll.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "core/lazy/userfault.h"
#include "core/memory/mapping.h"

namespace chkpt {
namespace {

double TouchNs(const std::uint8_t* page) {
  const auto begin = std::chrono::steady_clock::now();
  static_cast<void>(*static_cast<const volatile std::uint8_t*>(page));
  return std::chrono::duration<double, std::nano>(std::chrono::steady_clock::now() - begin).count();
}

}  // namespace

std::vector<double> TouchPages(const GuestMemory& memory, std::span<const std::uint32_t> pages) {
  std::vector<double> times;
  times.reserve(pages.size());
  for (const std::uint32_t page : pages) {
    if (page >= memory.page_count()) continue;
    const Region& region = memory.regions()[memory.RegionOfPage(page)];
    times.push_back(TouchNs(region.host + (page - region.first_page) * kPageBytes));
  }
  return times;
}

Result<std::vector<double>> MeasureFaultRoundTrip(std::size_t count) {
  auto opened = Userfault::Open();
  if (!opened.ok()) return opened.error();
  Userfault& userfault = *opened.value();
  // A block apart, as the faults of a lazy load are.
  const std::uint64_t bytes = count * kBlockBytes;
  Result<std::uint8_t*> mapped = MapAnonymous(bytes, true);
  if (!mapped.ok()) return mapped.error();
  std::uint8_t* host = mapped.value();
  Status registered = userfault.Register(host, bytes);
  std::vector<double> times;
  if (registered.ok()) {
    std::atomic<bool> stop{false};
    std::thread handler([&] {
      const std::vector<std::uint8_t> ready(kPageBytes, 0x5a);
      pollfd wait = {userfault.fd(), POLLIN, 0};
      while (!stop) {
        const auto fault = userfault.Next();
        if (fault) {
          std::uint8_t* page = host + (fault->address - host) /
                                          static_cast<std::ptrdiff_t>(kPageBytes) *
                                          static_cast<std::ptrdiff_t>(kPageBytes);
          static_cast<void>(userfault.Copy(page, ready.data(), kPageBytes));
        } else {
          static_cast<void>(::poll(&wait, 1, 10));
        }
      }
    });
    for (std::size_t i = 0; i < count; ++i) times.push_back(TouchNs(host + i * kBlockBytes));
    stop = true;
    handler.join();
  }
  Unmap(host, bytes);
  if (!registered.ok()) return registered.error();
  return times;
}

}  // namespace chkpt

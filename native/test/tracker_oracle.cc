// The oracle with any number of writes: tracker_oracle [N [seed]]. A line for each kind of memory;
// exit code 1 when a page was missed or a harvest failed, or when it does not notice a page that is
// lost on purpose.
#include "tracker_oracle.h"

#include <cstdio>
#include <cstdlib>

#include "core/tracking/write_protect_tracker.h"

namespace chkpt {
namespace {

struct Place {
  const char* name;
  Backing backing;
  bool huge_pages;
};
constexpr Place kPlaces[] = {{"anonymous, small pages", Backing::kAnonymous, false},
                             {"anonymous, huge pages", Backing::kAnonymous, true},
                             {"memfd", Backing::kMemfd, true}};

bool RunOn(const Place& place, std::uint64_t writes, std::uint64_t seed) {
  const RegionSpec specs[] = {{0, 2u << 20}, {8u << 20, 2u << 20}};
  auto memory =
      GuestMemory::Allocate(specs, {.backing = place.backing, .huge_pages = place.huge_pages});
  if (!memory.ok()) {
    std::printf("%-24s no memory: %s\n", place.name, memory.error().message.c_str());
    return false;
  }
  auto tracker = WriteProtectTracker::Open(memory.value());
  if (!tracker.ok()) {
    std::printf("%-24s skipped: %s\n", place.name, tracker.error().message.c_str());
    return true;
  }
  OracleOptions options;
  options.writes = 100'000;
  options.batch_writes = options.writes;
  options.lose_every = 16;
  if (TrackerOracle(tracker.value().get(), options).Run().missed_pages == 0) {
    std::printf("%-24s FAILED: a page that is lost on purpose was not missed\n", place.name);
    return false;
  }
  options.lose_every = 0;
  options.writes = writes;
  options.batch_writes = std::min<std::uint64_t>(writes, 2'000'000);
  options.seed = seed;
  const OracleReport report = TrackerOracle(tracker.value().get(), options).Run();
  std::printf("%-24s writes %llu, advices %llu, harvests %llu, told %llu, missed %llu%s\n",
              place.name, static_cast<unsigned long long>(report.writes),
              static_cast<unsigned long long>(report.advices),
              static_cast<unsigned long long>(report.harvests),
              static_cast<unsigned long long>(report.told_pages),
              static_cast<unsigned long long>(report.missed_pages),
              report.failed ? ", FAILED" : "");
  std::fflush(stdout);
  return report.missed_pages == 0 && !report.failed;
}

}  // namespace
}  // namespace chkpt

int main(int count, char** words) {
  const std::uint64_t writes = count > 1 ? std::strtoull(words[1], nullptr, 10) : 100'000'000;
  const std::uint64_t seed = count > 2 ? std::strtoull(words[2], nullptr, 10) : 1;
  if (writes == 0) return 2;
  bool passed = true;
  const std::uint64_t share = writes / std::size(chkpt::kPlaces) + 1;
  for (const chkpt::Place& place : chkpt::kPlaces) {
    passed = chkpt::RunOn(place, share, seed) && passed;
  }
  return passed ? 0 : 1;
}

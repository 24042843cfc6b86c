#include "core/foreign/palacios_pages.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "core/base/bytes.h"
#include "core/base/check.h"
#include "core/base/units.h"

namespace chkpt {
namespace {

constexpr char kName[] = "memory_page";
constexpr std::size_t kNameBytes = sizeof kName - 1;
constexpr std::size_t kKeyBytes = 2 + kNameBytes;
constexpr std::size_t kHeadBytes = kKeyBytes + 4 + 8 + kNameBytes + 8;
static_assert(kHeadBytes + kPageBytes + kKeyBytes == kPalaciosPageBytes);

using Head = std::array<std::uint8_t, kHeadBytes>;

// What stands before the data; its first bytes stand behind the data too.
Head MakeHead() {
  Head head;
  head[0] = kNameBytes;
  head[1] = 0x80;
  std::memcpy(head.data() + 2, kName, kNameBytes);
  std::uint8_t* record = head.data() + kKeyBytes;
  Store<std::uint32_t>(record, 0xabcd0123);
  Store<std::uint64_t>(record + 4, kNameBytes);
  std::memcpy(record + 12, kName, kNameBytes);
  Store<std::uint64_t>(record + 12 + kNameBytes, kPageBytes);
  return head;
}

// Calls `visit(part)` for each part of the run that lies in one region.
template <typename Visit>
Status ForEachPart(const GuestMemory& memory, PageRun run, Visit visit) {
  while (run.count > 0) {
    const Region& region = memory.regions()[memory.RegionOfPage(run.first)];
    const std::uint64_t count = std::min(run.count, region.pages().end() - run.first);
    for (std::uint64_t page = run.first; page < run.first + count; ++page) {
      Status visited = visit(page);
      if (!visited.ok()) return visited;
    }
    run = {run.first + count, run.count - count};
  }
  return Ok();
}

}  // namespace

Result<std::vector<std::uint8_t>> EncodePalaciosPages(const GuestMemory& memory, PageRun run) {
  CHKPT_CHECK(run.count >= 1 && run.count <= kPalaciosPagesMax);
  const Head head = MakeHead();
  std::vector<std::uint8_t> bytes(run.count * kPalaciosPageBytes);
  std::uint8_t* frame = bytes.data();
  Status copied = ForEachPart(memory, run, [&](std::uint64_t page) {
    std::copy(head.begin(), head.end(), frame);
    Status read = memory.CopyOut({page, 1}, frame + kHeadBytes);
    std::copy_n(head.begin(), kKeyBytes, frame + kHeadBytes + kPageBytes);
    frame += kPalaciosPageBytes;
    return read;
  });
  if (!copied.ok()) return copied.error();
  return bytes;
}

Status PlacePalaciosPages(GuestMemory& memory, std::uint64_t first,
                          std::span<const std::uint8_t> bytes) {
  const std::uint64_t count = bytes.size() / kPalaciosPageBytes;
  CHKPT_CHECK(bytes.size() % kPalaciosPageBytes == 0 && count >= 1 && count <= kPalaciosPagesMax);
  const Head head = MakeHead();
  for (std::uint64_t i = 0; i < count; ++i) {
    const auto frame = bytes.subspan(i * kPalaciosPageBytes, kPalaciosPageBytes);
    if (!std::equal(head.begin(), head.end(), frame.begin()) ||
        !std::equal(head.begin(), head.begin() + kKeyBytes,
                    frame.begin() + kHeadBytes + kPageBytes)) {
      return Error{.code = ErrorCode::kFormat,
                   .message = "no page of a migration where one is expected",
                   .page = first + i};
    }
  }
  memory.MarkUsed();
  const std::uint8_t* data = bytes.data() + kHeadBytes;
  return ForEachPart(memory, {first, count}, [&](std::uint64_t page) {
    Status written = memory.CopyIn({page, 1}, data);
    data += kPalaciosPageBytes;
    return written;
  });
}

}  // namespace chkpt

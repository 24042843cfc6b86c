#include "core/lazy/page_run.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "core/base/bytes.h"
#include "core/codec/lz4_block.h"
#include "core/codec/lz4_encoder.h"

namespace chkpt {
namespace {

constexpr std::size_t kHeadBytes = 16;

Error Malformed(std::uint64_t page) {
  return {.code = ErrorCode::kFormat, .message = "pages that are none", .page = page};
}

}  // namespace

Result<std::vector<std::uint8_t>> EncodePageRun(const GuestMemory& memory, PageRun run) {
  CHKPT_CHECK(run.count >= 1 && run.count <= kBlockPages);
  alignas(64) std::array<std::uint8_t, kBlockBytes> pages;
  Status copied = memory.CopyOut(run, pages.data());
  if (!copied.ok()) return copied.error();
  const std::span<const std::uint8_t> content(pages.data(), run.count * kPageBytes);
  std::vector<std::uint8_t> bytes(kHeadBytes + Lz4Bound(content.size()));
  std::size_t count = 0;
  if (std::ranges::any_of(content, [](std::uint8_t byte) { return byte != 0; })) {
    count = EncodeLz4(content, 1, bytes.data() + kHeadBytes);
    if (count == 0 || count >= content.size()) {
      count = content.size();
      std::memcpy(bytes.data() + kHeadBytes, content.data(), count);
    }
  }
  Store<std::uint64_t>(bytes.data(), run.first);
  Store(bytes.data() + 8, static_cast<std::uint32_t>(run.count));
  Store(bytes.data() + 12, static_cast<std::uint32_t>(count));
  bytes.resize(kHeadBytes + count);
  return bytes;
}

Status PlacePageRun(std::span<const std::uint8_t> bytes, const GuestMemory& memory,
                    PagePlacer& placer) {
  if (bytes.size() < kHeadBytes) return Malformed(kUnknown);
  const PageRun run{Load<std::uint64_t>(bytes.data()), Load<std::uint32_t>(bytes.data() + 8)};
  const std::size_t count = Load<std::uint32_t>(bytes.data() + 12);
  const std::span<const std::uint8_t> data = bytes.subspan(kHeadBytes);
  const bool legal = run.count >= 1 && run.count <= kBlockPages &&
                     run.first < memory.page_count() &&
                     run.count <= memory.page_count() - run.first && data.size() == count &&
                     count <= run.count * kPageBytes;
  if (!legal) return Malformed(kUnknown);
  const Region& region = memory.regions()[memory.RegionOfPage(run.first)];
  if (run.end() > region.pages().end()) return Malformed(run.first);
  if (count == 0) return placer.PlaceZero(run);
  if (count == run.count * kPageBytes) return placer.Place(run, data.data());
  alignas(64) std::array<std::uint8_t, kBlockBytes> pages;
  if (!DecodeLz4(data, {pages.data(), run.count * kPageBytes})) {
    return Error{.code = ErrorCode::kDecode,
                 .message = "block does not decode to its declared size",
                 .page = run.first};
  }
  return placer.Place(run, pages.data());
}

}  // namespace chkpt

// libFuzzer target: the native receiver of guest memory, fed with hostile frames. The input is a
// sequence of frames after a REGION_TABLE; what the scanner lets through is parsed and decoded into
// real memory.
//
// A checksum would stop the fuzzer at the door, so the mutator repairs sequence numbers and digests
// in nine of ten cases and leaves them broken in one.
//
//   bash scripts/fuzz.sh [SECONDS]
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "core/parallel/block_loader.h"
#include "core/parallel/frame_scanner.h"

extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t max_size);

namespace chkpt {
namespace {

const std::vector<RegionSpec> kRegions = {{0, 20 * kPageBytes}, {0x100000, 33 * kPageBytes}};

// With and without a parent.
StreamPosition Start(std::size_t size) {
  return {.epoch = size / 2 % 2, .sequence = 2, .offset = 4096};
}

// Walks what looks like frames and makes their headers right again.
void Repair(std::uint8_t* data, std::size_t size) {
  StreamPosition position = Start(size);
  std::size_t offset = 0;
  while (size - offset >= kFrameHeaderBytes) {
    std::uint8_t* frame = data + offset;
    FrameHeader header{.type = Load<std::uint32_t>(frame),
                       .payload_bytes = Load<std::uint64_t>(frame + 8),
                       .arg0 = Load<std::uint64_t>(frame + 24),
                       .arg1 = Load<std::uint64_t>(frame + 32)};
    const std::size_t left = size - offset - kFrameHeaderBytes;
    if (header.payload_bytes > left) header.payload_bytes = left & ~std::size_t{7};
    const std::size_t padded = Pad8(header.payload_bytes);
    if (padded > left) return;
    header.payload_digest = PayloadDigest({frame + kFrameHeaderBytes, padded});
    EncodeFrameHeader(header, position, frame);
    position.Advance(header.frame_bytes());
    offset += header.frame_bytes();
  }
}

void LoadFrames(std::span<const std::uint8_t> bytes, bool with_memory) {
  auto memory = with_memory ? GuestMemory::Allocate(kRegions, {.huge_pages = false})
                            : GuestMemory::Describe(kRegions);
  CHKPT_CHECK(memory.ok());
  GuestMemory& guest = *memory.value();
  FrameScanner scanner(guest, Start(bytes.size()), bytes.size() / 4 % 2 == 0);
  const ScanResult scanned = scanner.Scan(bytes);
  auto loader = BlockLoader::Create(guest, {}, std::make_shared<BufferPool>());
  PageTotals totals;
  for (const PageFrame& frame : scanned.frames) {
    const PageRun pages{frame.header.arg0, frame.header.arg1};
    const Region& region = guest.regions()[guest.RegionOfPage(pages.first)];
    if (IsRun(static_cast<FrameType>(frame.header.type))) {
      if (!loader.value()->Zero(region, region.fresh, pages).ok()) return;
      continue;
    }
    const std::size_t padded = Pad8(frame.header.payload_bytes);
    if (PayloadDigest({frame.payload, padded}) != frame.header.payload_digest) return;
    auto view =
        ParsePageBlock({frame.payload, frame.header.payload_bytes}, pages.first, pages.count,
                       Start(bytes.size()).has_parent(),
                       frame.header.type == static_cast<std::uint32_t>(FrameType::kDeltaBlock));
    if (!view.ok()) return;
    if (!loader.value()->Load(view.value(), region, region.fresh, pages, 0, &totals).ok()) return;
    std::size_t word = 0;
    for (std::size_t page = 0; page < pages.count; ++page) {
      const BlockPageClass page_class = ClassOf(view.value().classes, page);
      if (!HasWord(page_class)) continue;
      const std::uint64_t source = Load<std::uint64_t>(view.value().words + 8 * word++);
      if (page_class != BlockPageClass::kSame) continue;
      CHKPT_CHECK(source < pages.first + page);
      if (!loader.value()->CopyPage(source, pages.first + page).ok()) return;
    }
  }
  CHKPT_CHECK(totals.pages <= guest.page_count());
}

}  // namespace
}  // namespace chkpt

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  chkpt::LoadFrames({data, size}, size % 2 == 0);
  return 0;
}

extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size,
                                               std::size_t max_size, unsigned int seed) {
  size = LLVMFuzzerMutate(data, size, max_size);
  if (seed % 10 != 0) chkpt::Repair(data, size);
  return size;
}

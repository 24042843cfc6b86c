// Walks the page frames of a memory context in stream order: checks header digests, bounds, order
// and coverage, and cuts them into jobs for the workers. Payloads are not looked at: workers check
// their digests before they decode.
//
// Thread safety: none; one scanner, one thread. About 30 ns per frame.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "core/base/result.h"
#include "core/format/block_index.h"
#include "core/format/frame.h"
#include "core/memory/guest_memory.h"

namespace chkpt {

// A frame whose header was checked; its payload lies in a read buffer.
struct PageFrame {
  FrameHeader header;
  StreamPosition::Place place;
  const std::uint8_t* payload = nullptr;
};

struct ScanResult {
  std::vector<PageFrame> frames;       // runs and blocks
  std::vector<std::uint64_t> digests;  // header digests of all frames, others included
  std::size_t consumed_bytes = 0;      // whole frames
  bool ended = false;  // the next frame is not a page frame: the context's pages are over
  // What ended the scan. The frames before it are sound so far, and may hold damage that comes
  // first.
  std::optional<Error> error;
};

class FrameScanner {
 public:
  // `deltas`: DELTA_BLOCK frames are known. Of a stream with a parent.
  FrameScanner(const GuestMemory& memory, const StreamPosition& position, bool deltas = false);

  // Takes as many whole frames from the front of `bytes` as there are. Errors: kDigest, kFormat,
  // kLimit, kVersion.
  ScanResult Scan(std::span<const std::uint8_t> bytes);

  // Page that the next frame must start with; page_count() when all were seen.
  std::uint64_t next_page() const { return next_page_; }
  const StreamPosition& position() const { return position_; }
  // The BLOCK_INDEX frames so far.
  const std::vector<IndexGroup>& groups() const { return groups_; }

 private:
  Status ScanFrames(std::span<const std::uint8_t> bytes, ScanResult* result);
  Status CheckPages(const CheckedFrame& frame);
  Status CheckOptional(const CheckedFrame& frame, const std::uint8_t* payload);
  Status CheckIndex(const FrameHeader& header, const std::uint8_t* payload);
  Status NoteBlock(const Region& region, std::uint64_t page);
  Error FrameError(ErrorCode code, const char* message) const;

  const GuestMemory& memory_;
  const bool deltas_;
  StreamPosition position_;
  std::uint64_t next_page_ = 0;
  BlockIndex index_;  // of the group of the last PAGE_BLOCK
  bool index_told_ = true;
  std::vector<IndexGroup> groups_;
};

}  // namespace chkpt

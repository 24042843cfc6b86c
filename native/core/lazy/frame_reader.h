// Single frames at any place of a checkpoint, verified: header digest (bound to checkpoint, epoch
// and place), then payload digest. What an index says about them is a hint only.
//
// Thread safety: a FrameReader may be used by any number of threads, each with a buffer of its own.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "core/base/result.h"
#include "core/format/frame.h"
#include "core/lazy/block_source.h"

namespace chkpt {

struct VerifiedFrame {
  FrameHeader header;
  std::uint64_t sequence = 0;
  std::uint64_t header_digest = 0;
  std::span<const std::uint8_t> payload;  // without padding; in the caller's buffer or the source
};

class FrameReader {
 public:
  // `source` outlives the reader.
  FrameReader(BlockSource& source, const std::array<std::uint8_t, 16>& uuid, std::uint64_t epoch)
      : source_(source), uuid_(uuid), epoch_(epoch) {}

  // Whether its bytes have to be asked for: see BlockSource.
  bool asks() const { return source_.asked_bytes().has_value(); }

  // The header at `offset` alone; `payload` is empty. Errors: kDigest, kFormat, kLimit and those of
  // the source.
  Result<VerifiedFrame> ReadHeader(std::uint64_t offset) const;
  // The same for a walk: where bytes have to be asked for, headers that stand close together come
  // with one answer, which `*window` keeps.
  struct Window {
    std::uint64_t offset = 0;
    std::vector<std::uint8_t> bytes = {};
  };
  Result<VerifiedFrame> ReadHeader(std::uint64_t offset, Window* window) const;
  // The frame at `offset`, into `*buffer`, which grows as needed; where the source is memory, in
  // its place. `*is_known`, if given: the payload was verified here before, and is memory that does
  // not change; set when that can be said from now on.
  Result<VerifiedFrame> Read(std::uint64_t offset, std::vector<std::uint8_t>* buffer,
                             bool* is_known = nullptr) const;
  // The frame at the start of `bytes`, which stand at `offset`. kTruncated: there is more of it
  // behind `bytes`.
  Result<VerifiedFrame> Check(std::uint64_t offset, std::span<const std::uint8_t> bytes) const;

 private:
  Result<VerifiedFrame> CheckHeader(std::uint64_t offset, const std::uint8_t* bytes) const;
  Result<VerifiedFrame> CheckInPlace(std::uint64_t offset, std::span<const std::uint8_t> header,
                                     bool* is_known) const;

  BlockSource& source_;
  const std::array<std::uint8_t, 16> uuid_;
  const std::uint64_t epoch_;
};

}  // namespace chkpt

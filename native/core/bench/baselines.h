// What the hardware and bare libraries do with the same bytes, in the same process and run: the
// denominators of every ratio that bench/ reports. Nothing of chkpt's pipeline is used here.
//
// All times are seconds of the monotonic clock; all functions are for memory nobody writes to.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "core/base/result.h"
#include "core/memory/guest_memory.h"

namespace chkpt {

struct Measured {
  double seconds = 0;
  std::uint64_t bytes = 0;   // input
  std::uint64_t result = 0;  // what was computed: keeps the compiler honest, checked by tests
};

// Sums every 8-byte word of the mapped regions: read bandwidth.
Measured MeasureRead(const GuestMemory& memory, unsigned threads);
// Counts zero pages with the scan kernel, in place.
Measured MeasureZeroScan(const GuestMemory& memory, unsigned threads);
// memcpy of the pages that are not zero to memory that was touched before.
Result<Measured> MeasureCopy(const GuestMemory& memory, unsigned threads);
// Touches `bytes` of fresh memory and gives it back. On a virtual machine the first touch of memory
// that the host has not backed yet is several times slower; what is allocated soon afterwards finds
// memory that is backed.
Status WarmMemory(std::uint64_t bytes);
// One record per page as the original Palacios streams frame them (boundary, tag length, tag, data
// length, data; 20 bytes and the tag around each page), one thread, one writev per record, to `fd`.
Result<Measured> MeasurePalaciosRecords(const GuestMemory& memory, int fd);

// The stored pages of a checkpoint as liblz4 alone would compress them: same pages, same blocks.
class StoredBlocks {
 public:
  // Takes the stored pages of the PAGE_BLOCK frames in `frames`, which must be whole frames of a
  // checkpoint saved without compression. Errors: kFormat.
  Status Add(std::span<const std::uint8_t> frames);

  // LZ4_compress_fast_extState over every block, `threads` threads taking blocks from one counter.
  Measured Compress(unsigned threads, int acceleration);
  // LZ4_decompress_safe of what Compress made, into fresh huge-page memory: decoding and population
  // together. In place: the blocks of a 2 MiB extent of the guest go into an extent of their own,
  // one behind the other, so that as many huge pages are populated as the guest has extents with
  // stored pages. Packed: all blocks one behind the other, the least population there can be.
  // REQUIRES: Compress ran.
  enum class Layout : std::uint8_t { kInPlace, kPacked };
  Result<Measured> Decode(unsigned threads, Layout layout);

  std::uint64_t bytes() const { return data_.size(); }
  std::size_t block_count() const { return blocks_.size(); }

 private:
  struct Block {
    std::uint64_t offset = 0;
    std::uint64_t place = 0;  // in place: where in the guest's extents
    std::uint32_t bytes = 0;
    std::uint32_t encoded_bytes = 0;  // 0: not smaller
    std::uint64_t encoded_offset = 0;
  };
  bool DecodeBlock(const Block& block, std::uint8_t* target) const;

  std::vector<std::uint8_t> data_;
  std::vector<std::uint8_t> encoded_;
  std::vector<Block> blocks_;
};

}  // namespace chkpt

// BlockDecoder: the content of any block or page, from a list of checkpoints, newest first. What
// the newest does not hold itself (a page of class 4, a block in a run) is in the next one.
//
// Untrusted input: frames are verified before they are parsed; a `same` page names an earlier page
// of the same checkpoint and a parent is further down the list, so that every step gets nearer to
// an end. Nothing recurses.
//
// Thread safety: none; one for each thread. Layers and layout are shared and do not change.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "core/base/result.h"
#include "core/bitmap/dirty_bitmap.h"
#include "core/codec/page_block.h"
#include "core/lazy/block_map.h"
#include "core/lazy/frame_reader.h"

namespace chkpt {

// One checkpoint of a chain.
struct Layer {
  FrameReader reader;
  std::shared_ptr<const BlockMap> map;
  bool has_parent = false;
  // Blocks of memory that does not change, verified once: those that need not be again. Null: none.
  std::shared_ptr<DirtyBitmap> verified = nullptr;
};

// What a walk over all frames wants to know of a block of the newest checkpoint that was verified.
struct FrameNote {
  std::uint64_t sequence = 0;
  std::uint64_t header_digest = 0;
  std::uint64_t frame_bytes = 0;  // 0: nothing is known
};

class BlockDecoder {
 public:
  BlockDecoder(std::span<const Layer> layers, const BlockLayout& layout,
               const std::atomic<bool>& cancelled);

  // Whether no layer holds anything of the block: it is all zeros.
  static bool IsZero(std::span<const Layer> layers, std::uint64_t block);

  // All pages of the block into `target`. Errors: kDigest, kFormat, kDecode, kTruncated, kIo,
  // kAborted.
  Status Decode(std::uint64_t block, std::uint8_t* target);
  // The pages of the block whose bits are set in `wanted`, each in its place; what is between them
  // is undefined. REQUIRES: no bit behind the block's pages.
  Status DecodePages(std::uint64_t block, std::uint32_t wanted, std::uint8_t* target);
  // As Decode; `bytes`, read from offset `offset` on, hold the block's frame of the newest layer.
  Status DecodeRead(std::uint64_t block, std::uint64_t offset, std::span<const std::uint8_t> bytes,
                    std::uint8_t* target);
  // Of the block that Decode or DecodeRead was last called for, if the newest layer has it.
  const FrameNote& note() const { return note_; }

 private:
  // A block of one layer, parsed.
  struct Parsed {
    std::size_t layer = ~std::size_t{0};
    std::uint64_t block = 0;
    std::vector<std::uint8_t> buffer;   // frame
    std::vector<std::uint8_t> decoded;  // stored pages
    std::size_t decoded_pages = 0;      // the first ones of the stored pages
    PageBlockView view;
    FrameNote note;
  };
  struct SamePage {
    std::size_t layer;
    std::size_t page;  // in the block
    std::uint64_t source;
  };

  Status Parse(std::size_t layer, std::uint64_t block, std::uint64_t offset,
               const VerifiedFrame& frame, Parsed* parsed);
  Result<Parsed*> Fetch(std::size_t layer, std::uint64_t block, std::uint64_t offset);
  // The first `count` stored pages; there may be more behind them.
  Result<const std::uint8_t*> Stored(Parsed* parsed, std::size_t count);
  // Puts what the layer has of the pages in `*pending` into target and takes them out of it.
  Status TakePages(Parsed* parsed, std::uint32_t* pending, std::uint8_t* target);
  Status Finish(std::uint64_t block, std::size_t layer, std::uint32_t pending,
                std::uint8_t* target);
  Status CopyPage(std::size_t layer, std::uint64_t page, std::uint8_t* target);

  const std::span<const Layer> layers_;
  const BlockLayout& layout_;
  const std::atomic<bool>& cancelled_;
  // The block in hand, and the last ones that same pages were in: more of them where reading one
  // again takes long.
  std::vector<Parsed> slots_;
  std::size_t victim_ = 0;  // the slot that is used next
  std::vector<SamePage> same_;
  FrameNote note_;

  // Pages that others are equal to tend to be few: their content, by page number.
  struct KnownPage {
    std::size_t layer = ~std::size_t{0};
    std::uint64_t page = 0;
  };
  static constexpr std::size_t kKnownPages = 64;
  KnownPage known_[kKnownPages];
  const std::unique_ptr<std::uint8_t[]> known_content_;
};

}  // namespace chkpt

// FrameCutter: cuts the bytes of a memory context into what is worth sharing and what is not.
//
// Headers of frames are bound to their checkpoint and place, so they are never equal to those of
// another one; payloads of PAGE_BLOCK frames are (docs/format.md section 4). What a payload of
// codec raw holds is cut further, into pages.
//
// Where to cut decides only what can be shared: bytes that are no frames pass uncut, and what was
// cut gives the same bytes again when it is put together.
//
// Ownership: cuts point into what was pushed, and into frames that Push had to keep because they
// came in pieces; those live until Forget.
#pragma once

#include <cstdint>
#include <list>
#include <optional>
#include <span>
#include <vector>

namespace chkpt {

struct Cut {
  std::span<const std::uint8_t> bytes;
  bool is_object = false;
};

class FrameCutter {
 public:
  // The next bytes. Those of a frame that is not whole yet are kept for the next call.
  void Push(std::span<const std::uint8_t> bytes, std::vector<Cut>* cuts);
  // The end of the context: what was kept comes out, and the next one begins.
  void Finish(std::vector<Cut>* cuts);
  // What was pushed until now has been written.
  void Forget() { whole_.clear(); }

 private:
  std::size_t Complete(std::span<const std::uint8_t> bytes, std::vector<Cut>* cuts);
  const std::vector<std::uint8_t>& Keep();

  bool is_opaque_ = false;           // these are no frames
  std::vector<std::uint8_t> begun_;  // of a frame that is not whole yet
  std::list<std::vector<std::uint8_t>> whole_;
};

}  // namespace chkpt

// StampPages: what a stamped page looks like, for the writer of stamps and for their check.
//
// Words of 8 bytes: 0 magic, 1 page number, 2 counter, 511 checksum of the words that change; seven
// words spread over the page are derived from page number and counter. All others are a body that
// depends on the page number only, of the kinds of guest-like memory, so that saves of stamped
// pages compress and deltas of re-sent ones are small.
//
// Thread safety: immutable after construction.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/synthetic/page_buffer.h"

namespace chkpt {

enum class StampState : std::uint8_t {
  kNone,     // no magic: not a stamped page
  kValid,    //
  kDamaged,  // the magic, but a wrong page number, word or checksum
};

class StampPages {
 public:
  // Made at the first call and kept for the life of the process: it is the same for everyone.
  static const StampPages& Get();

  StampPages(const StampPages&) = delete;
  StampPages& operator=(const StampPages&) = delete;

  // Stamps `page` at `target` with 64-bit relaxed atomic stores. A page that is stamped with its
  // own number already gets the words that change, as a guest changes a few words of a page; any
  // other gets its whole body. REQUIRES: kPageWords words, aligned to 8 bytes; no other thread
  // stamps this page.
  void Write(std::uint64_t page, std::uint64_t counter, std::uint64_t* target) const;

  // `counter` gets the counter of a valid page. REQUIRES: kPageWords words nobody writes to.
  StampState Check(std::uint64_t page, const std::uint64_t* words, std::uint64_t* counter) const;

 private:
  StampPages();

  static constexpr std::uint64_t kBodyCount = 256;  // bodies; page numbers that far apart share one
  using Body = std::array<std::uint64_t, kPageWords>;

  const Body& BodyOf(std::uint64_t page) const { return bodies_[page % kBodyCount]; }

  std::vector<Body> bodies_;
};

}  // namespace chkpt

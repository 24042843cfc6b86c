// What became of the pages of a guest memory, the same words for a save and a load.
#pragma once

#include <cstdint>

namespace chkpt {

struct PageTotals {
  std::uint64_t pages = 0;
  std::uint64_t zero_pages = 0;
  std::uint64_t fill_pages = 0;
  std::uint64_t stored_pages = 0;
  std::uint64_t same_pages = 0;
  std::uint64_t parent_pages = 0;   // left to the parent
  std::uint64_t encoded_bytes = 0;  // of the stored pages

  void Add(const PageTotals& other) {
    pages += other.pages;
    zero_pages += other.zero_pages;
    fill_pages += other.fill_pages;
    stored_pages += other.stored_pages;
    same_pages += other.same_pages;
    parent_pages += other.parent_pages;
    encoded_bytes += other.encoded_bytes;
  }
};

}  // namespace chkpt

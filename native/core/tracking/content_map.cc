#include "core/tracking/content_map.h"

#include <algorithm>
#include <bit>

#include "core/base/check.h"

namespace chkpt {
namespace {

// Calls `visit(word index, bits of the run in it)` until it gives false; false then.
template <typename Visit>
bool ForEachWord(PageRun run, Visit visit) {
  for (std::uint64_t page = run.first; page < run.end();) {
    const std::uint64_t count = std::min<std::uint64_t>(run.end() - page, 64 - page % 64);
    const std::uint64_t ones = ~std::uint64_t{0} >> (64 - count);
    if (!visit(static_cast<std::size_t>(page / 64), ones << page % 64)) return false;
    page += count;
  }
  return true;
}

}  // namespace

void ContentMap::Set(PageRun run) {
  CHKPT_DCHECK(run.end() <= page_count_);
  ForEachWord(run, [this](std::size_t index, std::uint64_t bits) {
    words_[index] |= bits;
    return true;
  });
}

void ContentMap::TakeOut(PageRun run, std::vector<PageRun>* taken) {
  CHKPT_DCHECK(run.end() <= page_count_);
  ForEachWord(run, [this, taken](std::size_t index, std::uint64_t bits) {
    std::uint64_t found = words_[index] & bits;
    words_[index] &= ~bits;
    while (found != 0) {
      const int first = std::countr_zero(found);
      const int count = std::countr_one(found >> first);
      const std::uint64_t page = index * 64 + static_cast<std::uint64_t>(first);
      if (!taken->empty() && taken->back().end() == page) {
        taken->back().count += static_cast<std::uint64_t>(count);
      } else {
        taken->push_back({page, static_cast<std::uint64_t>(count)});
      }
      found = first + count == 64 ? 0 : found >> (first + count) << (first + count);
    }
    return true;
  });
}

bool ContentMap::HasAll(PageRun run) const {
  return ForEachWord(run, [this](std::size_t index, std::uint64_t bits) {
    return (words_[index] & bits) == bits;
  });
}

}  // namespace chkpt

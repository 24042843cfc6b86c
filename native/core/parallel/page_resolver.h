// PageResolver: fills pages that a load of a chain has put off, while their member is read a second
// time (see ChainLoad).
//
// Thread safety: immutable; Fill from any thread, for different blocks.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "core/base/units.h"
#include "core/parallel/chain_load.h"

namespace chkpt {

class PageResolver {
 public:
  explicit PageResolver(std::vector<DeferredPage> pages) : pages_(std::move(pages)) {
    std::ranges::sort(pages_, {}, &DeferredPage::source);
  }

  bool empty() const { return pages_.empty(); }

  // What waits for the content of pages in `run`, ascending by source.
  std::span<const DeferredPage> Waiting(PageRun run) const {
    const auto begin = std::ranges::lower_bound(pages_, run.first, {}, &DeferredPage::source);
    const auto end =
        std::ranges::lower_bound(begin, pages_.end(), run.end(), {}, &DeferredPage::source);
    return {begin, end};
  }

 private:
  std::vector<DeferredPage> pages_;
};

}  // namespace chkpt

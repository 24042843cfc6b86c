// ChainLoad: what the load of a chain of checkpoints, newest first, knows from one member to the
// next. Each page is filled by the newest member that has it; members after that one are checked
// and leave the page alone.
//
// A page that equals an earlier one of its checkpoint needs that one's content in this checkpoint.
// Where a newer member has replaced it, memory does not hold it: such pages are put off
// (TakeDeferred) and filled when the member is read once more, with a PageResolver.
//
// Thread safety: everything but Advance and TakeDeferred from any thread; those two when no
// pipeline runs.
#pragma once

#include <cstdint>
#include <mutex>
#include <optional>
#include <unordered_map>
#include <utility>
#include <vector>

#include "core/base/units.h"
#include "core/bitmap/page_mask.h"

namespace chkpt {

// `page` has the content that `source` has in the checkpoint that put it off.
struct DeferredPage {
  std::uint64_t source = 0;
  std::uint64_t page = 0;
};

class ChainLoad {
 public:
  explicit ChainLoad(std::uint64_t page_count)
      : page_count_(page_count), newer_(page_count), own_(page_count) {}

  std::uint64_t page_count() const { return page_count_; }

  // A newer member has filled it.
  bool IsNewer(std::uint64_t page) const { return any_newer_ && newer_.Has(page); }
  // Pages that no member fills. REQUIRES: no member was loaded.
  void LeaveAlone(PageRun run) {
    for (std::uint64_t page = run.first; page < run.end(); ++page) newer_.Set(page);
    any_newer_ = true;
  }
  // This member has it. Of a member with a parent only.
  bool IsOwn(std::uint64_t page) const { return own_.Has(page); }
  void SetOwn(std::uint64_t page) { own_.Set(page); }

  // This member says that `page`, which a newer one has filled, equals `source`.
  void NoteAlias(std::uint64_t page, std::uint64_t source) {
    const std::lock_guard lock(mutex_);
    aliases_.emplace(page, source);
  }
  // The page that holds in memory what `page` has in this member, or is no longer one that merely
  // equals another. REQUIRES: `page` and all before it are done.
  std::uint64_t RootOf(std::uint64_t page) const {
    if (!any_newer_) return page;
    const std::lock_guard lock(mutex_);
    for (auto found = aliases_.find(page); found != aliases_.end() && newer_.Has(page);
         found = aliases_.find(page)) {
      page = found->second;  // smaller each time
    }
    return page;
  }
  void Defer(DeferredPage page) {
    const std::lock_guard lock(mutex_);
    deferred_.push_back(page);
  }

  std::vector<DeferredPage> TakeDeferred() { return std::exchange(deferred_, {}); }

  // The member is complete; the next one is its parent.
  void Advance() {
    newer_.Absorb(own_);
    any_newer_ = true;
    aliases_.clear();
  }

  // By region, before the first member was loaded. Empty: not known yet.
  std::vector<bool> fresh;

 private:
  const std::uint64_t page_count_;
  PageMask newer_;
  PageMask own_;
  bool any_newer_ = false;
  mutable std::mutex mutex_;
  std::unordered_map<std::uint64_t, std::uint64_t> aliases_;
  std::vector<DeferredPage> deferred_;
};

}  // namespace chkpt

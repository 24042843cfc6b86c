// DigestTracker: keeps a 128-bit digest of every page and compares. Works for any memory that can
// be read, sees a change whoever made it, and costs a read of all that is present.
//
// Its digests are PageDigests, keyed for each tracker: a change is missed with a probability of
// 2^-128 a page. XXH3 is no message authentication code: nothing is claimed against a guest that
// learns digests, which nobody gives it.
//
// What it compares is two moments. A page that is changed, copied by the caller and changed back
// between two harvests is not told: for sets that are saved while the guest runs, take another one.
//
// Ownership: owns its digests, 16 bytes for each page that ever had content. Thread safety: as
// DirtyTracker.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "core/scan/page_digests.h"
#include "core/tracking/dirty_tracker.h"

namespace chkpt {

class DigestTracker final : public DirtyTracker {
 public:
  // `threads` read at the same time. REQUIRES: threads > 0.
  // Errors: kNoMemory, kUnsupported (memory that is only described).
  static Result<std::unique_ptr<DirtyTracker>> Open(std::shared_ptr<GuestMemory> memory,
                                                    unsigned threads);

  TrackerKind kind() const override { return TrackerKind::kDigest; }

 private:
  DigestTracker(std::shared_ptr<GuestMemory> memory, unsigned threads,
                std::shared_ptr<PageDigests> digests);
  // It looks when it is asked, and hears of no write.
  std::optional<double> MeasureFirstWrite() override { return 0; }
  Status Reset(const Cancelled& cancelled) override;
  Status Collect(DirtyBitmap* found, const Cancelled& cancelled) override;
  // `bytes` is null where nothing is present. `found` is null while arming.
  void Compare(PageRun pages, const std::vector<PageRun>& present, const std::uint8_t* bytes,
               std::uint64_t chunk, DirtyBitmap* found);
  Status Pass(DirtyBitmap* found, const Cancelled& cancelled);

  const unsigned threads_;
  // A page of zeros is unknown there, so that untouched pages need neither a look nor memory.
  const std::shared_ptr<PageDigests> digests_;
  // By chunk: some page of it is known; it was looked at in this pass.
  std::vector<std::uint8_t> used_;
  std::vector<std::uint8_t> seen_;
};

}  // namespace chkpt

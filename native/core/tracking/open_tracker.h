// Opens a tracker by kind. Those of KVM are made by its machines.
#pragma once

#include <memory>

#include "core/tracking/dirty_tracker.h"

namespace chkpt {

struct TrackerOptions {
  unsigned threads = 1;  // kDigest; > 0
  int process = 0;       // kSoftDirty: who writes to the files of the memory; 0: this process
};

// Errors: kUnsupported, kPermission and others of the class, each with the reason.
Result<std::unique_ptr<DirtyTracker>> OpenTracker(TrackerKind kind,
                                                  std::shared_ptr<GuestMemory> memory,
                                                  const TrackerOptions& options);

}  // namespace chkpt

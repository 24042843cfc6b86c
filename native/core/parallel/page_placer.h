// PagePlacer: where a load puts pages when it may not write to memory itself, because the guest
// runs: each page appears whole, or not at all.
#pragma once

#include <cstdint>

#include "core/base/result.h"
#include "core/base/units.h"

namespace chkpt {

class PagePlacer {
 public:
  virtual ~PagePlacer() = default;
  // Pages of one region from `bytes`, or zeros. Any thread. Errors: kNoMemory, kIo.
  virtual Status Place(PageRun run, const std::uint8_t* bytes) = 0;
  virtual Status PlaceZero(PageRun run) = 0;
};

}  // namespace chkpt

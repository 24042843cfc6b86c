// Where the bytes of a context that shares packs are: its map (pool_writer.h) as extents.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/base/result.h"
#include "core/lazy/block_source.h"

namespace chkpt {

struct PooledContext {
  struct File {
    int fd = -1;
    std::uint64_t bytes = 0;
  };
  std::uint64_t bytes = 0;  // of the context
  File own;
  std::span<const File> packs;
  std::span<const std::uint8_t> map;
};

// Appends the extents of `context`, in order. The map is untrusted. Error: kFormat (it names a pack
// or a place that is not there, or does not make the bytes of the context).
Status AppendExtents(const PooledContext& context, std::vector<ExtentSource::Extent>* extents);

}  // namespace chkpt

#include "core/pool/pool_runs.h"

#include "core/base/bytes.h"
#include "core/pool/pool_writer.h"

namespace chkpt {
namespace {

Error BadMap() { return {.code = ErrorCode::kFormat, .message = "the map of a context is wrong"}; }

}  // namespace

Status AppendExtents(const PooledContext& context, std::vector<ExtentSource::Extent>* extents) {
  if (context.map.size() % kPoolRunBytes != 0 || context.own.bytes > context.bytes) return BadMap();
  std::uint64_t own_at = 0;
  std::uint64_t pooled = 0;
  const auto add_own = [&](std::uint64_t bytes) {
    if (bytes != 0) extents->push_back({.bytes = bytes, .fd = context.own.fd, .fd_offset = own_at});
    own_at += bytes;
  };
  for (std::size_t at = 0; at < context.map.size(); at += kPoolRunBytes) {
    const std::uint8_t* run = context.map.data() + at;
    const auto own_bytes = chkpt::Load<std::uint64_t>(run);
    const auto offset = chkpt::Load<std::uint64_t>(run + 8);
    const auto number = chkpt::Load<std::uint32_t>(run + 16);
    const auto bytes = chkpt::Load<std::uint32_t>(run + 20);
    if (own_bytes > context.own.bytes - own_at || number >= context.packs.size()) return BadMap();
    const PooledContext::File& pack = context.packs[number];
    if (bytes == 0 || offset > pack.bytes || bytes > pack.bytes - offset) return BadMap();
    add_own(own_bytes);
    extents->push_back({.bytes = bytes, .fd = pack.fd, .fd_offset = offset});
    pooled += bytes;
  }
  add_own(context.own.bytes - own_at);
  if (pooled != context.bytes - context.own.bytes) return BadMap();
  return Ok();
}

}  // namespace chkpt

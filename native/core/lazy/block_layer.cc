#include "core/lazy/block_layer.h"

#include <utility>

namespace chkpt {

Result<std::shared_ptr<const BlockLayer>> BlockLayer::Open(LazyLayer layer,
                                                           const GuestMemory& memory) {
  BlockLayout layout(memory.regions());
  const FrameReader reader(*layer.source, layer.uuid, layer.epoch);
  auto map = BlockMap::Read(reader, layout, memory.regions(), layer.groups, layer.end_offset);
  if (!map.ok()) return map.error();
  return std::shared_ptr<const BlockLayer>(
      new BlockLayer(std::move(layer), std::move(layout), memory.page_count(),
                     std::make_shared<const BlockMap>(std::move(map.value()))));
}

BlockLayer::BlockLayer(LazyLayer layer, BlockLayout layout, std::uint64_t page_count,
                       std::shared_ptr<const BlockMap> map)
    : source_(std::move(layer.source)),
      layout_(std::move(layout)),
      page_count_(page_count),
      layer_{FrameReader(*source_, layer.uuid, layer.epoch), std::move(map), layer.has_parent,
             std::make_shared<DirtyBitmap>(layout_.block_count())} {}

void BlockLayer::MarkHeld(DirtyBitmap* pages) const {
  for (std::uint64_t block = 0; block < layout_.block_count(); ++block) {
    if (layer_.map->Find(block)) pages->MarkRun(layout_.PagesOf(block));
  }
}

}  // namespace chkpt

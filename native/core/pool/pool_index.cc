#include "core/pool/pool_index.h"

#include <sys/random.h>

#include <utility>

namespace chkpt {
namespace {

std::uint64_t RandomSalt() {
  std::uint64_t salt = 0;
  // Without randomness searches are merely predictable.
  if (::getrandom(&salt, sizeof salt, GRND_NONBLOCK) < 0) salt = 0;
  return salt;
}

}  // namespace

PoolIndex::PoolIndex() : salt_(RandomSalt()), slots_(kSlotsMin, kNone) {}

const PoolIndex::Place* PoolIndex::Find(const ObjectDigest& digest, std::size_t bytes) const {
  const std::uint32_t index = slots_[SlotOf(digest)];
  if (index == kNone || entries_[index].place.bytes != bytes) return nullptr;
  return &entries_[index].place;
}

void PoolIndex::Put(const ObjectDigest& digest, const Place& place) {
  std::size_t slot = SlotOf(digest);
  if (slots_[slot] != kNone) {
    entries_[slots_[slot]].place = place;
    return;
  }
  if (entries_.size() == kObjectsMax) return;
  if (2 * (entries_.size() + 1) > slots_.size()) {
    Grow();
    slot = SlotOf(digest);
  }
  slots_[slot] = static_cast<std::uint32_t>(entries_.size());
  entries_.push_back({.digest = digest, .place = place});
}

std::size_t PoolIndex::SlotOf(const ObjectDigest& digest) const {
  const std::size_t mask = slots_.size() - 1;
  std::uint64_t mixed = (digest.low ^ salt_) * 0x9e3779b97f4a7c15;
  mixed = ((mixed ^ (mixed >> 32)) ^ digest.high) * 0xd6e8feb86659fd93;
  std::size_t slot = static_cast<std::size_t>(mixed ^ (mixed >> 32)) & mask;
  while (slots_[slot] != kNone && entries_[slots_[slot]].digest != digest) slot = (slot + 1) & mask;
  return slot;
}

void PoolIndex::Grow() {
  slots_.assign(2 * slots_.size(), kNone);
  for (std::size_t i = 0; i < entries_.size(); ++i) {
    slots_[SlotOf(entries_[i].digest)] = static_cast<std::uint32_t>(i);
  }
}

}  // namespace chkpt

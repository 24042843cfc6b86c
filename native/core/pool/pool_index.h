// PoolIndex: finds objects of packs by their digest.
//
// Takes about 48 bytes an object, and at most kObjectsMax of them: what does not fit is not found,
// and stored again.
//
// Slots are salted: a guest that prepares content cannot make searches long.
//
// Thread safety: none.
#pragma once

#include <cstdint>
#include <vector>

#include "core/pool/pack_file.h"

namespace chkpt {

class PoolIndex {
 public:
  static constexpr std::size_t kObjectsMax = std::size_t{4} << 20;

  struct Place {
    std::uint32_t pack = 0;  // a number of the caller
    std::uint32_t bytes = 0;
    std::uint64_t offset = 0;
  };

  PoolIndex();

  std::size_t size() const { return entries_.size(); }
  // Valid until the next Put. Null: not known, or of another length.
  const Place* Find(const ObjectDigest& digest, std::size_t bytes) const;
  // Takes the place of what was known under the digest. Does nothing new when it is full.
  void Put(const ObjectDigest& digest, const Place& place);

 private:
  struct Entry {
    ObjectDigest digest;
    Place place;
  };
  static constexpr std::uint32_t kNone = ~std::uint32_t{0};
  static constexpr std::size_t kSlotsMin = 1024;

  // The slot that has the digest, or is free for it.
  std::size_t SlotOf(const ObjectDigest& digest) const;
  void Grow();

  const std::uint64_t salt_;
  std::vector<Entry> entries_;
  std::vector<std::uint32_t> slots_;  // a power of two, at most half full
};

}  // namespace chkpt

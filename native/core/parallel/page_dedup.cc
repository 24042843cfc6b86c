#include "core/parallel/page_dedup.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <utility>

#include "core/base/bytes.h"
#include "core/base/units.h"
#include "core/base/xxh3.h"

namespace chkpt {

Result<std::unique_ptr<PageDedup>> PageDedup::Create(std::shared_ptr<BufferPool> buffers,
                                                     std::uint64_t page_count,
                                                     std::span<const std::uint8_t, 16> uuid) {
  const std::uint64_t wanted = std::min<std::uint64_t>(page_count + page_count / 4, kEntriesMax);
  const std::size_t sets = std::bit_ceil(static_cast<std::size_t>(wanted) / kWays + 1);
  const std::size_t bounded = std::min(sets, kEntriesMax / kWays);
  // Entries are spread at random: in 4 KiB pages every look would miss the TLB.
  auto table = PooledBuffer::Take(std::move(buffers), bounded * kWays * sizeof(Entry), true);
  if (!table.ok()) return table.error();
  return std::unique_ptr<PageDedup>(new PageDedup(std::move(table.value()), bounded, uuid));
}

PageDedup::PageDedup(PooledBuffer table, std::size_t sets, std::span<const std::uint8_t, 16> uuid)
    : table_(std::move(table)),
      set_mask_(sets - 1),
      entries_(reinterpret_cast<Entry*>(table_.data())) {
  std::array<std::uint8_t, 24> seed{};
  std::copy(uuid.begin(), uuid.end(), seed.begin());
  for (std::size_t i = 0; i < kSecretBytes; i += 16) {
    Store<std::uint64_t>(seed.data() + 16, i);
    const XXH128_hash_t word = XXH3_128bits(seed.data(), seed.size());
    Store<std::uint64_t>(secret_.data() + i, word.low64);
    Store<std::uint64_t>(secret_.data() + i + 8, word.high64);
  }
}

void PageDedup::Clear() {
  if (table_.used_before()) std::memset(table_.data(), 0, table_.bytes());
}

PageDigest PageDedup::Digest(const std::uint8_t* page) const {
  const XXH128_hash_t hash =
      XXH3_128bits_withSecret(page, kPageBytes, secret_.data(), kSecretBytes);
  return {hash.low64, hash.high64};
}

std::uint64_t PageDedup::FindOrInsert(const PageDigest& digest, std::uint64_t page) {
  Entry* set = SetOf(digest);
  for (std::size_t way = 0; way < kWays && set[way].page_plus_one != 0; ++way) {
    if (set[way].low == digest.low && set[way].high == digest.high) {
      return set[way].page_plus_one - 1;
    }
  }
  // The last page of the largest memory has no number here: no later one can equal it.
  if (page >= std::numeric_limits<std::uint32_t>::max()) return kUnknown;
  // Newest first: the last way holds the oldest entry and falls out.
  for (std::size_t way = kWays - 1; way > 0; --way) set[way] = set[way - 1];
  set[0] = {digest.low, digest.high, static_cast<std::uint32_t>(page + 1)};
  return kUnknown;
}

}  // namespace chkpt

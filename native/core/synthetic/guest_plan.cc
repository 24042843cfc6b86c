#include "core/synthetic/guest_plan.h"

#include <algorithm>
#include <array>
#include <utility>

#include "core/base/check.h"

namespace chkpt {
namespace {

constexpr std::uint64_t kSharesWhole = 1000;
// Of the zero pages, one in this many lies alone between others.
constexpr std::size_t kLoneZeroShare = 256;
// How far back, in pages, a near duplicate outside its block looks for its source.
constexpr std::size_t kNearReach = 512;
// Extents are 1 to twice this many blocks long.
constexpr std::size_t kExtentBlocksMean = 6;
constexpr std::size_t kZeroExtentBlocksMean = 24;

struct Extent {
  PageKind kind;
  std::size_t block_count;
};

std::size_t PagesOfShare(std::uint32_t share) {
  return static_cast<std::size_t>(share * GuestPlan::kPageCount / kSharesWhole);
}

// Cuts `block_count` blocks of one kind into extents.
void AddExtents(PageKind kind, std::size_t block_count, PageRandom* random,
                std::vector<Extent>* extents) {
  const std::size_t mean = kind == PageKind::kZero ? kZeroExtentBlocksMean : kExtentBlocksMean;
  while (block_count != 0) {
    const std::size_t blocks = std::min<std::size_t>(block_count, 1 + random->Below(2 * mean));
    extents->push_back({kind, blocks});
    block_count -= blocks;
  }
}

}  // namespace

GuestPlan::GuestPlan(std::uint64_t seed, const GuestLikeMix& mix, std::uint64_t group)
    : kinds_(kPageCount), extents_(kPageCount), sources_(kPageCount) {
  PageRandom random(MixWords(seed, group));
  const Strewn strewn = LayExtents(mix, &random);
  Strew(strewn, &random);
}

GuestPlan::Strewn GuestPlan::LayExtents(const GuestLikeMix& mix, PageRandom* random) {
  const std::uint64_t named =
      std::uint64_t{mix.zero} + mix.fill + mix.duplicate + mix.random + mix.code + mix.pointer;
  CHKPT_CHECK(named <= kSharesWhole);
  const auto text = static_cast<std::uint32_t>(kSharesWhole - named);

  // Zeros and far duplicates take whole blocks; what is left of their shares is strewn.
  const std::size_t zero_pages = PagesOfShare(mix.zero);
  const std::size_t zero_blocks = (zero_pages - zero_pages / kLoneZeroShare) / kBlockPages;
  const std::size_t duplicate_pages = PagesOfShare(mix.duplicate);
  const std::size_t duplicate_blocks = duplicate_pages / 2 / kBlockPages;
  Strewn strewn;
  strewn.zero = zero_pages - zero_blocks * kBlockPages;
  strewn.fill = PagesOfShare(mix.fill);
  strewn.duplicate = duplicate_pages - duplicate_blocks * kBlockPages;

  std::vector<Extent> extents;
  AddExtents(PageKind::kZero, zero_blocks, random, &extents);
  AddExtents(PageKind::kFarDuplicate, duplicate_blocks, random, &extents);

  // The distinct kinds share the other blocks; cumulative rounding leaves no block over.
  const std::pair<PageKind, std::uint32_t> distinct[] = {{PageKind::kRandom, mix.random},
                                                         {PageKind::kCode, mix.code},
                                                         {PageKind::kObjects, mix.pointer},
                                                         {PageKind::kText, text}};
  std::uint64_t distinct_total = 0;
  for (const auto& [kind, share] : distinct) distinct_total += share;
  const std::size_t distinct_blocks = kBlockCount - zero_blocks - duplicate_blocks;
  std::uint64_t cumulative = 0;
  std::size_t taken = 0;
  for (const auto& [kind, share] : distinct) {
    cumulative += share;
    const std::size_t limit =
        distinct_total == 0 ? 0 : distinct_blocks * cumulative / distinct_total;
    AddExtents(kind, limit - taken, random, &extents);
    taken = limit;
  }
  if (distinct_total == 0) {
    AddExtents(mix.fill != 0 ? PageKind::kFill : PageKind::kZero, distinct_blocks, random,
               &extents);
  }

  for (std::size_t i = extents.size(); i > 1; --i) {
    std::swap(extents[i - 1], extents[random->Below(i)]);
  }
  std::size_t page = 0;
  for (const Extent& extent : extents) {
    const std::size_t count = extent.block_count * kBlockPages;
    std::fill_n(kinds_.begin() + static_cast<std::ptrdiff_t>(page), count, extent.kind);
    std::fill_n(extents_.begin() + static_cast<std::ptrdiff_t>(page), count,
                static_cast<std::uint16_t>(page));
    page += count;
  }
  return strewn;
}

void GuestPlan::Strew(Strewn strewn, PageRandom* random) {
  // Selection sampling: ascending, and exact when every candidate can take what it is given.
  auto candidates =
      static_cast<std::size_t>(std::count_if(kinds_.begin(), kinds_.end(), IsDistinct));
  for (std::size_t page = 0; page < kPageCount && candidates != 0; ++page) {
    if (!IsDistinct(kinds_[page])) continue;
    const std::uint64_t draw = random->Below(candidates--);
    if (draw < strewn.zero) {
      kinds_[page] = PageKind::kZero;
      --strewn.zero;
    } else if (draw < strewn.zero + strewn.fill) {
      kinds_[page] = PageKind::kFill;
      --strewn.fill;
    } else if (draw < strewn.zero + strewn.fill + strewn.duplicate) {
      const bool same_block = strewn.duplicate % 2 == 0;
      if (MakeDuplicate(page, same_block, random)) --strewn.duplicate;
    }
  }
}

bool GuestPlan::MakeDuplicate(std::size_t page, bool same_block, PageRandom* random) {
  const std::size_t reach = std::min(page, same_block ? page % kBlockPages : kNearReach);
  if (reach == 0) return false;
  const std::size_t first = page - 1 - random->Below(reach);
  for (std::size_t source = first; source + reach >= page; --source) {
    if (IsDistinct(kinds_[source])) {
      kinds_[page] = PageKind::kNearDuplicate;
      sources_[page] = static_cast<std::uint16_t>(source);
      return true;
    }
    if (source == 0) break;
  }
  return false;
}

std::size_t GuestPlan::NextDistinct(std::size_t page) const {
  for (std::size_t step = 0; step < kPageCount; ++step) {
    const std::size_t candidate = (page + step) % kPageCount;
    if (IsDistinct(kinds_[candidate])) return candidate;
  }
  return kPageCount;
}

}  // namespace chkpt

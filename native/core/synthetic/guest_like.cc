#include "core/synthetic/guest_like.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "core/synthetic/guest_plan.h"
#include "core/synthetic/page_buffer.h"
#include "core/synthetic/page_code.h"
#include "core/synthetic/page_objects.h"
#include "core/synthetic/page_text.h"

namespace chkpt {
namespace {

// Salts, so that the seeds of extents, pages and plans of one number differ.
constexpr std::uint64_t kPlanSalt = 0x706c616e;
constexpr std::uint64_t kExtentSalt = 0x657874656e74;
constexpr std::uint64_t kPageSalt = 0x70616765;
constexpr std::uint64_t kDonorSalt = 0x646f6e6f72;

// Far duplicates of one group come from this many earlier groups: each costs a plan.
constexpr std::size_t kDonorCount = 2;
// One page of text, code or random data in this many is the last of a file: zeros follow the
// content.
constexpr std::uint64_t kFileTailShare = 12;
constexpr std::size_t kFileTailBytesMin = 256;

constexpr std::uint64_t kFillWords[8] = {
    0xffffffffffffffffu, 0xffffffffffffffffu, 0xffffffffffffffffu, 0xccccccccccccccccu,
    0x2020202020202020u, 0x0101010101010101u, 0x6b6b6b6b6b6b6b6bu, 0x0000000100000001u};

// Writes one page's content into a buffer. Immutable; shared by all workers.
class PageWriter {
 public:
  explicit PageWriter(std::uint64_t seed) : seed_(seed) {}

  // `page` and `extent` are numbers within the whole memory. REQUIRES: kPageBufferBytes at
  // `target`.
  void WriteDistinct(PageKind kind, std::uint64_t page, std::uint64_t extent,
                     std::uint8_t* target) const {
    const PageSeeds seeds{MixWords(seed_ ^ kExtentSalt, extent), MixWords(seed_ ^ kPageSalt, page)};
    switch (kind) {
      case PageKind::kCode: code_.WritePage(seeds, target); break;
      case PageKind::kObjects: WriteObjectPage(seeds, target); return;
      case PageKind::kRandom: WriteRandom(seeds.page, target); break;
      default: text_.WritePage(seeds, target); break;
    }
    const std::uint64_t bits = MixWords(seeds.page, kFileTailShare);
    if (bits % kFileTailShare == 0) {
      const std::size_t content =
          kFileTailBytesMin + (bits >> 32) % (kPageBytes - kFileTailBytesMin);
      std::memset(target + content, 0, kPageBytes - content);
    }
  }

  void WriteFill(std::uint64_t page, std::uint8_t* target) const {
    const std::uint64_t word = kFillWords[MixWords(seed_ ^ kPageSalt, page) & 7];
    for (std::size_t offset = 0; offset < kPageBytes; offset += sizeof(word)) {
      std::memcpy(target + offset, &word, sizeof(word));
    }
  }

 private:
  static void WriteRandom(std::uint64_t page_seed, std::uint8_t* target) {
    PageRandom random(page_seed);
    for (std::size_t offset = 0; offset < kPageBytes; offset += sizeof(std::uint64_t)) {
      const std::uint64_t word = random.Next();
      std::memcpy(target + offset, &word, sizeof(word));
    }
  }

  const std::uint64_t seed_;
  const TextWriter text_;
  const CodeWriter code_;
};

// The content of one group: its plan and those of the groups that its far duplicates copy from.
class GroupContent {
 public:
  GroupContent(const PageWriter& writer, std::uint64_t seed, const GuestLikeMix& mix,
               std::uint64_t group)
      : writer_(writer), seed_(seed), group_(group), plan_(seed ^ kPlanSalt, mix, group) {
    for (std::size_t i = 0; i < kDonorCount && group != 0 && mix.duplicate != 0; ++i) {
      const std::uint64_t donor = MixWords(seed ^ kDonorSalt, group * kDonorCount + i) % group;
      donors_[i].emplace(Donor{donor, GuestPlan(seed ^ kPlanSalt, mix, donor)});
    }
  }

  bool IsZero(std::size_t page) const { return plan_.kind(page) == PageKind::kZero; }

  // `page` is a number within the group. REQUIRES: not zero; kPageBufferBytes at `target`.
  void Write(std::size_t page, std::uint8_t* target) const {
    switch (plan_.kind(page)) {
      case PageKind::kFill: writer_.WriteFill(PageOfGroup(group_, page), target); return;
      case PageKind::kNearDuplicate: WriteFrom(plan_, group_, plan_.source(page), target); return;
      case PageKind::kFarDuplicate: WriteFarDuplicate(page, target); return;
      default: WriteFrom(plan_, group_, page, target); return;
    }
  }

 private:
  struct Donor {
    std::uint64_t group;
    GuestPlan plan;
  };

  static std::uint64_t PageOfGroup(std::uint64_t group, std::size_t page) {
    return group * GuestPlan::kPageCount + page;
  }

  void WriteFrom(const GuestPlan& plan, std::uint64_t group, std::size_t page,
                 std::uint8_t* target) const {
    writer_.WriteDistinct(plan.kind(page), PageOfGroup(group, page),
                          PageOfGroup(group, plan.extent(page)), target);
  }

  // An extent of far duplicates copies a run of pages, as a copied file does.
  void WriteFarDuplicate(std::size_t page, std::uint8_t* target) const {
    const std::size_t extent = plan_.extent(page);
    const std::uint64_t bits = MixWords(seed_ ^ kDonorSalt, PageOfGroup(group_, extent));
    const std::optional<Donor>& donor = donors_[bits % kDonorCount];
    const std::size_t start = (bits >> 32) % GuestPlan::kPageCount;
    const std::size_t within = page - extent;
    if (donor) {
      const std::size_t source = donor->plan.NextDistinct((start + within) % GuestPlan::kPageCount);
      if (source < GuestPlan::kPageCount)
        return WriteFrom(donor->plan, donor->group, source, target);
    } else {
      // The first group has no earlier one: from before the extent, if anything is there.
      const std::size_t source = plan_.NextDistinct(extent == 0 ? 0 : (start + within) % extent);
      if (source < page) return WriteFrom(plan_, group_, source, target);
    }
    writer_.WriteDistinct(PageKind::kText, PageOfGroup(group_, page), PageOfGroup(group_, extent),
                          target);
  }

  const PageWriter& writer_;
  const std::uint64_t seed_;
  const std::uint64_t group_;
  const GuestPlan plan_;
  std::array<std::optional<Donor>, kDonorCount> donors_;
};

// Fills groups until there are none left or one failed. What the workers of one call share.
class Filler {
 public:
  Filler(GuestMemory& memory, std::uint64_t seed, const GuestLikeMix& mix)
      : memory_(memory), seed_(seed), mix_(mix), writer_(seed) {}

  void Run() {
    const std::uint64_t group_count =
        (memory_.page_count() + GuestPlan::kPageCount - 1) / GuestPlan::kPageCount;
    while (!failed_.load(std::memory_order_relaxed)) {
      const std::uint64_t group = next_group_.fetch_add(1, std::memory_order_relaxed);
      if (group >= group_count) return;
      Status done = FillGroup(group);
      if (!done.ok()) Fail(std::move(done));
    }
  }

  Status TakeStatus() { return std::move(status_); }

 private:
  // The pages of a group may lie in several regions.
  Status FillGroup(std::uint64_t group) {
    const GroupContent content(writer_, seed_, mix_, group);
    const std::uint64_t first = group * GuestPlan::kPageCount;
    const std::uint64_t end = std::min(first + GuestPlan::kPageCount, memory_.page_count());
    for (std::uint64_t page = first; page < end;) {
      const Region& region = memory_.regions()[memory_.RegionOfPage(page)];
      const std::uint64_t part_end = std::min(end, region.pages().end());
      if (region.host != nullptr) {
        Status done = FillPart(content, region, first, {page, part_end - page});
        if (!done.ok()) return done;
      }
      page = part_end;
    }
    return Ok();
  }

  Status FillPart(const GroupContent& content, const Region& region, std::uint64_t group_first,
                  PageRun part) {
    alignas(64) std::uint8_t buffer[kPageBufferBytes];
    for (std::uint64_t page = part.first; page < part.end();) {
      std::uint64_t zero_end = page;
      while (zero_end < part.end() && content.IsZero(zero_end - group_first)) ++zero_end;
      if (zero_end != page) {
        if (!region.fresh) {
          Status done = memory_.Zero({page, zero_end - page});
          if (!done.ok()) return done;
        }
        page = zero_end;
        continue;
      }
      content.Write(page - group_first, buffer);
      Status done = memory_.CopyIn({page, 1}, buffer);
      if (!done.ok()) return done;
      ++page;
    }
    return Ok();
  }

  void Fail(Status status) {
    const std::lock_guard lock(mutex_);
    if (status_.ok()) status_ = std::move(status);
    failed_.store(true, std::memory_order_relaxed);
  }

  GuestMemory& memory_;
  const std::uint64_t seed_;
  const GuestLikeMix mix_;
  const PageWriter writer_;
  std::atomic<std::uint64_t> next_group_{0};
  std::atomic<bool> failed_{false};
  std::mutex mutex_;
  Status status_ = Ok();
};

}  // namespace

Status FillGuestLike(GuestMemory& memory, std::uint64_t seed, const GuestLikeMix& mix,
                     unsigned threads) {
  const std::uint64_t named =
      std::uint64_t{mix.zero} + mix.fill + mix.duplicate + mix.random + mix.code + mix.pointer;
  if (named > 1000) {
    return Error{.code = ErrorCode::kFormat,
                 .message = "the shares of a guest-like mix add up to more than 1000"};
  }

  const auto filler = std::make_unique<Filler>(memory, seed, mix);
  std::vector<std::thread> workers;
  for (unsigned i = 1; i < threads; ++i) workers.emplace_back([&filler] { filler->Run(); });
  filler->Run();
  for (std::thread& worker : workers) worker.join();
  memory.MarkUsed();
  return filler->TakeStatus();
}

}  // namespace chkpt

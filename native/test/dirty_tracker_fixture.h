// Trackers of every kind on every kind of memory.
#pragma once

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "core/memory/guest_copy.h"
#include "core/tracking/digest_tracker.h"
#include "core/tracking/reported_tracker.h"
#include "core/tracking/write_protect_tracker.h"
#include "memory_fixtures.h"

namespace chkpt {

inline bool Never() { return false; }

using Tracker = std::unique_ptr<DirtyTracker>;

inline Result<Tracker> OpenTracker(TrackerKind kind, const Memory& memory, bool trust_holes) {
  switch (kind) {
    case TrackerKind::kWriteProtect: return WriteProtectTracker::Open(memory, trust_holes);
    case TrackerKind::kDigest: return DigestTracker::Open(memory, 2);
    default: return Tracker(std::make_unique<ReportedTracker>(memory));
  }
}

inline constexpr const char* kKindNames[] = {"KvmLog",    "KvmRing", "WriteProtect",
                                             "SoftDirty", "Digest",  "Reported"};

// Memory of somebody else, not aligned to huge pages.
class Borrowed {
 public:
  explicit Borrowed(std::uint64_t bytes) : bytes_(bytes + kPageBytes) {
    base_ = ::mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  }
  ~Borrowed() { ::munmap(base_, bytes_); }
  std::uint8_t* host() const { return static_cast<std::uint8_t*>(base_) + kPageBytes; }

 private:
  const std::uint64_t bytes_;
  void* base_;
};

// The last two: as on kernels that do not call holes written.
enum class Place {
  kSmallPages,
  kHugePages,
  kMemfd,
  kMapped,
  kAttached,
  kHugetlb,
  kFile,
  kOldSmall,
  kOldMemfd
};
inline constexpr const char* kPlaceNames[] = {
    "SmallPages", "HugePages",           "Memfd",         "Mapped", "Attached", "Hugetlb",
    "File",       "OldKernelSmallPages", "OldKernelMemfd"};

class DirtyTrackerTest : public testing::TestWithParam<std::tuple<TrackerKind, Place>> {
 protected:
  TrackerKind kind() const { return std::get<0>(GetParam()); }
  Place place() const {
    const Place place = std::get<1>(GetParam());
    if (place == Place::kOldSmall) return Place::kSmallPages;
    return place == Place::kOldMemfd ? Place::kMemfd : place;
  }
  bool trust_holes() const { return place() == std::get<1>(GetParam()); }

  Memory Make(const std::vector<RegionSpec>& specs) {
    const std::uint64_t bytes = specs.back().base + specs.back().bytes;
    switch (place()) {
      case Place::kSmallPages: return MustAllocate(specs, Backing::kAnonymous, false);
      case Place::kHugePages: return MustAllocate(specs, Backing::kAnonymous);
      case Place::kMemfd: return MustAllocate(specs, Backing::kMemfd);
      case Place::kHugetlb: return MustAllocate(specs, Backing::kHugetlb);
      case Place::kOldSmall:
      case Place::kOldMemfd: break;
      case Place::kMapped:
      case Place::kFile: {
        file_.emplace(bytes);
        std::vector<GuestMemory::FileSpec> files;
        for (const RegionSpec& spec : specs) files.push_back({spec, file_->fd(), spec.base, true});
        return place() == Place::kMapped ? GuestMemory::Map(files).value()
                                         : GuestMemory::OpenFiles(files, false).value();
      }
      case Place::kAttached: {
        borrowed_.emplace(bytes);
        std::vector<GuestMemory::AttachSpec> attach;
        for (const RegionSpec& spec : specs) {
          attach.push_back({spec, borrowed_->host() + spec.base, spec.bytes});
        }
        return GuestMemory::Attach(attach).value();
      }
    }
    return nullptr;
  }

  // Opens the tracker and arms it; skips the test, with the reason, where it cannot be had.
  void SetUp() override {
    if (place() == Place::kHugetlb) {
      pool_.emplace(8);
      if (HugePagePool::FreeCount() < 8) GTEST_SKIP() << "no pool of huge pages here";
    }
    memory_ = Make({{0, 4 * kMiB}, {8 * kMiB, 2 * kMiB}, {16 * kMiB, 6 * kMiB}});
    ASSERT_NE(memory_, nullptr);
    Open();
  }

  void Open() {
    tracker_.reset();
    Result<Tracker> opened = OpenTracker(kind(), memory_, trust_holes());
    if (!opened.ok()) GTEST_SKIP() << opened.error().message;
    tracker_ = std::move(opened.value());
  }

  void Arm() { ASSERT_TRUE(tracker_->Arm(Never).ok()); }

  // Writes as a guest does, past GuestMemory where that is possible.
  void WriteTo(std::uint64_t page, std::uint8_t value) {
    const Region& region = memory_->regions()[memory_->RegionOfPage(page)];
    const std::uint64_t offset = (page - region.first_page) * kPageBytes + page % kPageBytes;
    if (region.host != nullptr) {
      CopyGuest(region.host + offset, &value, 1);
    } else {
      ASSERT_TRUE(memory_->Write(region.base + offset, {&value, 1}).ok());
    }
    if (kind() == TrackerKind::kReported) tracker_->Mark({page, 1});
  }

  void Drop(PageRun run, int advice) {
    const Region& region = memory_->regions()[memory_->RegionOfPage(run.first)];
    ASSERT_EQ(::madvise(region.host + (run.first - region.first_page) * kPageBytes,
                        run.count * kPageBytes, advice),
              0);
    if (kind() == TrackerKind::kReported) tracker_->Mark(run);
  }

  std::vector<PageRun> Harvest() { return Found(&DirtyTracker::Harvest); }
  std::vector<PageRun> Look() { return Found(&DirtyTracker::Look); }

  std::vector<PageRun> Found(Status (DirtyTracker::*find)(DirtyBitmap*,
                                                          const DirtyTracker::Cancelled&)) {
    DirtyBitmap set(memory_->page_count());
    Status found = (tracker_.get()->*find)(&set, Never);
    EXPECT_TRUE(found.ok()) << (found.ok() ? "" : found.error().message);
    std::vector<PageRun> runs(static_cast<std::size_t>(memory_->page_count()));
    runs.resize(set.Runs(0, runs));
    return runs;
  }

  // Exactly these pages; where the host has huge pages (hugetlb, or the first touch of a huge page)
  // up to all of theirs.
  void ExpectTold(const std::vector<PageRun>& pages) { ExpectPages(Harvest(), pages); }

  void ExpectPages(const std::vector<PageRun>& told, const std::vector<PageRun>& pages) {
    const bool is_huge = place() == Place::kHugetlb || place() == Place::kHugePages;
    if (!is_huge || kind() != TrackerKind::kWriteProtect) {
      EXPECT_EQ(told, pages);
      return;
    }
    DirtyBitmap set(memory_->page_count());
    DirtyBitmap legal(memory_->page_count());
    for (const PageRun& run : told) set.MarkRun(run);
    for (const PageRun& run : pages) {
      for (std::uint64_t page = run.first; page < run.end(); ++page) {
        EXPECT_TRUE(set.IsMarked(page)) << page;
        legal.MarkRun({page / kChunkPages * kChunkPages, kChunkPages});
      }
    }
    const std::uint64_t legal_count = legal.CountMarked();
    set.MergeTo(&legal);
    EXPECT_EQ(legal.CountMarked(), legal_count) << "pages of other huge pages";
  }

  std::optional<HugePagePool> pool_;
  std::optional<TestFile> file_;
  std::optional<Borrowed> borrowed_;
  Memory memory_;
  Tracker tracker_;
};

inline auto AllTrackers() {
  return testing::Combine(
      testing::Values(TrackerKind::kWriteProtect, TrackerKind::kDigest, TrackerKind::kReported),
      testing::Values(Place::kSmallPages, Place::kHugePages, Place::kMemfd, Place::kMapped,
                      Place::kAttached, Place::kHugetlb, Place::kFile, Place::kOldSmall,
                      Place::kOldMemfd));
}

inline std::string NameOfTracker(
    const testing::TestParamInfo<std::tuple<TrackerKind, Place>>& given) {
  return std::string(kKindNames[static_cast<int>(std::get<0>(given.param))]) +
         kPlaceNames[static_cast<int>(std::get<1>(given.param))];
}

}  // namespace chkpt

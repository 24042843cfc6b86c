#include "core/memory/pagemap.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <string>

#include "core/memory/mapping.h"

namespace chkpt {
namespace {

// From include/uapi/linux/fs.h of Linux 6.7; the headers of many distributions are older.
struct ScanArguments {
  std::uint64_t size;
  std::uint64_t flags;
  std::uint64_t start;
  std::uint64_t end;
  std::uint64_t walk_end;
  std::uint64_t vec;
  std::uint64_t vec_len;
  std::uint64_t max_pages;
  std::uint64_t category_inverted;
  std::uint64_t category_mask;
  std::uint64_t category_anyof_mask;
  std::uint64_t return_mask;
};
static_assert(sizeof(ScanArguments) == 96 && sizeof(PagemapRange) == 24);

constexpr unsigned long kPagemapScan = _IOWR('f', 16, ScanArguments);
constexpr std::size_t kEntryPieceCount = 2048;  // 16 KiB of stack, 8 MiB of memory

std::optional<PagemapWalk> Scan(int fd, std::uint64_t start, std::uint64_t end,
                                bool first_page_only, std::span<PagemapRange> found) {
  // (present or swapped) and not the zero page. No category is returned, so that neighbours join
  // whatever they are.
  return ScanPagemap(fd,
                     {.required = kPageIsZero,
                      .inverted = kPageIsZero,
                      .any_of = kPageIsPresent | kPageIsSwapped,
                      .page_count_max = first_page_only ? 1u : 0u},
                     start, end, found);
}

// Entries do not name the zero page (its frame number needs a privilege): here it counts as
// content.
std::optional<PagemapWalk> WalkEntries(int fd, std::uint64_t start, std::uint64_t end,
                                       bool first_page_only, std::span<PagemapRange> found) {
  const std::uint64_t page_bytes = SystemPageBytes();
  std::uint64_t entries[kEntryPieceCount];
  PagemapWalk walk = {0, start};
  while (walk.end < end) {
    const std::uint64_t wanted =
        std::min<std::uint64_t>((end - walk.end) / page_bytes, kEntryPieceCount);
    const std::size_t count =
        ReadPagemapEntries(fd, walk.end, {entries, static_cast<std::size_t>(wanted)});
    if (count == 0) return std::nullopt;
    for (std::size_t i = 0; i < count; ++i, walk.end += page_bytes) {
      if ((entries[i] & (kEntryIsPresent | kEntryIsSwapped)) == 0) continue;
      if (walk.count > 0 && found[walk.count - 1].end == walk.end) {
        found[walk.count - 1].end += page_bytes;
        continue;
      }
      if (walk.count == found.size()) return walk;
      found[walk.count++] = {walk.end, walk.end + page_bytes, 0};
      if (first_page_only) {
        walk.end += page_bytes;
        return walk;
      }
    }
  }
  return walk;
}

// A method is believed when it finds a page that is certainly there: one of this function's stack.
bool FindsOwnPage(PagemapMethod method, int fd) {
  volatile std::uint8_t own = 1;
  const std::uint64_t page_bytes = SystemPageBytes();
  const std::uint64_t page = reinterpret_cast<std::uintptr_t>(&own) / page_bytes * page_bytes;
  PagemapRange found[1];
  const std::optional<PagemapWalk> walk =
      WalkPagemap(method, fd, page, page + page_bytes, true, found);
  return walk && walk->count == 1 && found[0].start == page && found[0].end == page + page_bytes;
}

}  // namespace

std::optional<PagemapWalk> ScanPagemap(int fd, const PagemapQuery& query, std::uint64_t start,
                                       std::uint64_t end, std::span<PagemapRange> found) {
  ScanArguments arguments = {};
  arguments.size = sizeof arguments;
  arguments.flags = query.flags;
  arguments.start = start;
  arguments.end = end;
  arguments.vec = reinterpret_cast<std::uintptr_t>(found.data());
  arguments.vec_len = found.size();
  arguments.max_pages = query.page_count_max;
  arguments.category_inverted = query.inverted;
  arguments.category_mask = query.required;
  arguments.category_anyof_mask = query.any_of;
  arguments.return_mask = query.returned;
  const int count = ::ioctl(fd, kPagemapScan, &arguments);
  if (count < 0) return std::nullopt;
  return PagemapWalk{static_cast<std::size_t>(count), arguments.walk_end};
}

int OpenPagemap() { return OpenPagemapOf(0); }

int OpenPagemapOf(int process) {
  const std::string name = process == 0 ? "self" : std::to_string(process);
  return ::open(("/proc/" + name + "/pagemap").c_str(), O_RDONLY | O_CLOEXEC);
}

std::size_t ReadPagemapEntries(int fd, std::uint64_t start, std::span<std::uint64_t> entries) {
  const off_t offset = static_cast<off_t>(start / SystemPageBytes() * sizeof(std::uint64_t));
  ssize_t done;
  do {
    done = ::pread(fd, entries.data(), entries.size_bytes(), offset);
  } while (done < 0 && errno == EINTR);
  return done < 0 ? 0 : static_cast<std::size_t>(done) / sizeof(std::uint64_t);
}

PagemapMethod UsableMethod(int fd, PagemapMethod best) {
  if (fd < 0 || best == PagemapMethod::kNone) return PagemapMethod::kNone;
  if (best == PagemapMethod::kScan && FindsOwnPage(PagemapMethod::kScan, fd))
    return PagemapMethod::kScan;
  return FindsOwnPage(PagemapMethod::kEntries, fd) ? PagemapMethod::kEntries : PagemapMethod::kNone;
}

std::optional<PagemapWalk> WalkPagemap(PagemapMethod method, int fd, std::uint64_t start,
                                       std::uint64_t end, bool first_page_only,
                                       std::span<PagemapRange> found) {
  CHKPT_CHECK(method != PagemapMethod::kNone && !found.empty());
  return method == PagemapMethod::kScan ? Scan(fd, start, end, first_page_only, found)
                                        : WalkEntries(fd, start, end, first_page_only, found);
}

}  // namespace chkpt

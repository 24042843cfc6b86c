#include "core/memory/process_maps.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <optional>
#include <string>

namespace chkpt {
namespace {

// Takes the next field of `line`, up to a space.
std::string_view TakeField(std::string_view* line) {
  line->remove_prefix(std::min(line->find_first_not_of(' '), line->size()));
  const std::string_view field = line->substr(0, line->find(' '));
  line->remove_prefix(field.size());
  return field;
}

std::optional<std::uint64_t> ParseHex(std::string_view digits) {
  std::uint64_t value = 0;
  const char* const end = digits.data() + digits.size();
  const auto [stop, error] = std::from_chars(digits.data(), end, value, 16);
  if (error != std::errc() || stop != end) return std::nullopt;
  return value;
}

// Other names in brackets are the kernel's own pages, such as [vdso].
bool IsAnonymousName(std::string_view name) {
  return name.empty() || name == "[heap]" || name == "[stack]" || name.starts_with("[anon:");
}

bool IsDevice(std::string_view field, const FilePart& part) {
  const std::size_t colon = field.find(':');
  if (colon == std::string_view::npos) return false;
  return ParseHex(field.substr(0, colon)) == part.device_major &&
         ParseHex(field.substr(colon + 1)) == part.device_minor;
}

std::string ReadWholeFile(const char* path) {
  std::string text;
  const int fd = ::open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return text;
  constexpr std::size_t kPieceBytes = std::size_t{64} << 10;
  for (;;) {
    const std::size_t length = text.size();
    text.resize(length + kPieceBytes);
    const ssize_t done = ::read(fd, text.data() + length, kPieceBytes);
    text.resize(length + static_cast<std::size_t>(std::max<ssize_t>(done, 0)));
    if (done < 0 && errno == EINTR) continue;
    if (done <= 0) break;
  }
  ::close(fd);
  return text;
}

}  // namespace

ProcessMaps ProcessMaps::OfThisProcess() { return ProcessMaps(ReadWholeFile("/proc/self/maps")); }

// A line is "start-end perms offset device inode   name", for example
// "7f2c40000000-7f2c40021000 rw-p 00000000 00:00 0".
ProcessMaps::ProcessMaps(std::string_view text) {
  while (!text.empty()) {
    std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(line.size() + 1, text.size()));
    const std::string_view range = TakeField(&line);
    const std::string_view permissions = TakeField(&line);
    TakeField(&line);  // offset
    const std::string_view device = TakeField(&line);
    const std::string_view inode = TakeField(&line);
    line.remove_prefix(std::min(line.find_first_not_of(' '), line.size()));

    const std::size_t dash = range.find('-');
    if (dash == std::string_view::npos || permissions.size() != 4) continue;
    const std::optional<std::uint64_t> start = ParseHex(range.substr(0, dash));
    const std::optional<std::uint64_t> end = ParseHex(range.substr(dash + 1));
    if (!start || !end || permissions[3] != 'p' || device != "00:00" || inode != "0") continue;
    if (!IsAnonymousName(line)) continue;
    if (!anonymous_.empty() && anonymous_.back().end == *start) {
      anonymous_.back().end = *end;
    } else {
      anonymous_.push_back({*start, *end});
    }
  }
}

bool ProcessMaps::IsPrivateAnonymous(std::uint64_t address, std::uint64_t bytes) const {
  // First range that ends behind `address`.
  const auto range =
      std::upper_bound(anonymous_.begin(), anonymous_.end(), address,
                       [](std::uint64_t value, const Range& r) { return value < r.end; });
  return range != anonymous_.end() && range->start <= address && bytes <= range->end - address;
}

std::optional<std::uint64_t> FindFileMapping(int process, const FilePart& part) {
  const std::string name = process == 0 ? "self" : std::to_string(process);
  const std::string text = ReadWholeFile(("/proc/" + name + "/maps").c_str());
  for (std::string_view left = text; !left.empty();) {
    std::string_view line = left.substr(0, left.find('\n'));
    left.remove_prefix(std::min(line.size() + 1, left.size()));
    const std::string_view range = TakeField(&line);
    TakeField(&line);  // permissions
    const std::optional<std::uint64_t> offset = ParseHex(TakeField(&line));
    if (!IsDevice(TakeField(&line), part)) continue;
    if (TakeField(&line) != std::to_string(part.inode)) continue;
    const std::size_t dash = std::min(range.find('-'), range.size());
    const std::optional<std::uint64_t> start = ParseHex(range.substr(0, dash));
    const std::optional<std::uint64_t> end =
        ParseHex(range.substr(std::min(dash + 1, range.size())));
    if (!offset || !start || !end || *offset > part.offset) continue;
    const std::uint64_t skipped = part.offset - *offset;
    if (skipped <= *end - *start && part.bytes <= *end - *start - skipped) return *start + skipped;
  }
  return std::nullopt;
}

}  // namespace chkpt

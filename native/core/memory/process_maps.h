// Which parts of this process are private anonymous memory, as /proc/self/maps shows it.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

namespace chkpt {

class ProcessMaps {
 public:
  // A snapshot of this process. Empty when /proc is not there: then nothing is known to be
  // anonymous.
  static ProcessMaps OfThisProcess();
  // Parses the text of a maps file. Lines that do not look as proc(5) says are skipped.
  explicit ProcessMaps(std::string_view text);

  // True when all of [address, address + bytes) is private anonymous memory.
  bool IsPrivateAnonymous(std::uint64_t address, std::uint64_t bytes) const;

 private:
  struct Range {
    std::uint64_t start = 0;
    std::uint64_t end = 0;
  };
  std::vector<Range> anonymous_;  // ascending; ranges that touch are one
};

// A part of a file, as stat(2) names it.
struct FilePart {
  std::uint64_t device_major = 0;
  std::uint64_t device_minor = 0;
  std::uint64_t inode = 0;
  std::uint64_t offset = 0;
  std::uint64_t bytes = 0;
};

// Address at which a process has mapped all of `part` in one piece; nothing when it has not, or
// when /proc does not tell. `process` 0 is this one.
std::optional<std::uint64_t> FindFileMapping(int process, const FilePart& part);

}  // namespace chkpt

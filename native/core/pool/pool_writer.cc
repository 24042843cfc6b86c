#include "core/pool/pool_writer.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstring>

#include "core/base/bytes.h"
#include "core/memory/guest_memory.h"

namespace chkpt {
namespace {

constexpr int kReadFlags = O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC;
// Half of what the index takes is for the objects of this save.
constexpr std::size_t kLoadedMax = PoolIndex::kObjectsMax / 2;
// Neighbours in a pack are mostly asked for one after the other.
constexpr std::size_t kReadAheadBytes = std::size_t{512} << 10;
constexpr std::uint32_t kRunBytesMax = 1u << 30;
constexpr std::size_t kPiecesMax = 512;
static_assert(kPiecesMax <= IOV_MAX);

struct Folder {
  explicit Folder(const std::string& path) : stream(::opendir(path.c_str())) {}
  ~Folder() {
    if (stream != nullptr) ::closedir(stream);
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  DIR* const stream;
};

// A file that nobody else can change, now or when it has been compared.
bool IsOwn(const struct stat& status) {
  return S_ISREG(status.st_mode) && status.st_uid == ::geteuid() &&
         (status.st_mode & (S_IWGRP | S_IWOTH)) == 0;
}

struct Found {
  std::int64_t seconds = 0;
  std::string name;
};

// The packs of a folder, the newest first.
std::vector<Found> PacksIn(const Folder& folder) {
  std::vector<Found> found;
  while (const dirent* entry = ::readdir(folder.stream)) {
    if (!IsPackName(entry->d_name)) continue;
    struct stat status{};
    if (::fstatat(::dirfd(folder.stream), entry->d_name, &status, AT_SYMLINK_NOFOLLOW) != 0)
      continue;
    found.push_back({.seconds = status.st_mtim.tv_sec, .name = entry->d_name});
  }
  std::sort(found.begin(), found.end(), [](const Found& a, const Found& b) {
    return a.seconds != b.seconds ? a.seconds > b.seconds : a.name < b.name;
  });
  return found;
}

// Pieces that go to one file, one behind the other.
class Gather {
 public:
  void Add(std::span<const std::uint8_t> bytes) {
    bytes_ += bytes.size();
    if (!pieces_.empty()) {
      iovec& last = pieces_.back();
      if (static_cast<const std::uint8_t*>(last.iov_base) + last.iov_len == bytes.data()) {
        last.iov_len += bytes.size();
        return;
      }
    }
    pieces_.push_back(
        {.iov_base = const_cast<std::uint8_t*>(bytes.data()), .iov_len = bytes.size()});
  }
  std::uint64_t bytes() const { return bytes_; }

  Status WriteTo(PoolWriter::Target target) {
    std::span<iovec> rest(pieces_);
    while (!rest.empty()) {
      const auto count = static_cast<int>(std::min(rest.size(), kPiecesMax));
      const ssize_t done =
          ::pwritev(target.fd, rest.data(), count, static_cast<off_t>(target.position));
      if (done < 0) {
        if (errno == EINTR) continue;
        return SystemError(errno, "writing guest memory");
      }
      if (done == 0) return SystemError(EIO, "writing guest memory");
      target.position += static_cast<std::uint64_t>(done);
      auto left = static_cast<std::size_t>(done);
      while (!rest.empty() && left >= rest.front().iov_len) {
        left -= rest.front().iov_len;
        rest = rest.subspan(1);
      }
      if (left > 0) {
        rest.front().iov_base = static_cast<std::uint8_t*>(rest.front().iov_base) + left;
        rest.front().iov_len -= left;
      }
    }
    return Ok();
  }

 private:
  std::vector<iovec> pieces_;
  std::uint64_t bytes_ = 0;
};

}  // namespace

// Objects that are about to be written: their places in the save's pack ascend.
struct PoolWriter::Pending {
  struct Object {
    std::uint64_t offset = 0;
    std::span<const std::uint8_t> bytes;
  };
  std::vector<Object> objects;

  const std::uint8_t* Find(std::uint64_t offset) const {
    const auto at =
        std::lower_bound(objects.begin(), objects.end(), offset,
                         [](const Object& object, std::uint64_t o) { return object.offset < o; });
    return at != objects.end() && at->offset == offset ? at->bytes.data() : nullptr;
  }
};

Status PoolWriter::Load() {
  const Folder folder(pool_);
  if (folder.stream == nullptr) return SystemError(errno, "opening the pool");
  for (Found& found : PacksIn(folder)) {
    if (index_.size() >= kLoadedMax) break;
    LoadPack(::dirfd(folder.stream), std::move(found.name));
  }
  return Ok();
}

void PoolWriter::LoadPack(int folder, std::string name) {
  const OwnedFd file(::openat(folder, name.c_str(), kReadFlags));
  struct stat status{};
  if (file.get() < 0 || ::fstat(file.get(), &status) != 0 || !IsOwn(status)) return;
  const auto bytes = static_cast<std::uint64_t>(status.st_size);
  if (bytes > kPackFileBytesMax) return;
  auto table = ReadPackTable(file.get(), bytes, kLoadedMax - index_.size());
  if (!table.ok() || table.value().empty()) return;
  const auto pack = static_cast<std::uint32_t>(packs_.size());
  const PackObject& last = table.value().back();
  packs_.push_back({.name = std::move(name),
                    .file_bytes = bytes,
                    .object_bytes = last.offset + last.bytes,
                    .inode = status.st_ino});
  for (const PackObject& object : table.value()) {
    // What a newer pack has is not looked for in an older one.
    if (index_.Find(object.digest, object.bytes) != nullptr) continue;
    index_.Put(object.digest, {.pack = pack, .bytes = object.bytes, .offset = object.offset});
  }
}

Status PoolWriter::BeginPack(std::string name) {
  const std::string path = work_ + "/" + name;
  OwnedFd file(::open(path.c_str(), kReadFlags));
  if (file.get() < 0) return SystemError(errno, "opening a pack");
  own_pack_ = static_cast<std::uint32_t>(packs_.size());
  packs_.push_back({.name = std::move(name), .file = std::move(file), .is_own = true});
  table_.clear();
  return Ok();
}

Result<PoolWriter::Written> PoolWriter::Write(std::span<const std::span<const std::uint8_t>> pieces,
                                              Target own, Target pack) {
  std::vector<Cut> cuts;
  for (const std::span piece : pieces) cutter_.Push(piece, &cuts);
  auto written = Place(cuts, own, pack);
  cutter_.Forget();
  return written;
}

Result<PoolWriter::Written> PoolWriter::EndContext(Target own) {
  std::vector<Cut> cuts;
  cutter_.Finish(&cuts);
  auto written = Place(cuts, own, {});
  cutter_.Forget();
  if (written.ok()) CloseRun(&written.value());
  own_bytes_ = 0;
  return written;
}

Result<PoolWriter::Written> PoolWriter::Place(std::span<const Cut> cuts, Target own, Target pack) {
  std::vector<ObjectDigest> digests(cuts.size());
  for (std::size_t i = 0; i < cuts.size(); ++i) {
    if (cuts[i].is_object) digests[i] = DigestOf(cuts[i].bytes);
  }
  UseWanted(cuts, digests);
  Written written;
  Pending pending;
  Gather to_own;
  Gather to_pack;
  for (std::size_t i = 0; i < cuts.size(); ++i) {
    const std::span object = cuts[i].bytes;
    if (!cuts[i].is_object) {
      to_own.Add(object);
      own_bytes_ += object.size();
      continue;
    }
    const auto bytes = static_cast<std::uint32_t>(object.size());
    const PoolIndex::Place* found = index_.Find(digests[i], object.size());
    if (found != nullptr && Holds(*found, object, pending)) {
      if (!packs_[found->pack].is_own) shared_bytes_ += bytes;
      AddRun(found->pack, found->offset, bytes, &written);
      continue;
    }
    CHKPT_CHECK(own_pack_.has_value());
    const std::uint64_t offset = pack.position + to_pack.bytes();
    to_pack.Add(object);
    pending.objects.push_back({.offset = offset, .bytes = object});
    table_.push_back({.digest = digests[i], .offset = offset, .bytes = bytes});
    index_.Put(digests[i], {.pack = *own_pack_, .bytes = bytes, .offset = offset});
    AddRun(*own_pack_, offset, bytes, &written);
  }
  Status status = to_own.WriteTo(own);
  if (status.ok()) status = to_pack.WriteTo(pack);
  if (!status.ok()) return std::move(status.error());
  written.own_bytes = to_own.bytes();
  written.pack_bytes = to_pack.bytes();
  return written;
}

// Packs of which enough is wanted by now.
void PoolWriter::UseWanted(std::span<const Cut> cuts, std::span<const ObjectDigest> digests) {
  for (std::size_t i = 0; i < cuts.size(); ++i) {
    if (!cuts[i].is_object) continue;
    const PoolIndex::Place* found = index_.Find(digests[i], cuts[i].bytes.size());
    if (found != nullptr) packs_[found->pack].wanted_bytes += found->bytes;
  }
  for (Pack& pack : packs_) {
    const bool is_new = pack.file.get() < 0 && !pack.is_lost && pack.wanted_bytes > 0;
    if (is_new && pack.wanted_bytes >= pack.object_bytes / kUsedShare) Use(pack);
  }
}

// Gives the pack its name in the save's folder, and opens it there.
void PoolWriter::Use(Pack& pack) {
  const std::string from = pool_ + "/" + pack.name;
  const std::string to = work_ + "/" + pack.name;
  pack.is_lost = true;
  // Gone, or it has as many names as a file can have: then its content is stored once more.
  if (::link(from.c_str(), to.c_str()) != 0) return;
  OwnedFd file(::open(to.c_str(), kReadFlags));
  struct stat status{};
  const bool is_same = file.get() >= 0 && ::fstat(file.get(), &status) == 0 && IsOwn(status) &&
                       status.st_ino == pack.inode &&
                       static_cast<std::uint64_t>(status.st_size) == pack.file_bytes;
  if (!is_same) {
    ::unlink(to.c_str());
    return;
  }
  pack.file = std::move(file);
  pack.is_lost = false;
}

// Whether the bytes there are those of `object`.
bool PoolWriter::Holds(const PoolIndex::Place& place, std::span<const std::uint8_t> object,
                       const Pending& pending) {
  const Pack& pack = packs_[place.pack];
  if (!IsUsable(pack)) return false;
  const std::uint8_t* bytes = nullptr;
  if (own_pack_ == place.pack) bytes = pending.Find(place.offset);
  if (bytes == nullptr) bytes = Read(place);
  return bytes != nullptr && std::memcmp(bytes, object.data(), object.size()) == 0;
}

const std::uint8_t* PoolWriter::Read(const PoolIndex::Place& place) {
  const Pack& pack = packs_[place.pack];
  const std::uint64_t end = window_.offset + window_.bytes.size();
  const bool is_here = window_.pack == place.pack && place.offset >= window_.offset &&
                       place.offset + place.bytes <= end;
  if (is_here) return window_.bytes.data() + (place.offset - window_.offset);
  // Behind the last one: there is more to come. Packs of this save are still growing.
  std::uint64_t bytes = place.bytes;
  const bool goes_on = window_.pack == place.pack && place.offset >= window_.offset &&
                       place.offset <= end + kReadAheadBytes;
  if (goes_on && !pack.is_own) {
    bytes = std::max<std::uint64_t>(
        bytes, std::min<std::uint64_t>(kReadAheadBytes, pack.object_bytes - place.offset));
  }
  window_.pack = place.pack;
  window_.offset = place.offset;
  window_.bytes.resize(static_cast<std::size_t>(bytes));
  if (ReadAll(pack.file.get(), place.offset, window_.bytes).ok()) return window_.bytes.data();
  window_.pack = kNoNumber;
  window_.bytes.clear();
  return nullptr;
}

void PoolWriter::AddRun(std::uint32_t pack, std::uint64_t offset, std::uint32_t bytes,
                        Written* written) {
  Pack& used = packs_[pack];
  if (used.number == kNoNumber) used.number = numbers_++;
  const bool goes_on = run_ && own_bytes_ == 0 && run_->number == used.number &&
                       run_->offset + run_->bytes == offset && run_->bytes < kRunBytesMax;
  if (goes_on) {
    run_->bytes += bytes;
    return;
  }
  CloseRun(written);
  run_ = {.own_bytes = std::exchange(own_bytes_, 0),
          .offset = offset,
          .number = used.number,
          .bytes = bytes};
}

void PoolWriter::CloseRun(Written* written) {
  if (!run_) return;
  const std::size_t at = written->map.size();
  written->map.resize(at + kPoolRunBytes);
  Store(written->map.data() + at, run_->own_bytes);
  Store(written->map.data() + at + 8, run_->offset);
  Store(written->map.data() + at + 16, run_->number);
  Store(written->map.data() + at + 20, run_->bytes);
  run_.reset();
}

Result<std::uint64_t> PoolWriter::EndPack(Target target) {
  CHKPT_CHECK(own_pack_.has_value());
  const std::vector<std::uint8_t> end = EncodePackEnd(table_);
  Status status = WriteAll(target.fd, target.position, end);
  if (!status.ok()) return SystemError(status.error().system_errno, "writing a pack");
  Pack& pack = packs_[*own_pack_];
  pack.object_bytes = target.position;
  pack.file_bytes = target.position + end.size();
  own_pack_.reset();
  table_.clear();
  return end.size();
}

std::vector<PoolWriter::PackFile> PoolWriter::TakePacks() {
  std::vector<PackFile> files(numbers_);
  for (Pack& pack : packs_) {
    if (pack.number != kNoNumber) {
      files[pack.number] = {.name = pack.name, .bytes = pack.file_bytes};
    } else if (!pack.is_own && pack.file.get() >= 0) {
      ::unlink((work_ + "/" + pack.name).c_str());
      pack.file = OwnedFd();
      pack.is_lost = true;
    }
  }
  return files;
}

}  // namespace chkpt

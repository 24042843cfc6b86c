#include "core/parallel/gzip_load.h"

#include <algorithm>
#include <cstring>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "core/base/xxh3.h"
#include "core/codec/gzip.h"
#include "core/scan/page_kernels.h"

namespace chkpt::gzip {
namespace {

constexpr std::size_t kPieceBytes = kMemberBytes;

Error At(Error error, std::uint64_t offset) {
  error.offset = offset;
  return error;
}

// Bytes of a stretch of the region, in order, into its pages.
class PageStore {
 public:
  PageStore(GuestMemory& memory, const Region& region, std::atomic<std::uint64_t>* pages_done)
      : memory_(memory), region_(region), pages_done_(pages_done), piece_(kPieceBytes) {}

  // Units: bytes from the start of the region, whole pages.
  void Begin(std::uint64_t start, std::uint64_t bytes) {
    page_ = region_.first_page + start / kPageBytes;
    left_ = bytes;
    used_ = 0;
  }

  Status Take(std::span<const std::uint8_t> bytes) {
    if (bytes.size() > left_) {
      return Error{.code = ErrorCode::kTrailingData,
                   .message = "a memory store decodes to more than its range"};
    }
    left_ -= bytes.size();
    while (!bytes.empty()) {
      const std::size_t part = std::min(bytes.size(), piece_.size() - used_);
      std::memcpy(piece_.data() + used_, bytes.data(), part);
      used_ += part;
      bytes = bytes.subspan(part);
      if (used_ == piece_.size() || left_ + bytes.size() == 0) {
        Status status = StorePiece();
        if (!status.ok()) return status;
      }
    }
    return Ok();
  }

  Status Complete() const {
    if (left_ == 0) return Ok();
    return Error{.code = ErrorCode::kTruncated,
                 .message = "a memory store decodes to less than its range"};
  }

  Status SetZero(std::uint64_t start, std::uint64_t bytes) {
    Count(bytes / kPageBytes);
    if (region_.fresh) return Ok();
    return memory_.Zero({region_.first_page + start / kPageBytes, bytes / kPageBytes});
  }

 private:
  Status StorePiece() {
    const std::size_t count = used_ / kPageBytes;
    std::size_t first = 0;
    while (first < count) {
      const bool zero = IsZero(first);
      std::size_t end = first + 1;
      while (end < count && IsZero(end) == zero) ++end;
      const PageRun run{page_ + first, end - first};
      Status status = Ok();
      if (!zero) {
        status = memory_.CopyIn(run, piece_.data() + first * kPageBytes);
      } else if (!region_.fresh) {
        status = memory_.Zero(run);
      }
      if (!status.ok()) return status;
      first = end;
    }
    page_ += count;
    used_ = 0;
    Count(count);
    return Ok();
  }
  void Count(std::uint64_t pages) {
    if (pages_done_ != nullptr) *pages_done_ += pages;
  }
  bool IsZero(std::size_t page) const {
    std::uint64_t word = 0;
    return BestPageKernels().classify(piece_.data() + page * kPageBytes, &word) == PageClass::kZero;
  }

  GuestMemory& memory_;
  const Region& region_;
  std::atomic<std::uint64_t>* const pages_done_;
  std::vector<std::uint8_t> piece_;
  std::size_t used_ = 0;
  std::uint64_t page_ = 0;  // of the first byte of piece_
  std::uint64_t left_ = 0;
};

class MemberLoad {
 public:
  MemberLoad(GuestMemory& memory, const Region& region, int fd, std::span<const Member> members,
             const LoadOptions& options, const std::function<bool()>& cancelled)
      : memory_(memory),
        region_(region),
        fd_(fd),
        members_(members),
        member_bytes_(options.member_bytes),
        layout_(region.bytes, options.member_bytes),
        pages_done_(options.pages_done),
        cancelled_(cancelled) {
    deflate::Encoder encoder;
    const std::vector<std::uint8_t> zeros(member_bytes_);
    zero_member_.resize(MemberBound(member_bytes_));
    zero_member_.resize(EncodeMember(encoder, zeros, zero_member_.data()));
  }

  Status Run(unsigned threads) {
    std::vector<std::thread> others;
    for (unsigned i = 1; i < threads; ++i) others.emplace_back([this] { Work(); });
    Work();
    for (std::thread& other : others) other.join();
    if (error_) return *error_;
    return Ok();
  }

 private:
  struct Claim {
    std::uint64_t index = 0;
    std::uint64_t offset = 0;  // in the file
  };

  void Work() {
    Reader reader;
    PageStore store(memory_, region_, pages_done_);
    std::vector<std::uint8_t> buffer(MemberBound(member_bytes_));
    while (const std::optional<Claim> claim = Next()) {
      const Member& member = members_[claim->index];
      Status status =
          Load(*claim, {buffer.data(), std::min<std::size_t>(member.bytes, buffer.size())}, reader,
               store);
      if (!status.ok()) return Fail(claim->index, At(std::move(status.error()), claim->offset));
    }
  }

  // Claims come in order, and all that were claimed end: the error of the lowest member is known.
  std::optional<Claim> Next() {
    const std::lock_guard lock(mutex_);
    if (error_ || next_.index == members_.size()) return std::nullopt;
    if (cancelled_()) {
      error_ = Error{.code = ErrorCode::kAborted, .message = "load cancelled"};
      return std::nullopt;
    }
    const Claim claim = next_;
    next_.offset += members_[next_.index].bytes;
    ++next_.index;
    return claim;
  }

  Status Load(const Claim& claim, std::span<std::uint8_t> bytes, Reader& reader, PageStore& store) {
    const Member& member = members_[claim.index];
    if (bytes.size() != member.bytes) {
      return Error{.code = ErrorCode::kLimit, .message = "a member is larger than any can be"};
    }
    Status status = ReadAll(fd_, claim.offset, bytes);
    if (!status.ok()) {
      if (status.error().code != ErrorCode::kMemoryShort) return status;
      return Error{.code = ErrorCode::kTruncated, .message = "a memory store is shorter than told"};
    }
    if (XXH3_64bits(bytes.data(), bytes.size()) != member.digest) {
      return Error{.code = ErrorCode::kDigest, .message = "a member is not what the manifest says"};
    }
    const std::uint64_t start = layout_.StartOf(claim.index);
    const std::size_t decoded_bytes = layout_.BytesOf(claim.index);
    if (decoded_bytes == member_bytes_ && std::ranges::equal(bytes, zero_member_)) {
      return store.SetZero(start, decoded_bytes);
    }
    BitReader input{std::span<const std::uint8_t>(bytes)};
    store.Begin(start, decoded_bytes);
    Result<std::uint64_t> decoded = reader.ReadMember(
        input, [&](std::span<const std::uint8_t> part) { return store.Take(part); });
    if (!decoded.ok()) return decoded.error();
    if (!input.AtEnd()) {
      return Error{.code = ErrorCode::kTrailingData, .message = "bytes follow a gzip member"};
    }
    return store.Complete();
  }

  void Fail(std::uint64_t index, Error error) {
    const std::lock_guard lock(mutex_);
    if (error_ && index >= failed_index_) return;
    failed_index_ = index;
    error_ = std::move(error);
  }

  GuestMemory& memory_;
  const Region& region_;
  const int fd_;
  const std::span<const Member> members_;
  const std::size_t member_bytes_;
  const MemberLayout layout_;
  std::atomic<std::uint64_t>* const pages_done_;
  const std::function<bool()>& cancelled_;
  std::vector<std::uint8_t> zero_member_;

  std::mutex mutex_;
  Claim next_;
  std::uint64_t failed_index_ = 0;  // of error_; 0: cancelled
  std::optional<Error> error_;
};

}  // namespace

Status LoadMembers(GuestMemory& memory, const Region& region, int fd,
                   std::span<const Member> members, const LoadOptions& options,
                   const std::function<bool()>& cancelled) {
  return MemberLoad(memory, region, fd, members, options, cancelled).Run(options.threads);
}

Status LoadStream(GuestMemory& memory, const Region& region, int fd, std::uint64_t file_bytes,
                  const LoadOptions& options, const std::function<bool()>& cancelled) {
  std::uint64_t offset = 0;
  BitReader input([&](std::span<std::uint8_t> target) -> Result<std::size_t> {
    if (cancelled()) return Error{.code = ErrorCode::kAborted, .message = "load cancelled"};
    const std::span part = target.first(
        static_cast<std::size_t>(std::min<std::uint64_t>(target.size(), file_bytes - offset)));
    Status status = ReadAll(fd, offset, part);
    if (!status.ok()) {
      if (status.error().code != ErrorCode::kMemoryShort) return status.error();
      return Error{.code = ErrorCode::kTruncated, .message = "a memory store was cut meanwhile"};
    }
    offset += part.size();
    return part.size();
  });
  Reader reader;
  PageStore store(memory, region, options.pages_done);
  store.Begin(0, region.bytes);
  while (!input.AtEnd()) {
    Result<std::uint64_t> decoded = reader.ReadMember(
        input, [&](std::span<const std::uint8_t> part) { return store.Take(part); });
    if (!decoded.ok()) return decoded.error();
  }
  if (input.error()) return *input.error();
  return store.Complete();
}

}  // namespace chkpt::gzip

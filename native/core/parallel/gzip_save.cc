#include "core/parallel/gzip_save.h"

#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <map>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

#include "core/base/xxh3.h"
#include "core/codec/gzip.h"
#include "core/scan/page_kernels.h"

namespace chkpt::gzip {
namespace {

// One presence query covers at most this much, so that cancelling never waits for a long one.
constexpr std::uint64_t kQueryPages = (std::uint64_t{16} << 30) / kPageBytes;
// Buffers for members that wait for an earlier one.
constexpr unsigned kSpareBuffers = 2;

class RegionSave {
 public:
  RegionSave(const GuestMemory& memory, const Region& region, const SlabOutput& output,
             const SaveOptions& options, const std::function<bool()>& cancelled)
      : memory_(memory),
        region_(region),
        output_(output),
        layout_(region.bytes, options.member_bytes),
        threads_(options.threads),
        cancelled_(cancelled),
        finder_(options.presence),
        member_bytes_(options.member_bytes),
        pages_done_(options.pages_done),
        buffers_(2 * threads_ + kSpareBuffers) {}

  Result<std::vector<Member>> Run() {
    members_.reserve(layout_.count());
    for (Encoded& buffer : buffers_) free_.push_back(&buffer);
    std::vector<std::thread> others;
    for (unsigned i = 1; i < threads_; ++i) others.emplace_back([this] { Work(); });
    Work();
    for (std::thread& other : others) other.join();
    if (error_) return *error_;
    return std::move(members_);
  }

 private:
  // A member on its way to the file.
  struct Encoded {
    std::vector<std::uint8_t> bytes;  // made when it is first used
    std::size_t size = 0;
    std::uint64_t digest = 0;
    std::uint64_t offset = 0;  // in the file
  };
  struct Claim {
    std::uint64_t index = 0;
    bool untouched = false;
  };

  void Work() {
    deflate::Encoder encoder;
    std::vector<std::uint8_t> copy(member_bytes_);
    std::vector<PageRun> runs;
    while (Encoded* const buffer = TakeFree()) {
      const std::optional<Claim> claim = Next();
      if (!claim) return;
      const std::size_t bytes = layout_.BytesOf(claim->index);
      bool is_zero = claim->untouched;
      if (!is_zero) {
        Status status = CopyOut(claim->index, copy.data(), &runs);
        if (!status.ok()) return Fail(std::move(status.error()));
        is_zero =
            BestPageKernels().count_zero(copy.data(), bytes / kPageBytes) == bytes / kPageBytes;
      }
      if (is_zero) {
        std::fill_n(copy.begin(), bytes, std::uint8_t{0});
        TakeZeroMember(encoder, {copy.data(), bytes}, buffer);
      } else {
        Encode(encoder, {copy.data(), bytes}, buffer);
      }
      Submit(claim->index, buffer);
      if (pages_done_ != nullptr) *pages_done_ += bytes / kPageBytes;
    }
  }

  void Encode(deflate::Encoder& encoder, std::span<const std::uint8_t> source, Encoded* buffer) {
    if (buffer->bytes.empty()) buffer->bytes.resize(MemberBound(member_bytes_));
    buffer->size = EncodeMember(encoder, source, buffer->bytes.data());
    buffer->digest = XXH3_64bits(buffer->bytes.data(), buffer->size);
  }

  // The member of that many zeros, which is encoded once.
  void TakeZeroMember(deflate::Encoder& encoder, std::span<const std::uint8_t> zeros,
                      Encoded* buffer) {
    if (buffer->bytes.empty()) buffer->bytes.resize(MemberBound(member_bytes_));
    const std::lock_guard lock(zero_mutex_);
    Encoded& known = zero_members_[zeros.size()];
    if (known.bytes.empty()) Encode(encoder, zeros, &known);
    std::memcpy(buffer->bytes.data(), known.bytes.data(), known.size);
    buffer->size = known.size;
    buffer->digest = known.digest;
  }

  // The pages of the member, zeros where nothing is present.
  Status CopyOut(std::uint64_t index, std::uint8_t* copy, std::vector<PageRun>* runs) const {
    const PageRun pages = PagesOf(index);
    finder_.PresentRuns(region_, pages, runs);
    std::uint64_t page = pages.first;
    const auto place = [&](std::uint64_t of) { return copy + (of - pages.first) * kPageBytes; };
    for (const PageRun& run : *runs) {
      std::memset(place(page), 0, (run.first - page) * kPageBytes);
      Status status = memory_.CopyOut(run, place(run.first));
      if (!status.ok()) return status;
      page = run.end();
    }
    std::memset(place(page), 0, (pages.end() - page) * kPageBytes);
    return Ok();
  }

  PageRun PagesOf(std::uint64_t index) const {
    return {region_.first_page + layout_.StartOf(index) / kPageBytes,
            layout_.BytesOf(index) / kPageBytes};
  }

  Encoded* TakeFree() {
    std::unique_lock lock(mutex_);
    freed_.wait(lock, [this] { return !free_.empty() || error_; });
    if (error_) return nullptr;
    Encoded* const buffer = free_.back();
    free_.pop_back();
    return buffer;
  }

  std::optional<Claim> Next() {
    if (cancelled_()) {
      Fail({.code = ErrorCode::kAborted, .message = "save cancelled"});
      return std::nullopt;
    }
    const std::lock_guard lock(claim_mutex_);
    if (next_index_ == layout_.count()) return std::nullopt;
    const PageRun pages = PagesOf(next_index_);
    if (present_at_ < pages.end()) {
      const std::uint64_t limit = std::min(region_.pages().end(), pages.first + kQueryPages);
      present_at_ = finder_.NextPresent(region_, pages.first, limit);
    }
    return Claim{next_index_++, present_at_ >= pages.end()};
  }

  void Submit(std::uint64_t index, Encoded* buffer) {
    std::vector<Encoded*> placed;
    {
      const std::lock_guard lock(mutex_);
      done_.emplace(index, buffer);
      for (auto first = done_.begin(); first != done_.end() && first->first == members_.size();
           first = done_.erase(first)) {
        Encoded* const next = first->second;
        next->offset = file_bytes_;
        file_bytes_ += next->size;
        members_.push_back({static_cast<std::uint32_t>(next->size), next->digest});
        placed.push_back(next);
      }
    }
    for (Encoded* const next : placed) {
      Status status = output_.Write(next->offset, {next->bytes.data(), next->size});
      if (!status.ok()) return Fail(std::move(status.error()));
      const std::lock_guard lock(mutex_);
      free_.push_back(next);
      freed_.notify_one();
    }
  }

  void Fail(Error error) {
    const std::lock_guard lock(mutex_);
    if (!error_) error_ = std::move(error);
    freed_.notify_all();
  }

  const GuestMemory& memory_;
  const Region& region_;
  const SlabOutput& output_;
  const MemberLayout layout_;
  const unsigned threads_;
  const std::function<bool()>& cancelled_;
  const PresenceFinder finder_;
  const std::size_t member_bytes_;
  std::atomic<std::uint64_t>* const pages_done_;

  std::mutex claim_mutex_;
  std::uint64_t next_index_ = 0;
  std::uint64_t present_at_ = 0;  // no page is present between what was claimed and this one

  std::mutex zero_mutex_;
  std::map<std::size_t, Encoded> zero_members_;  // by their decoded bytes

  std::mutex mutex_;
  std::condition_variable freed_;
  std::vector<Encoded> buffers_;
  std::vector<Encoded*> free_;
  std::map<std::uint64_t, Encoded*> done_;  // encoded, and waiting for an earlier one
  std::vector<Member> members_;             // placed in the file
  std::uint64_t file_bytes_ = 0;
  std::optional<Error> error_;
};

}  // namespace

Result<std::vector<Member>> SaveRegion(const GuestMemory& memory, const Region& region,
                                       const SlabOutput& output, const SaveOptions& options,
                                       const std::function<bool()>& cancelled) {
  return RegionSave(memory, region, output, options, cancelled).Run();
}

}  // namespace chkpt::gzip

#include "core/parallel/load_pipeline.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace chkpt {
namespace {

// Zeroing used memory: at most this much in one job, so that it is shared among threads and can be
// cancelled.
constexpr std::uint64_t kZeroJobPages = (64u << 20) / kPageBytes;

// The members of a chain write different pages: what was fresh for the first is so for all.
std::vector<bool> FreshRegions(const GuestMemory& memory, ChainLoad* chain) {
  if (chain != nullptr && !chain->fresh.empty()) return chain->fresh;
  std::vector<bool> fresh;
  for (const Region& region : memory.regions()) fresh.push_back(region.fresh);
  if (chain != nullptr) chain->fresh = fresh;
  return fresh;
}

// A stream with a parent needs to know which pages it has, for those that equal one of them.
std::shared_ptr<ChainLoad> ChainOf(const LoadOptions& options, const GuestMemory& memory) {
  if (options.chain != nullptr || !options.position.has_parent()) return options.chain;
  return std::make_shared<ChainLoad>(memory.page_count());
}

// Differences need the pages themselves.
bool TakesDeltas(const LoadOptions& options) {
  return options.deltas && options.resolver == nullptr && options.digests == nullptr;
}

std::uint64_t ChunkOf(const PageFrame& frame) { return frame.header.arg0 / kChunkPages; }

}  // namespace

Result<std::unique_ptr<LoadPipeline>> LoadPipeline::Start(std::shared_ptr<GuestMemory> memory,
                                                          const LoadOptions& options,
                                                          std::function<void()> notify) {
  CHKPT_CHECK(options.threads >= 1);
  for (const Region& region : memory->regions()) {
    const bool describes_only = region.host == nullptr && region.fd < 0;
    if (!region.writable && !describes_only) {
      return Error{.code = ErrorCode::kPermission, .message = "guest memory is read-only"};
    }
  }
  const bool fits =
      (options.chain == nullptr || options.chain->page_count() == memory->page_count()) &&
      (options.digests == nullptr || options.digests->page_count() == memory->page_count());
  if (!fits) return Error{.code = ErrorCode::kFormat, .message = "pages of another memory"};
  LoadOptions chosen = options;
  // A buffer holds work for several threads: a job for each 2 MiB of guest memory.
  if (chosen.buffer_count == 0) chosen.buffer_count = chosen.threads / 8 + 2;
  if (chosen.buffer_count < 2) chosen.buffer_count = 2;
  if (chosen.read_bytes == 0 || chosen.read_bytes > kReadBytes) chosen.read_bytes = kReadBytes;
  if (chosen.buffers == nullptr) chosen.buffers = std::make_shared<BufferPool>();
  return std::unique_ptr<LoadPipeline>(
      new LoadPipeline(std::move(memory), chosen, std::move(notify)));
}

LoadPipeline::LoadPipeline(std::shared_ptr<GuestMemory> memory, const LoadOptions& options,
                           std::function<void()> notify)
    : memory_(std::move(memory)),
      options_(options),
      notify_(std::move(notify)),
      scanner_(*memory_, options.position, TakesDeltas(options)),
      chain_(ChainOf(options, *memory_)),
      fresh_(FreshRegions(*memory_, chain_.get())),
      buffers_(options.buffer_count),
      taken_(options.buffer_count, false),
      jobs_of_buffer_(options.buffer_count, 0),
      feeder_(notify_),
      threads_(notify_) {
  memory_->MarkUsed();
  for (std::size_t i = buffers_.size(); i-- > 0;) free_.push_back(i);
}

LoadPipeline::~LoadPipeline() {
  Cancel();
  Join();
  for (std::size_t i = 0; i < buffers_.size(); ++i) {
    if (buffers_[i] != nullptr && !taken_[i]) options_.buffers->GiveBack(std::move(buffers_[i]));
  }
}

// A thread that feeds starts workers: none is left behind those that were waited for.
bool LoadPipeline::AllDone() {
  const bool fed = feeder_.AllDone();
  return threads_.AllDone() && fed;
}

void LoadPipeline::Join() {
  feeder_.Join();
  threads_.Join();
}

Result<std::optional<std::size_t>> LoadPipeline::TakeBuffer() {
  std::size_t index = 0;
  {
    const std::lock_guard lock(mutex_);
    waiting_ = free_.empty();
    if (waiting_) return std::optional<std::size_t>();
    index = free_.back();
    free_.pop_back();
  }
  return Prepare(index);
}

Result<std::optional<std::size_t>> LoadPipeline::Prepare(std::size_t index) {
  std::shared_ptr<Buffer>& buffer = buffers_[index];
  if (buffer == nullptr || buffer->spoiled()) {
    auto taken = options_.buffers->Take(kHeadroomBytes + options_.read_bytes,
                                        memory_->page_count() >= kHugeBufferPages);
    if (!taken.ok()) {
      Return(index);
      return taken.error();
    }
    buffer = std::move(taken.value());
  }
  taken_[index] = true;
  return std::optional<std::size_t>(index);
}

std::uint8_t* LoadPipeline::ReadArea(std::size_t buffer) const {
  return buffers_[buffer]->data() + kHeadroomBytes;
}

void LoadPipeline::Return(std::size_t buffer) {
  taken_[buffer] = false;
  const std::lock_guard lock(mutex_);
  free_.push_back(buffer);
}

Result<LoadPipeline::Pushed> LoadPipeline::Push(std::size_t buffer, std::size_t read_bytes) {
  CHKPT_CHECK(read_bytes <= kReadBytes);
  taken_[buffer] = false;
  std::uint8_t* read_area = ReadArea(buffer);
  std::uint8_t* begin = read_area - carry_.size();
  if (!carry_.empty()) std::memcpy(begin, carry_.data(), carry_.size());
  const std::size_t bytes = carry_.size() + read_bytes;
  carry_.clear();
  ScanResult result = scanner_.Scan({begin, bytes});
  if (result.error) {
    // What was sound before it still runs: it may hold damage that comes first.
    Enqueue(buffer, std::move(result.frames));
    return *result.error;
  }
  Pushed pushed;
  pushed.digests = std::move(result.digests);
  pushed.ended = result.ended;
  const std::uint8_t* rest = begin + result.consumed_bytes;
  const std::size_t rest_bytes = bytes - result.consumed_bytes;
  if (result.ended) {
    pushed.leftover = rest;
    pushed.leftover_bytes = rest_bytes;
  } else {
    // Less than one frame: bounded by the headroom.
    carry_.assign(rest, rest + rest_bytes);
  }
  Enqueue(buffer, std::move(result.frames));
  return pushed;
}

// Frames of one 2 MiB chunk make one job, so that one thread populates one huge page.
void LoadPipeline::Enqueue(std::size_t buffer, std::vector<PageFrame> frames) {
  std::vector<std::unique_ptr<Job>> jobs;
  for (PageFrame& frame : frames) {
    PageFrame rest = frame;
    const bool zero_run = frame.header.type == static_cast<std::uint32_t>(FrameType::kZeroRun);
    const bool split = zero_run && !fresh_[memory_->RegionOfPage(frame.header.arg0)];
    do {
      PageFrame piece = rest;
      if (split) piece.header.arg1 = std::min<std::uint64_t>(rest.header.arg1, kZeroJobPages);
      if (jobs.empty() || split || ChunkOf(jobs.back()->frames.front()) != ChunkOf(piece)) {
        jobs.push_back(std::make_unique<Job>());
        jobs.back()->buffer = buffer;
        jobs.back()->first_page = piece.header.arg0;
      }
      jobs.back()->frames.push_back(piece);
      rest.header.arg0 += piece.header.arg1;
      rest.header.arg1 -= piece.header.arg1;
    } while (rest.header.arg1 != 0);
  }
  std::size_t open_jobs = 0;
  {
    const std::lock_guard lock(mutex_);
    jobs_of_buffer_[buffer] = static_cast<unsigned>(jobs.size());
    if (jobs.empty()) free_.push_back(buffer);
    for (auto& job : jobs) {
      job->id = next_id_++;
      in_flight_.push_back(std::move(job));
    }
    frontier_ = in_flight_.empty() ? kUnknown : in_flight_.front()->first_page;
    if (!cancelled_) open_jobs = in_flight_.size();
    work_arrived_.notify_all();
  }
  for (std::size_t i = threads_.count(); i < std::min<std::size_t>(open_jobs, options_.threads);
       ++i) {
    threads_.Start([this] { Work(); });
  }
}

Status LoadPipeline::PushEnd() {
  if (!carry_.empty()) {
    return Error{.code = ErrorCode::kTruncated,
                 .message = "stream ends inside a frame",
                 .frame = scanner_.position().sequence,
                 .offset = scanner_.position().offset};
  }
  if (scanner_.next_page() != memory_->page_count()) {
    return Error{.code = ErrorCode::kFormat,
                 .message = "memory context ends before all pages were seen",
                 .frame = scanner_.position().sequence,
                 .offset = scanner_.position().offset,
                 .page = scanner_.next_page()};
  }
  StopInput();
  return Ok();
}

void LoadPipeline::StopInput() {
  {
    const std::lock_guard lock(mutex_);
    input_ended_ = true;
    work_arrived_.notify_all();
  }
  notify_();
}

void LoadPipeline::Work() {
  const LoadTarget target{.has_parent = options_.position.has_parent(),
                          .chain = chain_.get(),
                          .resolver = options_.resolver.get(),
                          .digests = options_.digests.get(),
                          .placer = options_.placer.get(),
                          .fresh = &fresh_};
  auto loader = FrameLoader::Create(*memory_, target, options_.buffers);
  for (;;) {
    Job* job = nullptr;
    bool dropped = false;
    {
      std::unique_lock lock(mutex_);
      work_arrived_.wait(lock, [this] {
        return next_unclaimed_ < in_flight_.size() || input_ended_ || cancelled_;
      });
      if (cancelled_ || next_unclaimed_ == in_flight_.size()) return;
      job = in_flight_[next_unclaimed_++].get();
      dropped = job->id > failed_id_ && failed_id_ != kUnknown;
    }
    PageTotals totals;
    std::optional<Error> error;
    if (!dropped) {
      Status status = loader.ok() ? RunJob(*loader.value(), *job, &totals) : Status(loader.error());
      if (!status.ok()) error = std::move(status.error());
    }
    Complete(*job, totals, std::move(error));
  }
}

Status LoadPipeline::RunJob(FrameLoader& loader, const Job& job, PageTotals* totals) {
  for (const PageFrame& frame : job.frames) {
    if (cancelled_.load(std::memory_order_relaxed)) break;
    Status status =
        loader.Run(frame, [&](std::uint64_t page) { return WaitForPage(job, page); }, totals);
    if (!status.ok()) {
      Error error = std::move(status.error());
      error.frame = frame.place.sequence;
      error.offset = frame.place.offset;
      return error;
    }
  }
  return Ok();
}

// The oldest job never waits (everything before it is complete), so there is always progress.
bool LoadPipeline::WaitForPage(const Job& job, std::uint64_t page) {
  if (page >= job.first_page) return true;  // of this job, and before the page that asks
  std::unique_lock lock(mutex_);
  frontier_moved_.wait(lock, [&] { return page < frontier_ || cancelled_; });
  return !cancelled_;
}

void LoadPipeline::Complete(Job& job, const PageTotals& totals, std::optional<Error> error) {
  bool news = false;
  {
    const std::lock_guard lock(mutex_);
    totals_.Add(totals);
    if (error && job.id < failed_id_) {
      failed_id_ = job.id;
      error_ = std::move(error);
    }
    job.done = true;
    if (--jobs_of_buffer_[job.buffer] == 0) {
      free_.push_back(job.buffer);
      buffer_freed_.notify_one();
      news = std::exchange(waiting_, false);
    }
    while (!in_flight_.empty() && in_flight_.front()->done) {
      in_flight_.pop_front();
      --next_unclaimed_;
    }
    frontier_ = in_flight_.empty() ? kUnknown : in_flight_.front()->first_page;
    frontier_moved_.notify_all();
    news = news || (input_ended_ && in_flight_.empty()) || error_.has_value();
    if (error_) buffer_freed_.notify_one();
  }
  if (news) notify_();
}

LoadPipeline::Polled LoadPipeline::Poll() {
  const std::lock_guard lock(mutex_);
  // An error counts when everything before it is done: then it is the first one of the stream.
  if (error_ && (in_flight_.empty() || in_flight_.front()->id > failed_id_)) {
    return {.state = State::kFailed, .error = *error_};
  }
  if (cancelled_) {
    return {.state = State::kFailed,
            .error = {.code = ErrorCode::kAborted, .message = "load cancelled"}};
  }
  if (input_ended_ && in_flight_.empty()) return {.state = State::kFinished, .error = {}};
  return {.state = State::kPending, .error = {}};
}

void LoadPipeline::Cancel() {
  {
    const std::lock_guard lock(mutex_);
    if (input_ended_ && in_flight_.empty()) return;
    cancelled_ = true;
    work_arrived_.notify_all();
    frontier_moved_.notify_all();
    buffer_freed_.notify_all();
  }
  notify_();
}

PageTotals LoadPipeline::totals() const {
  const std::lock_guard lock(mutex_);
  return totals_;
}

}  // namespace chkpt

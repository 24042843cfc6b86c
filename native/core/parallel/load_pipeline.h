// LoadPipeline: bytes of a stream in, pages of guest memory out, verified and decoded on own
// threads.
//
//   acquire buffer ─► (caller reads into it) ─► Push: headers, order ─► jobs ─► payload digest ─►
//   decode into memory
//
// Read buffers are page-aligned: reads of files and sockets into them run at full speed. A frame
// cut by the end of a buffer is carried to the front of the next one.
//
// Bounded memory: a fixed number of buffers; a buffer is free again when all its jobs are done.
// Buffers are mapped and threads started when they are first needed, so that a small checkpoint
// costs one of each. At the end of the pipeline the buffers that are not with the caller go back to
// the pool.
//
// Instead of reading and pushing, a caller may Feed a stretch of an open file: a thread then does
// both, and the caller hears every 20 ms what was read.
//
// Errors: the one reported is that of the lowest frame, whatever the number of threads. Memory is
// then undefined.
//
// Thread safety: Push, PushEnd and TakeBuffer from one thread (the caller's), and not between Feed
// and a PollFed that says that it is over; the rest from any.
// `notify` is called from worker threads when a buffer became free after TakeBuffer had none, and
// when Poll has an end to tell.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "core/base/owned_fd.h"
#include "core/base/result.h"
#include "core/parallel/frame_loader.h"
#include "core/parallel/worker_threads.h"

namespace chkpt {

struct LoadOptions {
  StreamPosition position{};
  unsigned threads = 1;
  unsigned buffer_count = 0;  // 0: one for eight threads, and two
  // Of the read area of a buffer, up to LoadPipeline::kReadBytes; 0: that.
  std::size_t read_bytes = 0;
  // The chain that the stream is a member of, or null: a checkpoint alone (with a parent: to
  // verify).
  std::shared_ptr<ChainLoad> chain = nullptr;
  // A second read of a member: only the pages that it put off are filled.
  std::shared_ptr<const PageResolver> resolver = nullptr;
  // The memory holds what came before this stream, and DELTA_BLOCK frames change that.
  bool deltas = false;
  // Where the digests of pages go, for a memory that has no place for pages.
  std::shared_ptr<PageDigests> digests = nullptr;
  // Who puts pages in their place, for a memory whose guest runs.
  std::shared_ptr<PagePlacer> placer = nullptr;
  // Where read buffers and scratch come from and go back to. Null: a pool of its own.
  std::shared_ptr<BufferPool> buffers = nullptr;
};

class LoadPipeline {
 public:
  // Space in front of each buffer for a carried frame; what a caller reads starts behind it, on a
  // page.
  static constexpr std::size_t kHeadroomBytes = 1152u << 10;
  static constexpr std::size_t kReadBytes = 14u << 20;
  static_assert(kHeadroomBytes >= kFrameHeaderBytes + kFramePayloadBytesMax);
  static_assert(kHeadroomBytes % kPageBytes == 0);

  // Errors: kPermission (memory is read-only), kNoMemory.
  static Result<std::unique_ptr<LoadPipeline>> Start(std::shared_ptr<GuestMemory> memory,
                                                     const LoadOptions& options,
                                                     std::function<void()> notify);
  ~LoadPipeline();
  LoadPipeline(const LoadPipeline&) = delete;
  LoadPipeline& operator=(const LoadPipeline&) = delete;

  // A free buffer, or nothing. Error: kNoMemory.
  Result<std::optional<std::size_t>> TakeBuffer();
  // Of a taken buffer. Its read area starts at kHeadroomBytes and is read_bytes() long.
  const std::shared_ptr<Buffer>& buffer(std::size_t index) const { return buffers_[index]; }
  std::size_t buffer_count() const { return buffers_.size(); }
  std::size_t read_bytes() const { return options_.read_bytes; }

  struct Pushed {
    std::vector<std::uint64_t> digests;
    bool ended = false;
    std::size_t leftover_bytes =
        0;  // ended: bytes at the end of the read area that belong to the caller
    const std::uint8_t* leftover = nullptr;
  };
  // Hands back a taken buffer with `read_bytes` bytes in its read area. Errors: those of
  // FrameScanner.
  Result<Pushed> Push(std::size_t buffer, std::size_t read_bytes);
  // Hands back a taken buffer unused.
  void Return(std::size_t buffer);
  // What a thread has read and pushed since the last PollFed.
  struct Fed {
    std::vector<std::uint64_t> digests{};
    std::uint64_t bytes = 0;
    std::uint64_t pages = 0;  // seen so far
    // Guest memory or the stretch has ended, or the file, or reading failed, or `error` says why
    // not, or Poll does.
    bool over = false;
    bool ended = false;  // guest memory has
    std::vector<std::uint8_t> leftover{};
    std::optional<Error> error{};  // of Push
  };
  // Pushes the next `bytes` bytes of the file from `position` on, from a duplicate of the
  // descriptor. Error: it cannot be duplicated.
  Status Feed(int fd, std::uint64_t position, std::uint64_t bytes);
  // Reads up to `target.size()` bytes from `position` on into its start; how many. 0: the end, or
  // an error.
  using Reader = std::function<std::size_t(std::uint64_t position, std::span<std::uint8_t> target)>;
  // The same, with bytes that `read` gives, which a thread calls until PollFed says that it is
  // over.
  void Feed(Reader read, std::uint64_t position, std::uint64_t bytes);
  // Nothing: `notify` is called when there is something.
  std::optional<Fed> PollFed();

  // No more input. Errors: kTruncated (inside a frame), kFormat (pages missing).
  Status PushEnd();
  // No more input, whatever was seen: after an error of Push, so that Poll can tell whether an
  // earlier frame is damaged too.
  void StopInput();

  enum class State : std::uint8_t { kPending, kFinished, kFailed };
  struct Polled {
    State state = State::kPending;
    Error error;
  };
  // kFinished when PushEnd was called and every page is in place.
  Polled Poll();

  void Cancel();
  bool cancelled() const { return cancelled_; }
  // No thread touches guest memory any more. When false, `notify` is called once it is so.
  bool AllDone();
  // Waits for that. Called twice: returns at once.
  void Join();
  PageTotals totals() const;
  // Pages seen so far; same thread as Push.
  std::uint64_t next_page() const { return scanner_.next_page(); }
  // The BLOCK_INDEX frames pushed so far; same thread as Push.
  const std::vector<IndexGroup>& groups() const { return scanner_.groups(); }

 private:
  struct Job {
    std::uint64_t id = 0;
    std::size_t buffer = 0;
    std::uint64_t first_page = 0;
    std::vector<PageFrame> frames;
    bool done = false;
  };

  LoadPipeline(std::shared_ptr<GuestMemory> memory, const LoadOptions& options,
               std::function<void()> notify);
  void Work();
  std::uint8_t* ReadArea(std::size_t buffer) const;
  Result<std::optional<std::size_t>> Prepare(std::size_t buffer);
  void FeedFrom(const Reader& read, std::uint64_t position, std::uint64_t bytes);
  // Whether there may be more.
  bool FeedOne(const Reader& read, std::uint64_t position, std::uint64_t bytes, Fed* fed);
  std::optional<std::size_t> WaitForBuffer();
  void Tell(Fed fed);
  void Enqueue(std::size_t buffer, std::vector<PageFrame> frames);
  Status RunJob(FrameLoader& loader, const Job& job, PageTotals* totals);
  bool WaitForPage(const Job& job, std::uint64_t page);
  void Complete(Job& job, const PageTotals& totals, std::optional<Error> error);

  const std::shared_ptr<GuestMemory> memory_;
  const LoadOptions options_;
  const std::function<void()> notify_;
  FrameScanner scanner_;
  const std::shared_ptr<ChainLoad> chain_;  // null: every page is this stream's
  const std::vector<bool> fresh_;           // by region, as the load (of the chain) found it
  std::vector<std::uint8_t> carry_;
  std::vector<std::shared_ptr<Buffer>> buffers_;  // null until first used; the caller's or feeder's
  std::vector<bool> taken_;                       // with the caller or feeder, whose it is
  std::atomic<bool> cancelled_{false};

  mutable std::mutex mutex_;
  std::condition_variable work_arrived_;
  std::condition_variable frontier_moved_;
  std::vector<std::size_t> free_;
  std::vector<unsigned> jobs_of_buffer_;
  std::deque<std::unique_ptr<Job>> in_flight_;  // by id; the front is the oldest that is not done
  std::size_t next_unclaimed_ = 0;              // index into in_flight_
  std::uint64_t next_id_ = 0;
  std::uint64_t frontier_ = 0;  // pages below it are complete
  bool input_ended_ = false;
  bool waiting_ = false;  // TakeBuffer had none
  std::condition_variable buffer_freed_;
  Fed fed_;                  // not told yet
  bool fed_wanted_ = false;  // PollFed had nothing
  std::chrono::steady_clock::time_point told_{};
  std::uint64_t failed_id_ = kUnknown;
  std::optional<Error> error_;
  PageTotals totals_;

  WorkerThreads feeder_;
  WorkerThreads threads_;  // last: joined before anything they use is destroyed
};

}  // namespace chkpt

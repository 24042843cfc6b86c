// SavePipeline: guest memory in, slabs of finished frames out, in stream order, on own threads.
//
//   claim chunk ─► copy out + classify ─► (in order) equal pages ─► LZ4, digest ─► (in order)
//   headers ─► ready slabs
//
// Bounded memory: a worker takes a free slab before it claims a chunk, so the oldest claimed chunk
// always has one and a consumer that stops taking slabs stops the workers. Output does not depend
// on the number of threads.
//
// With an `output` workers write finished slabs there themselves, and the caller only hears what
// was written: about every 20 ms, however fast that is.
//
// Ownership: shares the GuestMemory; owns its threads and slabs. Slabs get their buffers when they
// are first used; at its end those that are not with the caller go back to the pool. Thread safety:
// all public methods from any thread. `notify` is called from worker threads after a Poll that had
// nothing, when there is something: an end, as many slabs as no worker will want soon, or whatever
// is ready when a worker finds no slab to fill. So a fast consumer is woken once for several slabs.
// It must not call back into the pipeline.
//
// Life: Start → Poll/Release … → Cancel (optional) → Join. Destructor cancels and joins.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include "core/base/result.h"
#include "core/parallel/chunk_encoder.h"
#include "core/parallel/delta_cache.h"
#include "core/parallel/frame_sequencer.h"
#include "core/parallel/slab_output.h"
#include "core/parallel/worker_threads.h"

namespace chkpt {

// Slabs beyond one per thread: those that wait for the consumer, and one to fill until it comes.
// More of them where a chunk is only copied, and a consumer is wanted many times as often; without
// the table of equal pages that takes no more memory.
inline constexpr unsigned kSpareSlabs = 4;
inline constexpr unsigned kSpareSlabsRaw = 12;
// Nobody but workers takes slabs: these are for chunks that wait for an earlier one.
inline constexpr unsigned kSpareSlabsOutput = 2;

// Frames of a chunk that may move to another slab: a copy of a few microseconds.
inline constexpr std::size_t kPackBytesMax = 64u << 10;

struct SaveOptions {
  StreamPosition position{};
  EncodeOptions encode{};
  unsigned threads = 1;
  unsigned slab_count = 0;  // 0: threads and kSpareSlabs, or kSpareSlabsRaw
  PagemapMethod presence = PagemapMethod::kScan;
  // With a parent: the pages that may differ from it; null: any page may. Read at Start only.
  std::shared_ptr<const DirtyBitmap> changed = nullptr;
  // Pages that are stored as zeros, whatever they hold; null: none. Read at Start only.
  std::shared_ptr<const DirtyBitmap> scrubbed = nullptr;
  // What pages were last known to be, with a parent its content: pages found equal are left to it.
  // Kept up to date while the save goes on; one that fails has noted what never came to pass.
  std::shared_ptr<PageDigests> digests = nullptr;
  // With a parent: pages that this cache has a version of go as their difference from it; the
  // reader has those versions in place. The round is the epoch. What becomes of frames then depends
  // on the order in which threads ask the cache for places.
  std::shared_ptr<DeltaCache> deltas = nullptr;
  // Frozen: the pages are encoded as they were then. It is thawed by the caller, when no thread is
  // left. Of the same memory.
  std::shared_ptr<WriteGuard> guard = nullptr;
  // Where workers write slabs; null: the caller takes them.
  std::shared_ptr<const SlabOutput> output = nullptr;
  // Where slabs, staging and tables come from and go back to. Null: a pool of its own.
  std::shared_ptr<BufferPool> buffers = nullptr;
};

class SavePipeline {
 public:
  static Result<std::unique_ptr<SavePipeline>> Start(std::shared_ptr<GuestMemory> memory,
                                                     const SaveOptions& options,
                                                     std::function<void()> notify);
  ~SavePipeline();
  SavePipeline(const SavePipeline&) = delete;
  SavePipeline& operator=(const SavePipeline&) = delete;

  // Frames in stream order that have left, or are about to leave, for the output.
  struct Written {
    std::uint64_t bytes = 0;
    std::uint64_t pages = 0;               // of the whole memory, done so far
    std::vector<std::uint64_t> digests{};  // header digests, one per frame
    std::vector<IndexGroup> groups{};
  };
  enum class State : std::uint8_t { kPending, kSlabs, kWritten, kFinished, kFailed };
  struct Polled {
    State state = State::kPending;
    std::vector<const Slab*> slabs{};  // kSlabs: all that are ready, the caller's until Release
    Written written{};                 // kWritten, with an output; all is there with kFinished
    Error error{};                     // kFailed; kAborted after Cancel
    bool output_failed = false;        // kFailed: it is the output's error
  };
  Polled Poll();
  void Release(std::span<const Slab* const> slabs);

  // Workers stop within one block (about 0.2 ms), one presence query or, with an output, one write
  // of a slab.
  void Cancel();
  // No thread touches guest memory any more. When false, `notify` is called once it is so.
  bool AllDone() { return threads_.AllDone(); }
  // Waits for that. Called twice: returns at once.
  void Join() { threads_.Join(); }

  // Complete once Poll returned kFinished.
  PageTotals totals() const;

 private:
  SavePipeline(std::shared_ptr<GuestMemory> memory, const SaveOptions& options,
               std::function<void()> notify);

  // A slab and where it goes, bytes from the start of the output.
  struct PlacedSlab {
    Slab* slab;
    std::uint64_t offset;
  };

  void Work(ChunkEncoder& encoder);
  Slab* TakeFreeSlab();
  Slab* WaitForFreeSlab();
  bool EncodeChunk(ChunkEncoder& encoder, EncodedChunk& chunk);
  bool WaitForDedupTurn(std::uint64_t order);
  void PassDedupTurn();
  void Submit(EncodedChunk chunk);
  void Append(Slab* slab);
  // With an output: what is ready but for a last slab that has room, or all of it.
  std::vector<PlacedSlab> TakeReady(bool all);
  // REQUIRES: mutex_ is not held.
  void WriteOut(const std::vector<PlacedSlab>& slabs);
  Polled PollWritten();
  // Whether a caller who waits is to be told; then it does not wait any more.
  bool HasNews();
  // Moves the frames of a small slab behind those of the ready one before it, if they fit: the
  // consumer is then not asked for each chunk that has a few pages. REQUIRES: mutex_ is held.
  static bool Pack(const Slab& slab, Slab& before);
  void Fail(Error error, bool of_output = false);

  const std::shared_ptr<GuestMemory> memory_;
  const SaveOptions options_;
  const std::function<void()> notify_;
  const std::vector<std::uint64_t> scrubbed_;  // words of options_.scrubbed
  const std::vector<std::uint64_t> changed_;   // words of options_.changed, and those
  const PresenceFinder finder_;
  ChunkCursor cursor_;
  std::unique_ptr<PageDedup> dedup_;
  std::vector<std::unique_ptr<ChunkEncoder>> encoders_;

  std::atomic<bool> cancelled_{false};

  mutable std::mutex mutex_;
  std::condition_variable slab_freed_;
  std::condition_variable turn_changed_;
  const std::size_t batch_;  // ready slabs that are worth a call of notify
  std::vector<Slab> slabs_;
  std::vector<Slab*> free_;
  std::vector<Slab*> ready_;
  // With an output.
  Written written_;                 // not told yet
  std::uint64_t ready_offset_ = 0;  // of the first of ready_
  unsigned writing_ = 0;            // slabs that are being written
  std::chrono::steady_clock::time_point told_{};
  // Encoded chunks by order % slab count; each claimed chunk holds a slab, so there is room for
  // all.
  std::vector<std::optional<EncodedChunk>> reorder_;
  std::uint64_t dedup_turn_ = 0;
  std::uint64_t append_turn_ = 0;
  bool appending_ = false;
  bool waiting_ = false;  // the last Poll had nothing
  bool finished_ = false;
  std::optional<Error> error_;
  bool output_failed_ = false;  // error_ is the output's
  FrameSequencer sequencer_;

  WorkerThreads threads_;  // last: joined before anything they use is destroyed
};

}  // namespace chkpt

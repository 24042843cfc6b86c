// LazyLoader: guest memory that is fetched from a checkpoint when it is touched, and in the
// background.
//
//   guest thread touches a missing page ─► userfaultfd ─► handler: read, verify, decode, put, wake
//                                          fill threads: recorded working set, then everything else
//
// Stages: Start reads and verifies the block indexes (kPreparing → kPrepared; the memory is
// untouched). Arm drops what is in memory and serves faults from then on (kServing). When all is
// there the memory is ordinary again and all frames are walked over (kResident).
//
// Damage (kFailed): a block that cannot be fetched is never zeros and never a guess. Who touches it
// sleeps in the kernel, and the owner is told. When the owner has taken note (the machine must not
// run any more) it calls Release: then such pages read as kDamagePattern, so that threads of the
// guest reach the place where they can be stopped; or, with `poison`, they are a SIGBUS. The
// owner's own thread is never held: it could not take note.
//
// Threads: `handler_threads` handlers, the first of which also prepares and arms; `fill_threads`
// that fill, the first of which also ends the load. None of them ever waits for the owner, unless
// a source does (BlockSource::asked_bytes). Then handlers fetch nothing: they queue what is wanted
// for kAskingThreads others, so that there is always one that serves what needs no answer. The
// owner's thread must not touch a missing page, since it is the one that would have to answer: it
// is let go at once, with kDamagePattern, and the load has failed (kUnsupported). IsHere says what
// it may touch.
//
// Locks: `mutex_` guards stage, error, lists; it is held for no system call. BlockStates and
// FillPlan have their own; nothing is locked while they are called.
//
// Ownership: holds the memory. At its end missing pages become zeros: whoever destroys a loader
// that is not resident must not let the guest run.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "core/base/result.h"
#include "core/lazy/block_decoder.h"
#include "core/lazy/block_layer.h"
#include "core/lazy/block_queue.h"
#include "core/lazy/block_source.h"
#include "core/lazy/block_states.h"
#include "core/lazy/fill_plan.h"
#include "core/lazy/userfault.h"
#include "core/memory/guest_memory.h"
#include "core/parallel/worker_threads.h"

namespace chkpt {

struct LazyOptions {
  unsigned handler_threads = 2;
  unsigned fill_threads = 2;
  std::uint64_t fill_bytes_per_second = 0;  // 0: as fast as it goes
  std::uint64_t fill_delay_ms = 0;          // the recorded set does not wait
  std::vector<std::uint32_t> replay = {};   // blocks of a recorded working set
  bool poison = false;
  bool walk = true;                // of the newest layer, when all is there
  std::uint32_t owner_thread = 0;  // kernel's id of the thread that is told; 0: none
};

class LazyLoader {
 public:
  enum class Stage : std::uint8_t { kPreparing, kPrepared, kArming, kServing, kResident, kFailed };
  struct Counts {
    std::uint64_t blocks = 0;        // that are not all zeros
    std::uint64_t missing = 0;       // of them
    std::uint64_t faults = 0;        // messages served
    std::uint64_t fault_blocks = 0;  // blocks that a fault brought
  };
  // Blocks that are fetched for faults at the same time, of sources that ask their owner.
  static constexpr unsigned kAskingThreads = 8;
  // Every byte of a page that could not be fetched, after Release.
  static constexpr std::uint8_t kDamagePattern = 0xbd;

  // Null when the memory can be lazy; else why not.
  static const char* WhyNot(const GuestMemory& memory);

  // REQUIRES: layers not empty, newest first. Errors: kUnsupported, kPermission.
  static Result<std::unique_ptr<LazyLoader>> Start(std::shared_ptr<GuestMemory> memory,
                                                   std::vector<LazyLayer> layers,
                                                   LazyOptions options,
                                                   std::function<void()> notify);
  ~LazyLoader();
  LazyLoader(const LazyLoader&) = delete;
  LazyLoader& operator=(const LazyLoader&) = delete;

  Stage stage() const;
  Error error() const;  // REQUIRES: kFailed
  Counts counts() const;
  // Header digests of all frames of the newest layer. REQUIRES: kResident.
  std::span<const std::uint64_t> digests() const { return digests_; }
  // Blocks in the order in which the guest first asked for them.
  std::vector<std::uint32_t> WorkingSet() const;

  // Brings blocks for somebody who asks by call, on a thread of his own: one for each thread.
  // REQUIRES: kServing was reached; the loader outlives it.
  class Fetcher {
   public:
    explicit Fetcher(LazyLoader& loader)
        : loader_(loader),
          decoder_(loader.layers_, loader.layout_, loader.cancelled_),
          buffer_(new std::uint8_t[kBlockBytes]) {}
    // Returns when the block is there (kPresent), cannot be (kDamaged), or the load has ended
    // without it (kAbsent). REQUIRES: not IsZero(block).
    BlockStates::State Require(std::uint64_t block);

   private:
    LazyLoader& loader_;
    BlockDecoder decoder_;
    const std::unique_ptr<std::uint8_t[]> buffer_;
  };
  // Whether the block is all zeros: such a block never becomes present. REQUIRES: kPrepared.
  bool IsZero(std::uint64_t block) const { return BlockDecoder::IsZero(layers_, block); }
  const BlockLayout& layout() const { return layout_; }
  // Whether the owner's thread may touch the range: nothing of it has to be fetched. REQUIRES:
  // kPrepared was reached.
  bool IsHere(std::uint64_t address, std::uint64_t bytes) const;
  // Somebody is going to touch the range: what has to be asked for is, at once. REQUIRES: the same.
  void Want(std::uint64_t address, std::uint64_t bytes);

  // From now on memory belongs to the loader. REQUIRES: kPrepared; the guest stands still.
  void Arm();
  // Ends the load as damage does; nothing when it has ended.
  void Fail(Error error);
  // The owner has taken note of the failure.
  void Release();
  // The owner goes away: nobody waits from now on, neither for pages nor for bytes.
  void LetGo();
  bool is_cancelled() const { return cancelled_; }
  // Ends all threads. Missing pages become zeros.
  void Cancel();
  bool AllDone() { return threads_.AllDone(); }
  void Join() { threads_.Join(); }

 private:
  struct Scratch;
  LazyLoader(std::shared_ptr<GuestMemory> memory, std::unique_ptr<Userfault> userfault,
             std::vector<LazyLayer> layers, LazyOptions options, std::function<void()> notify);

  void Control();
  Status Prepare();
  Status RegisterAll();
  Status TakeMemory();
  bool StopAsked() const { return cancelled_.load(std::memory_order_acquire); }
  bool SetStage(Stage stage);
  bool WaitForStage(Stage stage);

  void Serve();
  void ServeFault(const Userfault::Fault& fault, BlockDecoder& decoder, std::uint8_t* buffer);
  void BringQueued();
  // `visit(block)` for those with pages in the range, until it returns false.
  template <typename Visit>
  void ForEachBlock(std::uint64_t address, std::uint64_t bytes, Visit visit) const;
  void HoldBlock(std::uint64_t block);
  void Quarantine(std::uint64_t block);
  void PutPattern(std::uint64_t block);
  void NoteFault(std::uint64_t block);

  void Fill(bool is_first);
  bool WaitToFill(FillPlan::Clock::time_point until);
  void FillBlocks(const std::vector<std::uint64_t>& blocks, Scratch& scratch);
  bool IsHugePage(const std::vector<std::uint64_t>& blocks) const;
  void ReadClaimed(Scratch& scratch);
  void PutClaimed(std::uint8_t* host, bool is_whole, Scratch& scratch);
  void End();

  // Decodes one claimed block and puts it in its place.
  void Bring(std::uint64_t block, BlockDecoder& decoder, std::uint8_t* buffer);
  void Arrived(std::uint64_t block);
  void Damaged(std::uint64_t block, Error error);
  std::uint8_t* HostOf(std::uint64_t block) const;
  std::uint64_t BytesOf(std::uint64_t block) const;

  const std::shared_ptr<GuestMemory> memory_;
  std::vector<LazyLayer> sources_;
  const LazyOptions options_;
  const std::function<void()> notify_;
  const std::unique_ptr<Userfault> userfault_;
  const BlockLayout layout_;
  const bool asks_owner_;      // a source does
  std::vector<Layer> layers_;  // after Prepare
  BlockStates states_;
  BlockQueue queue_;              // of asks_owner_
  std::vector<FrameNote> notes_;  // by block, of asks_owner_ and walk
  FillPlan plan_;
  std::vector<std::uint64_t> digests_;
  int stop_fd_ = -1;  // readable: handlers end

  std::atomic<bool> cancelled_{false};
  std::atomic<bool> released_{false};
  std::atomic<std::uint64_t> blocks_{0};
  std::atomic<std::uint64_t> missing_{0};
  std::atomic<std::uint64_t> faults_{0};
  std::atomic<std::uint64_t> fault_blocks_{0};
  std::atomic<std::uint64_t> owner_block_{kUnknown};
  std::atomic<std::int64_t> last_fault_{0};  // ticks of FillPlan::Clock

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  Stage stage_ = Stage::kPreparing;
  Error error_;
  std::vector<std::uint64_t> damaged_;
  std::vector<std::uint32_t> working_set_;

  WorkerThreads threads_;  // last: they use everything above
};

}  // namespace chkpt

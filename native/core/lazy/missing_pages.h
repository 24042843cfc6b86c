// MissingPages: pages of a guest memory that somebody else still has, while the guest runs here
// (post-copy). Who touches one sleeps in the kernel until it is put there; which ones are wanted is
// told to the owner, who asks for them.
//
//   guest thread touches a missing page ─► userfaultfd ─► handler: wanted ─► owner asks ─► Place
//
//   missing ──claimed by a Place──► being placed ──► here
//
// A page is placed once: whatever comes again, of an older connection or because it was asked for
// twice, is left alone, so that nothing overwrites what the guest has written since.
//
// Failure: pages that will never come are never zeros. Who touches one sleeps until the owner, who
// has made sure that the guest is stopped, calls Release; then they read as kDamagePattern.
//
// Threads: one handler. Its owner's thread must not touch a missing page: it is the one that would
// have to fetch it. It is let go at once, with the pattern, and the load has failed.
//
// Ownership: holds the memory. At its end the memory is ordinary again, and missing pages become
// zeros: whoever destroys one that is not complete must not let the guest run.
//
// Thread safety: all of it from any thread; Release when no Place is under way.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <unordered_map>
#include <vector>

#include "core/base/result.h"
#include "core/bitmap/dirty_bitmap.h"
#include "core/lazy/page_run.h"
#include "core/lazy/userfault.h"
#include "core/memory/guest_memory.h"
#include "core/parallel/page_placer.h"
#include "core/parallel/worker_threads.h"

namespace chkpt {

class MissingPages final : public PagePlacer {
 public:
  // Takes what is in these pages out of the memory, on a thread, and watches over it from when
  // started() is true; error() says why it never will be: then the pages may be gone. The guest
  // stands still until then. Errors: kUnsupported (this memory cannot), kPermission.
  // REQUIRES: missing.page_count() == memory->page_count().
  static Result<std::unique_ptr<MissingPages>> Start(std::shared_ptr<GuestMemory> memory,
                                                     const DirtyBitmap& missing,
                                                     std::uint32_t owner_thread,
                                                     std::function<void()> notify);
  ~MissingPages() override;
  MissingPages(const MissingPages&) = delete;
  MissingPages& operator=(const MissingPages&) = delete;

  // Pages that are not here yet.
  std::uint64_t left() const { return left_.load(std::memory_order_acquire); }
  std::uint64_t fault_count() const { return faults_.load(std::memory_order_relaxed); }
  // How long threads have waited for a page until it was in its place, microseconds: the first
  // kWaitsMax, as they came.
  static constexpr std::size_t kWaitsMax = 1u << 16;
  std::vector<std::uint32_t> waits() const;
  // Pages that a thread waits for and that were not told yet, each once.
  std::vector<std::uint64_t> TakeWanted();
  // Whatever was told and has not come is told again: those who were asked may not have heard.
  void WantAgain();

  // See PagePlacer. Pages that are not missing are left alone.
  Status Place(PageRun run, const std::uint8_t* bytes) override;
  Status PlaceZero(PageRun run) override;
  // As PlacePageRun.
  Status PlaceRun(std::span<const std::uint8_t> bytes) {
    return PlacePageRun(bytes, *memory_, *this);
  }

  // Ends it as an error does.
  void Fail(Error error);
  bool started() const { return started_.load(std::memory_order_acquire); }
  // Why it failed: kIo, kUnsupported; also when the owner's thread touched a missing page.
  std::optional<Error> error() const;
  // The guest is stopped: what is missing reads as LazyLoader::kDamagePattern from now on.
  void Release();

  bool is_cancelled() const { return stopped_; }
  void Cancel();
  bool AllDone() { return threads_.AllDone(); }
  void Join() { threads_.Join(); }

 private:
  using Clock = std::chrono::steady_clock;
  MissingPages(std::shared_ptr<GuestMemory> memory, std::unique_ptr<Userfault> userfault,
               std::uint32_t owner_thread, std::function<void()> notify);
  void Control();
  Status TakeOut();
  void Serve();
  void ServeFault(const Userfault::Fault& fault);
  void Want(std::uint64_t page);
  void NoteWaits(PageRun run);
  void PutPattern(std::uint64_t page);
  // Does `put(host, bytes)` for each stretch of `run` that nobody has claimed before.
  template <typename Put>
  Status PlaceClaimed(PageRun run, Put put);
  std::uint8_t* HostOf(std::uint64_t page) const;

  const std::shared_ptr<GuestMemory> memory_;
  const std::unique_ptr<Userfault> userfault_;
  const std::uint32_t owner_thread_;
  const std::function<void()> notify_;
  DirtyBitmap missing_;  // until they are in their place
  DirtyBitmap claimed_;  // of them: somebody places it
  DirtyBitmap told_;     // somebody waits for it, and the owner knows
  int stop_fd_ = -1;     // readable: the handler ends
  std::atomic<std::uint64_t> left_{0};
  std::atomic<std::uint64_t> faults_{0};
  std::atomic<bool> started_{false};
  std::atomic<bool> stopped_{false};
  std::atomic<bool> released_{false};

  mutable std::mutex mutex_;
  std::vector<std::uint64_t> wanted_;
  std::unordered_map<std::uint64_t, Clock::time_point> waiting_;  // since when, by page
  std::vector<std::uint32_t> waits_;
  std::optional<Error> error_;

  WorkerThreads threads_;  // last: they use everything above
};

}  // namespace chkpt

// SharedImage: the memory of one checkpoint, decoded once and shared by any number of clones.
//
//   image (memfd)  ◄── LazyLoader: working set, background fill, blocks that clones ask for
//      │ page cache
//   clone, clone, … (MAP_PRIVATE): a page that is in the image is mapped; one that is not faults to
//                   a thread of the image, which has it brought and wakes whoever waits
//
// Pages get into the image by UFFDIO_COPY only, whole and at once: no clone sees a page that is
// half there. For the same reason nobody else writes to the image, and it has no huge pages, which
// would be there before all of their blocks are. What a clone writes is its own.
//
// A block of zeros takes no memory: the clone maps the kernel's zero page.
//
// Damage: who touches a block that cannot be brought sleeps until the owner of that clone has taken
// note (Release), as LazyLoader has it; then the pages read as LazyLoader::kDamagePattern. The
// image itself never holds them.
//
// Ownership: clones keep the image; it outlives the last of them. Thread safety: all of it from any
// thread. No thread of the image keeps it, or a clone: none of them ever destroys it.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "core/base/result.h"
#include "core/lazy/lazy_loader.h"
#include "core/lazy/userfault.h"
#include "core/memory/guest_memory.h"
#include "core/parallel/worker_threads.h"

namespace chkpt {

class SharedImage : public std::enable_shared_from_this<SharedImage> {
 public:
  // Stages are those of loader(); Arm it when it is prepared. `options.poison` has no meaning here.
  // REQUIRES: layers not empty, newest first. Errors: kUnsupported, kPermission, kNoMemory.
  static Result<std::shared_ptr<SharedImage>> Start(std::span<const RegionSpec> regions,
                                                    std::vector<LazyLayer> layers,
                                                    LazyOptions options,
                                                    std::function<void()> notify);
  ~SharedImage();

  LazyLoader& loader() { return *loader_; }

  // Memory with the content of the checkpoint. `owner_thread` is not held by damage. Errors:
  // kUnsupported, kPermission, kNoMemory, kClosed.
  // REQUIRES: loader().stage() is kServing or later.
  Result<std::shared_ptr<GuestMemory>> Clone(std::uint32_t owner_thread);
  // The owner of the clone has taken note of damage, or does not run it: threads that sleep in it
  // go on, and none sleeps from now on.
  void Release(const GuestMemory& clone);
  // A guest is going to run in the clone: it sleeps before damage again until the next Release.
  void Hold(const GuestMemory& clone);

  // Ends all threads. What clones lack becomes zeros: their guests must not run.
  void Cancel();
  bool AllDone() { return threads_.AllDone() && loader_->AllDone(); }
  void Join();

 private:
  struct CloneRecord;
  class Keeper;
  SharedImage(std::shared_ptr<GuestMemory> memory, std::unique_ptr<LazyLoader> loader,
              unsigned threads, std::function<void()> notify);

  void Serve();
  void ServeFault(CloneRecord& clone, const Userfault::Fault& fault, LazyLoader::Fetcher& fetcher);
  void Quarantine(CloneRecord& clone, std::uint64_t block);
  std::shared_ptr<CloneRecord> Find(std::uint64_t id) const;
  std::shared_ptr<CloneRecord> FindOf(const GuestMemory& clone) const;
  void Forget(std::uint64_t id);

  const std::shared_ptr<GuestMemory> memory_;
  const std::unique_ptr<LazyLoader> loader_;
  const unsigned thread_count_;
  std::atomic<bool> cancelled_{false};
  int stop_fd_ = -1;
  int epoll_fd_ = -1;

  mutable std::mutex mutex_;
  std::map<std::uint64_t, std::shared_ptr<CloneRecord>> clones_;
  std::uint64_t next_id_ = 1;
  bool serving_ = false;

  WorkerThreads threads_;  // last: they use everything above
};

}  // namespace chkpt

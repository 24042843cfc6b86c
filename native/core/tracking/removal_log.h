// RemovalLog: which ranges of shared or hugetlb memory madvise has dropped, or is about to. There a
// dropped page comes back as a clean one, so the page table does not tell.
//
// The kernel tells before it drops, and madvise waits until it was heard: a thread of this log does
// nothing but hear. When the drop itself happens is not known, so a range is given again to all who
// ask within kGrace of the news, and at least to one who asked after.
//
// A log without a thread is told by who hears of removals anyway.
//
// Ownership: owns the thread. The WriteProtector must outlive it. Thread safety: any.
#pragma once

#include <chrono>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "core/tracking/write_protector.h"

namespace chkpt {

class RemovalLog {
 public:
  static constexpr std::chrono::seconds kGrace{5};

  // Errors: kIo (no descriptor left).
  static Result<std::unique_ptr<RemovalLog>> Start(WriteProtector* userfault);
  // Without a thread: Note tells.
  RemovalLog() : RemovalLog(nullptr, -1) {}
  // Afterwards a madvise would wait for ever: unregister the ranges first.
  ~RemovalLog();
  RemovalLog(const RemovalLog&) = delete;
  RemovalLog& operator=(const RemovalLog&) = delete;

  // To be called before madvise goes on.
  void Note(AddressRange range);

  // What may have been dropped since the last call.
  std::vector<AddressRange> Take();

 private:
  RemovalLog(WriteProtector* userfault, int stop_fd);
  void Hear();
  void DrainEvents();
  void Add(AddressRange range);  // REQUIRES: mutex_ is held

  struct Removal {
    AddressRange range;
    std::chrono::steady_clock::time_point told;
  };
  WriteProtector* const userfault_;
  const int stop_fd_;
  std::mutex mutex_;
  std::vector<Removal> removals_;
  std::thread thread_;
};

}  // namespace chkpt

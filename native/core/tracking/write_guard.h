// WriteGuard: a memory whose pages are write-protected, with threads that hear of every write
// before it happens. Between Freeze and Thaw it keeps the memory as it was at Freeze: a page that
// is about to be overwritten is copied aside first. So a guest runs on while its memory is encoded.
//
// A page of the frozen image is where it always was, unless Saved() gives its copy. Who encodes
// copies the page, asks Saved() *afterwards*, and takes that copy instead if there is one: it is
// made before the guest is let on. Release() then tells that the pages are done.
//
// The threads never wait for anybody but the kernel: what must be copied aside grows, and past the
// limit the snapshot is lost (kSnapshotLost), not the guest. It is also lost when madvise drops
// pages that were not encoded yet: the kernel lets go of them before they can be copied.
//
// Ownership: owns descriptor, registrations and threads; holds the memory. The destructor lets the
// guest write as it likes.
//
// Thread safety: Protect, Freeze and Thaw by one thread at a time, Freeze while the guest stands
// still; Saved and Release by any number of encoders between Freeze and Thaw.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <shared_mutex>
#include <span>
#include <thread>
#include <vector>

#include "core/base/result.h"
#include "core/bitmap/dirty_bitmap.h"
#include "core/memory/guest_memory.h"
#include "core/memory/pagemap.h"
#include "core/tracking/kept_pages.h"
#include "core/tracking/protected_range.h"
#include "core/tracking/write_protector.h"

namespace chkpt {

class WriteGuard {
 public:
  using Cancelled = std::function<bool()>;
  // Called by a thread of the guard before the pages go; must not touch guest memory.
  using OnRemoval = std::function<void(AddressRange)>;

  struct Options {
    // Protection stays after pages were encoded, and after Thaw: its owner tracks writes with it.
    bool keeps_protection = false;
    OnRemoval on_removal = nullptr;
  };
  // Registers the memory and lets all writes through. Errors: kUnsupported, kPermission, with the
  // reason; kIo. What Open would say of this memory, as far as it can be told without registering
  // it.
  static Status Check(const GuestMemory& memory);
  static Result<std::unique_ptr<WriteGuard>> Open(std::shared_ptr<GuestMemory> memory,
                                                  Options options);
  ~WriteGuard();
  WriteGuard(const WriteGuard&) = delete;
  WriteGuard& operator=(const WriteGuard&) = delete;

  // Protects every page, while the guest runs: what it writes from then on is what Freeze has to
  // look at. Errors: kAborted, kIo, kNoMemory.
  Status Protect(const Cancelled& cancelled);

  // Room for what is copied aside, at most `side_byte_count_max` at a time, for Freeze; what the
  // first copies need is touched, so that they wait for nothing. Made while the guest runs.
  // Error: kNoMemory.
  static Result<std::unique_ptr<KeptPages>> MakeRoom(const GuestMemory& memory,
                                                     std::uint64_t side_byte_count_max);

  // The image is what memory is now; of it the pages in `changed` are kept (null: all), copied
  // aside into `room`. Errors: kAborted, kIo, kSnapshotLost; kUnsupported when it is frozen
  // already. After the others Thaw is due. REQUIRES: Protect was done.
  Status Freeze(const DirtyBitmap* changed, std::unique_ptr<KeptPages> room,
                const Cancelled& cancelled);
  // No page is kept any more.
  void Thaw();

  // Of the frozen image, one bit for each page that may hold something else than zeros.
  std::span<const std::uint64_t> image() const { return image_; }
  // The copy of a page that was overwritten meanwhile, or null: then what was read of memory before
  // this call is the page.
  const std::uint8_t* Saved(std::uint64_t page) { return kept_->Saved(page); }
  // The pages were copied out: nobody asks for them again. Error: kSnapshotLost, and what was
  // copied is not to be used.
  Status Release(PageRun pages);

  struct Counts {
    std::uint64_t faults = 0;           // writes that waited
    std::uint64_t saved_pages = 0;      // copied aside
    std::uint64_t side_bytes_peak = 0;  // held at one time
  };
  Counts counts() const;
  WriteProtector* protector() { return &protector_; }
  const std::shared_ptr<GuestMemory>& memory() const { return memory_; }

 private:
  struct Range {
    const Region* region = nullptr;
    ProtectedRange::Kind kind = ProtectedRange::Kind::kPrivate;
    AddressRange addresses;
    std::uint64_t host_page = 0;  // bytes: what one fault is for
  };
  enum class State : int { kOpen, kFrozen, kLost };

  WriteGuard(std::shared_ptr<GuestMemory> memory, Options options, WriteProtector protector,
             int pagemap_fd, int stop_fd);
  Status Register();
  void Serve();
  bool Hear(std::vector<std::uint64_t>* waiting);
  void HearRemoval(AddressRange removed);
  bool ServeFault(std::uint64_t address);
  void Lose(std::string why, std::uint64_t page);
  // Pages that Freeze cannot leave to faults.
  struct Unprotected {
    std::vector<PageRun> written;     // since Protect
    std::vector<std::uint64_t> torn;  // a part of them is absent, and comes without a fault
  };
  Status FindImage(const Range& range, Unprotected* found, const Cancelled& cancelled);
  Status FindImageIn(const Range& range, AddressRange part, Unprotected* found,
                     const Cancelled& cancelled);
  Status SetAside(const Unprotected& found);
  Status ProtectSpans(const std::vector<PageRun>& written);
  AddressRange InnerAddresses(PageRun pages) const;
  const Range& RangeOfPage(std::uint64_t page) const;

  const std::shared_ptr<GuestMemory> memory_;
  const Options options_;
  WriteProtector protector_;
  const int pagemap_fd_;
  const int stop_fd_;
  std::vector<Range> ranges_;

  // Held shared by a thread that serves a fault, and alone by who changes what is kept.
  std::shared_mutex serving_;
  // Held from before a removal is heard until what it means is known: madvise goes on when it is
  // heard.
  std::mutex news_;
  std::atomic<int> state_{static_cast<int>(State::kOpen)};
  std::optional<Error> lost_;         // guarded by news_
  std::vector<std::uint64_t> image_;  // changed by Freeze only
  std::unique_ptr<KeptPages> kept_;   // of the frozen image; null before Freeze and after Thaw
  std::atomic<std::uint64_t> faults_{0};
  Counts last_;  // of the snapshot before

  std::vector<std::thread> threads_;  // last
};

}  // namespace chkpt

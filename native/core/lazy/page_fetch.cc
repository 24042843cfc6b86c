#include "core/lazy/page_fetch.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

#include "core/memory/presence.h"

namespace chkpt {
namespace {

// Pieces that a thread takes at a time.
constexpr std::size_t kPiecesAtOnce = 8;

std::uint32_t AllPages(std::uint64_t count) { return (std::uint32_t{1} << count) - 1; }

// The bits of pages `run`, at most 16, the first one lowest.
std::uint32_t BitsOf(std::span<const std::uint64_t> words, PageRun run) {
  const std::size_t word = static_cast<std::size_t>(run.first / 64);
  const unsigned shift = static_cast<unsigned>(run.first % 64);
  std::uint64_t bits = words[word] >> shift;
  if (shift + run.count > 64) bits |= words[word + 1] << (64 - shift);
  return static_cast<std::uint32_t>(bits) & AllPages(run.count);
}

}  // namespace

PageFetch::PageFetch(std::shared_ptr<GuestMemory> memory,
                     std::vector<std::shared_ptr<const BlockLayer>> layers)
    : memory_(std::move(memory)), shared_(std::move(layers)), layout_(memory_->regions()) {
  for (const auto& layer : shared_) layers_.push_back(layer->layer());
}

void PageFetch::MarkContent(DirtyBitmap* pages) const {
  for (const auto& layer : shared_) layer->MarkHeld(pages);
  const PresenceFinder finder;
  std::vector<PageRun> runs;
  for (const Region& region : memory_->regions()) {
    finder.PresentRuns(region, region.pages(), &runs);
    for (const PageRun& run : runs) pages->MarkRun(run);
  }
}

std::vector<PageFetch::Piece> PageFetch::PiecesOf(const DirtyBitmap& pages) const {
  std::vector<std::uint64_t> words(pages.word_count());
  pages.Copy(words);
  std::vector<Piece> pieces;
  RunIterator runs(words, pages.page_count());
  std::uint64_t next_page = 0;
  for (PageRun run; runs.Next(&run);) {
    for (std::uint64_t page = std::max(run.first, next_page); page < run.end();) {
      const std::uint64_t block = layout_.BlockOf(page);
      const PageRun all = layout_.PagesOf(block);
      pieces.push_back({block, BitsOf(words, all)});
      page = next_page = all.end();
    }
  }
  return pieces;
}

// One thread of a Run.
class PageFetch::Worker {
 public:
  Worker(PageFetch& fetch, const std::atomic<bool>& stop)
      : fetch_(fetch),
        decoder_(fetch.layers_, fetch.layout_, stop),
        wanted_(new std::uint8_t[kBlockBytes]),
        present_(new std::uint8_t[kBlockBytes]) {}

  const FetchCounts& counts() const { return counts_; }

  Status Do(const Piece& piece) {
    const PageRun pages = fetch_.layout_.PagesOf(piece.block);
    const bool is_zero = BlockDecoder::IsZero(fetch_.layers_, piece.block);
    if (is_zero) {
      std::memset(wanted_.get(), 0, kBlockBytes);
    } else {
      Status decoded = decoder_.DecodePages(piece.block, piece.wanted, wanted_.get());
      if (!decoded.ok()) return decoded;
    }
    ++counts_.blocks;
    for (std::uint32_t left = piece.wanted; left != 0;) {
      const unsigned first = static_cast<unsigned>(std::countr_zero(left));
      const unsigned count = static_cast<unsigned>(std::countr_one(left >> first));
      left &= ~(AllPages(count) << first);
      Status put = Put(pages.first, first, count, is_zero);
      if (!put.ok()) return put;
    }
    return Ok();
  }

 private:
  // Compares and writes pages `first` to `first + count - 1` of the block that starts at `base`.
  Status Put(std::uint64_t base, std::size_t first, std::size_t count, bool is_zero) {
    counts_.pages += count;
    std::uint8_t* const present = present_.get() + first * kPageBytes;
    Status read = fetch_.memory_->CopyOut({base + first, count}, present);
    if (!read.ok()) return read;
    for (std::size_t page = first; page < first + count;) {
      if (IsSame(page)) {
        ++page;
        continue;
      }
      std::size_t end = page + 1;
      while (end < first + count && !IsSame(end)) ++end;
      const PageRun run{base + page, end - page};
      // What is all zeros need not take memory.
      Status written = is_zero && run.count == kBlockPages
                           ? fetch_.memory_->Zero(run)
                           : fetch_.memory_->CopyIn(run, wanted_.get() + page * kPageBytes);
      if (!written.ok()) return written;
      counts_.written += run.count;
      page = end;
    }
    return Ok();
  }

  bool IsSame(std::size_t page) const {
    const std::size_t at = page * kPageBytes;
    return std::memcmp(present_.get() + at, wanted_.get() + at, kPageBytes) == 0;
  }

  PageFetch& fetch_;
  BlockDecoder decoder_;
  const std::unique_ptr<std::uint8_t[]> wanted_;   // a block, each page in its place
  const std::unique_ptr<std::uint8_t[]> present_;  // the same of memory
  FetchCounts counts_;
};

Result<FetchCounts> PageFetch::Run(const DirtyBitmap& pages, unsigned threads,
                                   const std::function<bool()>& cancelled,
                                   std::atomic<std::uint64_t>* progress) {
  const std::vector<Piece> pieces = PiecesOf(pages);
  if (!pieces.empty()) memory_->MarkUsed();
  std::mutex mutex;
  FetchCounts total;
  std::optional<Error> error;
  std::atomic<std::size_t> next{0};
  std::atomic<bool> stop{false};
  const auto work = [&] {
    Worker worker(*this, stop);
    Status status = Ok();
    while (status.ok() && !stop) {
      if (cancelled()) break;
      const std::size_t first = next.fetch_add(kPiecesAtOnce);
      const std::size_t end = std::min(first + kPiecesAtOnce, pieces.size());
      if (first >= end) break;
      const std::uint64_t before = worker.counts().pages;
      for (std::size_t i = first; i < end && status.ok(); ++i) status = worker.Do(pieces[i]);
      if (progress != nullptr) *progress += worker.counts().pages - before;
    }
    const std::lock_guard lock(mutex);
    total.pages += worker.counts().pages;
    total.written += worker.counts().written;
    total.blocks += worker.counts().blocks;
    if (status.ok()) return;
    stop = true;
    // Those that were stopped in the middle have nothing to tell.
    if (!error || error->code == ErrorCode::kAborted) error = std::move(status.error());
  };
  const std::size_t useful = (pieces.size() + kPiecesAtOnce - 1) / kPiecesAtOnce;
  std::vector<std::thread> workers;
  for (std::size_t i = 1; i < std::min<std::size_t>(threads, useful); ++i) {
    workers.emplace_back(work);
  }
  work();
  for (std::thread& worker : workers) worker.join();
  if (!error && cancelled()) return Error{.code = ErrorCode::kAborted, .message = "load cancelled"};
  if (error) return *error;
  return total;
}

}  // namespace chkpt

#include "core/bench/baselines.h"

#include <lz4.h>
#include <sys/uio.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <thread>

#include "core/base/bytes.h"
#include "core/codec/page_block.h"
#include "core/format/frame.h"
#include "core/memory/mapping.h"
#include "core/scan/page_kernels.h"

// gcc only; clang takes the level of the build.
#if defined(__clang__)
#define CHKPT_OPTIMIZE_O3
#else
#define CHKPT_OPTIMIZE_O3 __attribute__((optimize("O3")))
#endif

namespace chkpt {
namespace {

class Stopwatch {
 public:
  double seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count();
  }

 private:
  const std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
};

template <typename Work>
double RunThreads(unsigned threads, const Work& work) {
  const Stopwatch watch;
  std::vector<std::thread> workers;
  for (unsigned i = 1; i < threads; ++i) workers.emplace_back([&work, i] { work(i); });
  work(0);
  for (std::thread& worker : workers) worker.join();
  return watch.seconds();
}

// Calls `work(pages, page_count)` for pieces of 2 MiB of all mapped regions, from one counter.
template <typename Work>
Measured OverChunks(const GuestMemory& memory, unsigned threads, const Work& work) {
  struct Piece {
    const std::uint8_t* pages;
    std::size_t count;
  };
  std::vector<Piece> pieces;
  Measured measured;
  for (const Region& region : memory.regions()) {
    if (region.host == nullptr) continue;
    for (std::uint64_t page = 0; page < region.page_count(); page += kChunkPages) {
      const std::size_t count = std::min<std::uint64_t>(kChunkPages, region.page_count() - page);
      pieces.push_back({region.host + page * kPageBytes, count});
      measured.bytes += count * kPageBytes;
    }
  }
  std::atomic<std::size_t> next{0};
  std::atomic<std::uint64_t> total{0};
  measured.seconds = RunThreads(threads, [&](unsigned) {
    std::uint64_t sum = 0;
    for (std::size_t i = next++; i < pieces.size(); i = next++) {
      sum += work(pieces[i].pages, pieces[i].count);
    }
    total += sum;
  });
  measured.result = total;
  return measured;
}

// Four words in one register where there is AVX2, two registers elsewhere.
using WordVector = std::uint64_t __attribute__((vector_size(32), aligned(1), may_alias));

// Independent sums of vectors, so that memory is the limit and not one chain of additions. (GCC 12
// makes spills of the same loop over plain words: a third of the speed.) Twice the same body: gyp
// has no flags per file, and target_clones makes an ifunc that sanitizers do not survive.
inline __attribute__((always_inline)) std::uint64_t SumWordsBody(const std::uint8_t* bytes,
                                                                 std::size_t count) {
  WordVector a{}, b{}, c{}, d{};
  for (std::size_t i = 0; i < count; i += 4 * sizeof(WordVector)) {
    const auto* words = reinterpret_cast<const WordVector*>(bytes + i);
    a += words[0];
    b += words[1];
    c += words[2];
    d += words[3];
  }
  a += b + c + d;
  return a[0] + a[1] + a[2] + a[3];
}

std::uint64_t SumWordsPortable(const std::uint8_t* bytes, std::size_t count) {
  return SumWordsBody(bytes, count);
}

#if defined(__x86_64__)
__attribute__((target("avx2"))) CHKPT_OPTIMIZE_O3 std::uint64_t SumWordsAvx2(
    const std::uint8_t* bytes, std::size_t count) {
  return SumWordsBody(bytes, count);
}

bool HasAvx2() { return __builtin_cpu_supports("avx2"); }
#else
constexpr auto SumWordsAvx2 = SumWordsPortable;
bool HasAvx2() { return false; }
#endif

}  // namespace

Measured MeasureRead(const GuestMemory& memory, unsigned threads) {
  const auto sum = HasAvx2() ? SumWordsAvx2 : SumWordsPortable;
  return OverChunks(memory, threads, [sum](const std::uint8_t* pages, std::size_t count) {
    return sum(pages, count * kPageBytes);
  });
}

Measured MeasureZeroScan(const GuestMemory& memory, unsigned threads) {
  const PageKernels& kernels = BestPageKernels();
  return OverChunks(memory, threads, [&kernels](const std::uint8_t* pages, std::size_t count) {
    return std::uint64_t{kernels.count_zero(pages, count)};
  });
}

Result<Measured> MeasureCopy(const GuestMemory& memory, unsigned threads) {
  const PageKernels& kernels = BestPageKernels();
  std::vector<const std::uint8_t*> pages;
  for (const Region& region : memory.regions()) {
    if (region.host == nullptr) continue;
    for (std::uint64_t page = 0; page < region.page_count(); ++page) {
      const std::uint8_t* bytes = region.host + page * kPageBytes;
      std::uint64_t fill = 0;
      if (kernels.classify(bytes, &fill) != PageClass::kZero) pages.push_back(bytes);
    }
  }
  const std::size_t bytes = pages.size() * kPageBytes;
  if (bytes == 0) return Measured{};
  auto mapped = MapAnonymous(bytes, true);
  if (!mapped.ok()) return mapped.error();
  std::uint8_t* const target = mapped.value();
  std::memset(target, 1, bytes);
  std::atomic<std::size_t> next{0};
  Measured measured{.bytes = bytes};
  measured.seconds = RunThreads(threads, [&](unsigned) {
    for (std::size_t i = next.fetch_add(kChunkPages); i < pages.size();
         i = next.fetch_add(kChunkPages)) {
      const std::size_t end = std::min(i + kChunkPages, pages.size());
      for (std::size_t page = i; page < end; ++page) {
        std::memcpy(target + page * kPageBytes, pages[page], kPageBytes);
      }
    }
  });
  measured.result = Load<std::uint64_t>(target);
  Unmap(target, bytes);
  return measured;
}

Result<Measured> MeasurePalaciosRecords(const GuestMemory& memory, int fd) {
  constexpr char kTag[] = "memory_page";
  constexpr std::size_t kTagBytes = sizeof kTag - 1;
  std::uint8_t head[4 + 8 + kTagBytes + 8];
  Store<std::uint32_t>(head, 0xabcd0123);
  Store<std::uint64_t>(head + 4, kTagBytes);
  std::memcpy(head + 12, kTag, kTagBytes);
  Store<std::uint64_t>(head + 12 + kTagBytes, kPageBytes);
  Measured measured;
  const Stopwatch watch;
  for (const Region& region : memory.regions()) {
    for (std::uint64_t page = 0; region.host != nullptr && page < region.page_count(); ++page) {
      const iovec record[2] = {{head, sizeof head}, {region.host + page * kPageBytes, kPageBytes}};
      const ssize_t written = writev(fd, record, 2);
      if (written != static_cast<ssize_t>(sizeof head + kPageBytes)) {
        return SystemError(written < 0 ? errno : EIO, "cannot write a record");
      }
      measured.bytes += kPageBytes;
      measured.result += static_cast<std::uint64_t>(written);
    }
  }
  measured.seconds = watch.seconds();
  return measured;
}

Status StoredBlocks::Add(std::span<const std::uint8_t> frames) {
  std::size_t offset = 0;
  while (offset < frames.size()) {
    const std::uint8_t* frame = frames.data() + offset;
    const std::uint64_t payload_bytes = Load<std::uint64_t>(frame + 8);
    const auto type = static_cast<FrameType>(Load<std::uint32_t>(frame));
    if (type == FrameType::kPageBlock) {
      auto view =
          ParsePageBlock({frame + kFrameHeaderBytes, payload_bytes},
                         Load<std::uint64_t>(frame + 24), Load<std::uint64_t>(frame + 32), false);
      if (!view.ok()) return view.error();
      if (view.value().codec != BlockCodec::kRaw) {
        return Error{.code = ErrorCode::kFormat, .message = "baseline wants uncompressed blocks"};
      }
      const auto data = view.value().data;
      if (!data.empty()) {
        const std::uint64_t extent = Load<std::uint64_t>(frame + 24) / kChunkPages * kChunkBytes;
        const std::uint64_t end = blocks_.empty() ? 0 : blocks_.back().place + blocks_.back().bytes;
        blocks_.push_back({.offset = data_.size(),
                           .place = std::max(extent, end),
                           .bytes = static_cast<std::uint32_t>(data.size())});
        data_.insert(data_.end(), data.begin(), data.end());
      }
    }
    offset += kFrameHeaderBytes + Pad8(payload_bytes);
  }
  return Ok();
}

Measured StoredBlocks::Compress(unsigned threads, int acceleration) {
  const auto bound = static_cast<std::size_t>(LZ4_compressBound(kBlockBytes));
  // First pass, not timed: where each block's result is kept for Decode.
  Measured measured{.bytes = data_.size()};
  std::atomic<std::size_t> next{0};
  std::atomic<std::uint64_t> encoded_bytes{0};
  measured.seconds = RunThreads(threads, [&](unsigned) {
    std::vector<std::uint64_t> state(static_cast<std::size_t>(LZ4_sizeofState()) / 8 + 1);
    std::vector<char> target(bound);
    for (std::size_t i = next++; i < blocks_.size(); i = next++) {
      Block& block = blocks_[i];
      const int encoded = LZ4_compress_fast_extState(
          state.data(), reinterpret_cast<const char*>(data_.data() + block.offset), target.data(),
          static_cast<int>(block.bytes), static_cast<int>(bound), acceleration);
      block.encoded_bytes = static_cast<std::uint32_t>(encoded) < block.bytes
                                ? static_cast<std::uint32_t>(encoded)
                                : 0;
      encoded_bytes += block.encoded_bytes == 0 ? block.bytes : block.encoded_bytes;
    }
  });
  measured.result = encoded_bytes;
  if (!encoded_.empty()) return measured;
  std::uint64_t offset = 0;
  for (Block& block : blocks_) {
    block.encoded_offset = offset;
    offset += block.encoded_bytes == 0 ? block.bytes : block.encoded_bytes;
  }
  encoded_.resize(offset);
  std::vector<std::uint64_t> state(static_cast<std::size_t>(LZ4_sizeofState()) / 8 + 1);
  for (const Block& block : blocks_) {
    const auto* source = data_.data() + block.offset;
    if (block.encoded_bytes == 0) {
      std::memcpy(encoded_.data() + block.encoded_offset, source, block.bytes);
      continue;
    }
    LZ4_compress_fast_extState(state.data(), reinterpret_cast<const char*>(source),
                               reinterpret_cast<char*>(encoded_.data() + block.encoded_offset),
                               static_cast<int>(block.bytes), static_cast<int>(block.encoded_bytes),
                               acceleration);
  }
  return measured;
}

bool StoredBlocks::DecodeBlock(const Block& block, std::uint8_t* target) const {
  const std::uint8_t* source = encoded_.data() + block.encoded_offset;
  if (block.encoded_bytes == 0) {
    std::memcpy(target, source, block.bytes);
    return true;
  }
  return LZ4_decompress_safe(reinterpret_cast<const char*>(source), reinterpret_cast<char*>(target),
                             static_cast<int>(block.encoded_bytes),
                             static_cast<int>(block.bytes)) == static_cast<int>(block.bytes);
}

Result<Measured> StoredBlocks::Decode(unsigned threads, Layout layout) {
  const auto place = [layout](const Block& block) {
    return layout == Layout::kPacked ? block.offset : block.place;
  };
  // Blocks that begin in one extent are one thread's: it populates the huge page.
  std::vector<std::size_t> batches;
  for (std::size_t i = 0; i < blocks_.size(); ++i) {
    if (i == 0 || place(blocks_[i]) / kChunkBytes != place(blocks_[i - 1]) / kChunkBytes) {
      batches.push_back(i);
    }
  }
  batches.push_back(blocks_.size());
  const std::size_t bytes =
      blocks_.empty() ? kChunkBytes : place(blocks_.back()) + blocks_.back().bytes;
  const Stopwatch watch;
  auto mapped = MapAnonymous(bytes, true);
  if (!mapped.ok()) return mapped.error();
  std::uint8_t* const target = mapped.value();
  std::atomic<std::size_t> next{0};
  std::atomic<bool> failed{false};
  RunThreads(threads, [&](unsigned) {
    for (std::size_t batch = next++; batch + 1 < batches.size(); batch = next++) {
      for (std::size_t i = batches[batch]; i < batches[batch + 1]; ++i) {
        if (!DecodeBlock(blocks_[i], target + place(blocks_[i]))) failed = true;
      }
    }
  });
  Measured measured{.seconds = watch.seconds(), .bytes = data_.size()};
  bool equal = !failed;
  for (const Block& block : blocks_) {
    equal =
        equal && std::memcmp(target + place(block), data_.data() + block.offset, block.bytes) == 0;
  }
  measured.result = equal ? 1 : 0;
  Unmap(target, bytes);
  return measured;
}

Status WarmMemory(std::uint64_t bytes) {
  auto mapped = MapAnonymous(bytes, true);
  if (!mapped.ok()) return mapped.error();
  for (std::uint64_t offset = 0; offset < bytes; offset += kPageBytes) mapped.value()[offset] = 1;
  Unmap(mapped.value(), bytes);
  return Ok();
}

}  // namespace chkpt

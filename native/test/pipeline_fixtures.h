// What the suites of both pipelines share: memory of every kind of page, a whole save and a whole
// load.
#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <random>

#include "core/parallel/load_pipeline.h"
#include "core/parallel/save_pipeline.h"
#include "core/scan/memory_scan.h"

namespace chkpt {

// ThreadSanitizer makes everything ten times as slow: less of the same there.
#if defined(__SANITIZE_THREAD__)
inline constexpr int kThrift = 5;
#else
inline constexpr int kThrift = 1;
#endif

class Bell {
 public:
  std::function<void()> Ringer() {
    return [this] {
      const std::lock_guard lock(mutex_);
      rung_ = true;
      changed_.notify_all();
    };
  }
  void Wait() {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, std::chrono::seconds(30), [this] { return rung_; });
    rung_ = false;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool rung_ = false;
};

inline std::shared_ptr<GuestMemory> Allocate(std::vector<RegionSpec> specs,
                                             Backing backing = Backing::kAnonymous) {
  auto memory = GuestMemory::Allocate(specs, {.backing = backing});
  EXPECT_TRUE(memory.ok());
  return memory.value();
}

// Zero, fill, equal, compressible and random pages in a random mix, with untouched stretches.
inline void FillRandomly(GuestMemory& memory, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<std::uint8_t> common(kPageBytes, 0x5a);
  common[17] = 3;
  for (const Region& region : memory.regions()) {
    for (std::uint64_t page = 0; page < region.page_count();) {
      const std::uint64_t run =
          std::min<std::uint64_t>(1 + random() % 40, region.page_count() - page);
      const unsigned kind = static_cast<unsigned>(random() % 7);
      for (std::uint64_t i = page; i < page + run && kind != 0; ++i) {
        std::uint8_t* bytes = region.host + i * kPageBytes;
        if (kind == 1) std::memset(bytes, 0, kPageBytes);
        if (kind == 2) std::memset(bytes, static_cast<int>(random() % 255 + 1), kPageBytes);
        if (kind == 3) std::memcpy(bytes, common.data(), kPageBytes);
        if (kind == 4) {
          for (std::size_t b = 0; b < kPageBytes; ++b)
            bytes[b] = static_cast<std::uint8_t>(b * i >> 7);
        }
        if (kind >= 5) {
          for (std::size_t b = 0; b < kPageBytes; b += 8) {
            const std::uint64_t word = kind == 5 ? random() : random() & 0xff;
            std::memcpy(bytes + b, &word, 8);
          }
        }
      }
      page += run;
    }
  }
}

struct Saved {
  std::vector<std::uint8_t> stream;
  std::vector<std::uint64_t> digests;
  std::vector<IndexGroup> groups;
  PageTotals totals;
  std::uint64_t epoch = 0;
};

inline constexpr std::uint64_t kStartOffset = 4096;

inline StreamPosition Start(std::uint64_t epoch = 0) {
  StreamPosition position{.epoch = epoch, .sequence = 7, .offset = kStartOffset};
  for (std::size_t i = 0; i < 16; ++i) position.uuid[i] = static_cast<std::uint8_t>(i * 17);
  return position;
}

inline Result<Saved> Save(std::shared_ptr<GuestMemory> memory, SaveOptions options) {
  Bell bell;
  options.position = Start(options.position.epoch);
  auto pipeline = SavePipeline::Start(std::move(memory), options, bell.Ringer());
  if (!pipeline.ok()) return pipeline.error();
  Saved saved;
  saved.epoch = options.position.epoch;
  for (;;) {
    const SavePipeline::Polled polled = pipeline.value()->Poll();
    if (polled.state == SavePipeline::State::kPending) {
      bell.Wait();
    } else if (polled.state == SavePipeline::State::kSlabs) {
      for (const Slab* slab : polled.slabs) {
        saved.stream.insert(saved.stream.end(), slab->data + slab->begin,
                            slab->data + slab->begin + slab->bytes);
        saved.digests.insert(saved.digests.end(), slab->digests.begin(), slab->digests.end());
        saved.groups.insert(saved.groups.end(), slab->groups.begin(), slab->groups.end());
      }
      pipeline.value()->Release(polled.slabs);
    } else if (polled.state == SavePipeline::State::kFinished) {
      saved.totals = pipeline.value()->totals();
      return saved;
    } else {
      return polled.error;
    }
  }
}

// What follows guest memory in a stream: a CONTEXT_CLOSE.
inline void AppendForeignFrame(std::vector<std::uint8_t>* stream, StreamPosition position) {
  stream->resize(stream->size() + kFrameHeaderBytes);
  EncodeFrameHeader({.type = 2, .payload_digest = PayloadDigest({})}, position,
                    stream->data() + stream->size() - kFrameHeaderBytes);
}

// Lets the stream of a save end as LoadPipeline expects it.
inline void CloseStream(Saved* saved) {
  StreamPosition end = Start(saved->epoch);
  end.sequence += saved->digests.size();
  end.offset += saved->stream.size();
  AppendForeignFrame(&saved->stream, end);
}

struct Loaded {
  PageTotals totals;
  std::vector<std::uint64_t> digests;
  std::size_t leftover_bytes = 0;
};

inline Result<Loaded> Load(std::shared_ptr<GuestMemory> memory,
                           std::span<const std::uint8_t> stream, unsigned threads,
                           std::size_t piece_bytes, LoadOptions options = {}) {
  Bell bell;
  options.position = Start(options.position.epoch);
  options.threads = threads;
  auto started = LoadPipeline::Start(std::move(memory), options, bell.Ringer());
  if (!started.ok()) return started.error();
  LoadPipeline& pipeline = *started.value();
  Loaded loaded;
  std::optional<Error> push_error;
  bool ended = false;
  while (!ended && !push_error && !stream.empty()) {
    const auto taken = pipeline.TakeBuffer();
    if (!taken.ok()) return Error{};
    const std::optional<std::size_t> buffer = taken.value();
    if (!buffer) {
      bell.Wait();
      continue;
    }
    const std::size_t bytes = std::min({piece_bytes, stream.size(), LoadPipeline::kReadBytes});
    std::memcpy(pipeline.buffer(*buffer)->data() + LoadPipeline::kHeadroomBytes, stream.data(),
                bytes);
    stream = stream.subspan(bytes);
    auto pushed = pipeline.Push(*buffer, bytes);
    if (!pushed.ok()) {
      push_error = pushed.error();
      break;
    }
    loaded.digests.insert(loaded.digests.end(), pushed.value().digests.begin(),
                          pushed.value().digests.end());
    ended = pushed.value().ended;
    loaded.leftover_bytes = pushed.value().leftover_bytes;
  }
  if (!push_error) {
    Status end = pipeline.PushEnd();
    if (!end.ok()) push_error = end.error();
  }
  if (push_error) pipeline.StopInput();
  for (;;) {
    const LoadPipeline::Polled polled = pipeline.Poll();
    if (polled.state == LoadPipeline::State::kPending) {
      bell.Wait();
    } else if (polled.state == LoadPipeline::State::kFailed) {
      return polled.error;
    } else {
      break;
    }
  }
  if (push_error) return *push_error;
  loaded.totals = pipeline.totals();
  return loaded;
}

inline std::uint64_t DigestOf(const GuestMemory& memory) {
  const std::atomic<bool> cancelled{false};
  return DigestMemory(memory, 2, cancelled).value();
}

inline const std::vector<RegionSpec> kThreeRegions = {
    {0, 640 * 1024}, {0x100000, 7 * 1024 * 1024 + 20480}, {std::uint64_t{5} << 30, 24 << 20}};

}  // namespace chkpt

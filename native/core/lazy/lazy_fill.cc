// The background half of LazyLoader: fills what nobody has asked for yet, and ends the load.
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstring>

#include "core/lazy/frame_walk.h"
#include "core/lazy/lazy_loader.h"
#include "core/memory/mapping.h"

namespace chkpt {
namespace {

// The frame of a block is not longer; that of the last one of a read is read in full.
constexpr std::uint64_t kFrameBytesMax = kFrameHeaderBytes + kPageBlockPayloadBytesMax;
constexpr std::uint64_t kReadBytesMax = 2560u << 10;
// While the guest asks, blocks are filled one by one: a fault on one of them waits for one only.
constexpr auto kQuietTime = std::chrono::milliseconds(5);
constexpr int kNiceness = 5;

}  // namespace

// What one fill thread works with.
struct LazyLoader::Scratch {
  explicit Scratch(LazyLoader& loader)
      : decoder(loader.layers_, loader.layout_, loader.cancelled_) {
    Result<std::uint8_t*> mapped = MapAnonymous(kChunkBytes, true);
    if (mapped.ok()) staging = mapped.value();
  }
  ~Scratch() {
    if (staging != nullptr) Unmap(staging, kChunkBytes);
  }
  struct Claimed {
    std::uint64_t block = 0;
    std::uint64_t offset = 0;  // in the newest layer; kUnknown: it is not there
    std::size_t place = 0;     // in the staging buffer, blocks
  };
  BlockDecoder decoder;
  std::uint8_t* staging = nullptr;  // a huge page where there is one; moved out as a whole
  bool staging_used = false;        // it is not zeros any more
  std::vector<std::uint8_t> read;
  std::vector<Claimed> claimed;
  std::vector<bool> sound;  // by place
};

void LazyLoader::Fill(bool is_first) {
  // Guests come first where processors are few.
  static_cast<void>(
      ::setpriority(PRIO_PROCESS, static_cast<id_t>(::syscall(SYS_gettid)), kNiceness));
  if (!WaitForStage(Stage::kServing)) return;
  Scratch scratch(*this);
  if (scratch.staging == nullptr) {
    return Fail({.code = ErrorCode::kNoMemory, .message = "no memory to fill guest memory with"});
  }
  const auto start = FillPlan::Clock::now() + std::chrono::milliseconds(options_.fill_delay_ms);
  for (;;) {
    const bool replaying = plan_.replaying();
    if (!WaitToFill(replaying ? FillPlan::Clock::time_point{} : start)) break;
    const std::vector<std::uint64_t> blocks = plan_.Next();
    if (blocks.empty()) break;
    FillBlocks(blocks, scratch);
    const std::uint64_t bytes = scratch.claimed.size() * kBlockBytes;
    if (replaying || bytes == 0) continue;
    if (!WaitToFill(plan_.Book(bytes))) break;
  }
  if (!is_first) return;
  {
    std::unique_lock lock(mutex_);
    changed_.wait(lock,
                  [this] { return missing_ == 0 || StopAsked() || stage_ == Stage::kFailed; });
    if (StopAsked() || stage_ == Stage::kFailed) return;
  }
  End();
}

// False: the load has ended.
bool LazyLoader::WaitToFill(FillPlan::Clock::time_point until) {
  std::unique_lock lock(mutex_);
  const auto ended = [this] { return StopAsked() || stage_ == Stage::kFailed || missing_ == 0; };
  if (FillPlan::Clock::now() >= until) return !ended();
  return !changed_.wait_until(lock, until, ended);
}

void LazyLoader::FillBlocks(const std::vector<std::uint64_t>& blocks, Scratch& scratch) {
  scratch.claimed.clear();
  scratch.sound.assign(blocks.size(), false);
  const auto quiet = FillPlan::Clock::now().time_since_epoch() -
                     FillPlan::Clock::duration(last_fault_.load(std::memory_order_relaxed));
  // Where bytes have to be asked for, one answer takes as long as many bytes.
  if (quiet < kQuietTime && !plan_.replaying() && !asks_owner_) {
    for (const std::uint64_t block : blocks) {
      if (BlockDecoder::IsZero(layers_, block) || !states_.Claim(block)) continue;
      scratch.claimed.push_back({block, kUnknown, 0});
      scratch.staging_used = true;
      Bring(block, scratch.decoder, scratch.staging);
      if (stage() == Stage::kFailed) return;
    }
    return;
  }
  bool is_whole = IsHugePage(blocks);
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    if (BlockDecoder::IsZero(layers_, blocks[i])) continue;
    if (states_.Claim(blocks[i])) {
      scratch.claimed.push_back({blocks[i], layers_[0].map->Find(blocks[i]).value_or(kUnknown), i});
    } else {
      is_whole = false;
    }
  }
  if (scratch.claimed.empty()) return;
  if (is_whole && scratch.staging_used) {
    DiscardAnonymous(scratch.staging, kChunkBytes);
    scratch.staging_used = false;
  }
  ReadClaimed(scratch);
  PutClaimed(HostOf(blocks.front()), is_whole, scratch);
}

// Whether the blocks are all of one huge page that can be moved into guest memory.
bool LazyLoader::IsHugePage(const std::vector<std::uint64_t>& blocks) const {
  const Region& region = memory_->regions()[layout_.RegionOfBlock(blocks.front())];
  return blocks.size() == kChunkBlocks && blocks.back() - blocks.front() == kChunkBlocks - 1 &&
         userfault_->can_move() && region.backing == Backing::kAnonymous &&
         reinterpret_cast<std::uintptr_t>(HostOf(blocks.front())) % kChunkBytes == 0 &&
         layout_.PagesOf(blocks.back()).count == kBlockPages;
}

// Decodes what was claimed into the staging buffer; neighbours in the stream come with one read.
void LazyLoader::ReadClaimed(Scratch& scratch) {
  using Claimed = Scratch::Claimed;
  std::vector<Claimed> order = scratch.claimed;
  std::sort(order.begin(), order.end(),
            [](const Claimed& a, const Claimed& b) { return a.offset < b.offset; });
  for (std::size_t first = 0; first < order.size();) {
    const std::uint64_t start = order[first].offset;
    std::size_t end = first + 1;
    while (start != kUnknown && end < order.size() && order[end].offset != kUnknown &&
           order[end].offset - order[end - 1].offset <= 2 * kFrameBytesMax &&
           order[end].offset - start + kFrameBytesMax <= kReadBytesMax) {
      ++end;
    }
    std::uint64_t bytes = 0;
    if (start != kUnknown) {
      bytes = std::min(order[end - 1].offset + kFrameBytesMax, sources_[0].end_offset) - start;
      if (scratch.read.size() < bytes) scratch.read.resize(bytes);
      if (!sources_[0].source->Read(start, {scratch.read.data(), bytes}).ok()) bytes = 0;
    }
    for (; first < end; ++first) {
      const Claimed& one = order[first];
      std::uint8_t* target = scratch.staging + one.place * kBlockBytes;
      // What a common read cannot give is read alone: that finds out what is wrong.
      Status decoded = Error{};
      if (bytes != 0) {
        const std::uint64_t at = one.offset - start;
        decoded = scratch.decoder.DecodeRead(one.block, one.offset,
                                             {scratch.read.data() + at, bytes - at}, target);
      }
      if (!decoded.ok()) decoded = scratch.decoder.Decode(one.block, target);
      scratch.sound[one.place] = decoded.ok();
      if (decoded.ok() && !notes_.empty()) notes_[one.block] = scratch.decoder.note();
      if (!decoded.ok()) Damaged(one.block, std::move(decoded.error()));
    }
  }
}

void LazyLoader::PutClaimed(std::uint8_t* host, bool is_whole, Scratch& scratch) {
  scratch.staging_used = true;
  const bool all_sound = std::all_of(scratch.claimed.begin(), scratch.claimed.end(),
                                     [&](const auto& one) { return scratch.sound[one.place]; });
  if (is_whole && all_sound && userfault_->Move(host, scratch.staging, kChunkBytes).ok()) {
    for (const Scratch::Claimed& one : scratch.claimed) Arrived(one.block);
    return;
  }
  for (const Scratch::Claimed& one : scratch.claimed) {
    if (!scratch.sound[one.place]) continue;
    Status put = userfault_->Copy(HostOf(one.block), scratch.staging + one.place * kBlockBytes,
                                  BytesOf(one.block));
    if (put.ok()) {
      Arrived(one.block);
    } else {
      Damaged(one.block, std::move(put.error()));
    }
  }
}

// All is there: from here on the memory is ordinary. Then the rest of the checkpoint is looked at.
void LazyLoader::End() {
  for (const Region& region : memory_->regions()) {
    Status given_back = userfault_->Unregister(region.host, region.bytes);
    if (!given_back.ok()) return Fail(std::move(given_back.error()));
  }
  memory_->SetMissing(false);
  if (options_.walk) {
    auto digests = WalkFrames(layers_[0], layout_, memory_->page_count(), sources_[0].first_offset,
                              sources_[0].end_offset, notes_, cancelled_);
    if (!digests.ok()) {
      if (!StopAsked()) Fail(std::move(digests.error()));
      return;
    }
    digests_ = std::move(digests.value());
  }
  const std::uint64_t one = 1;
  if (SetStage(Stage::kResident)) static_cast<void>(!::write(stop_fd_, &one, sizeof one));
}

}  // namespace chkpt

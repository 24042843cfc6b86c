// Stages and faults. The background fill is in lazy_fill.cc.
#include "core/lazy/lazy_loader.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "core/memory/mapping.h"

namespace chkpt {

const char* LazyLoader::WhyNot(const GuestMemory& memory) {
  if (SystemPageBytes() != kPageBytes) return "pages of this system are not 4 KiB";
  for (const Region& region : memory.regions()) {
    if (!region.writable) return "guest memory is read-only";
    switch (region.backing) {
      case Backing::kAnonymous:
      case Backing::kMemfd: break;
      case Backing::kHugetlb: return "huge pages of the pool cannot be served in parts";
      case Backing::kMapped: return "guest memory is a file that other processes may map";
      case Backing::kAttached: return "attached memory belongs to somebody else";
      case Backing::kFile: return "guest memory is a file that is not mapped";
      case Backing::kClone: return "guest memory is a clone of a shared image";
    }
    if (region.host == nullptr) return "guest memory is only described";
  }
  return nullptr;
}

Result<std::unique_ptr<LazyLoader>> LazyLoader::Start(std::shared_ptr<GuestMemory> memory,
                                                      std::vector<LazyLayer> layers,
                                                      LazyOptions options,
                                                      std::function<void()> notify) {
  CHKPT_CHECK(!layers.empty() && options.handler_threads > 0 && options.fill_threads > 0);
  if (const char* reason = WhyNot(*memory)) {
    return Error{.code = ErrorCode::kUnsupported, .message = reason};
  }
  auto userfault = Userfault::Open();
  if (!userfault.ok()) return userfault.error();
  std::unique_ptr<LazyLoader> loader(new LazyLoader(std::move(memory), std::move(userfault.value()),
                                                    std::move(layers), std::move(options),
                                                    std::move(notify)));
  if (loader->stop_fd_ < 0) return SystemError(errno, "making an eventfd");
  loader->threads_.Start([raw = loader.get()] { raw->Control(); });
  return loader;
}

LazyLoader::LazyLoader(std::shared_ptr<GuestMemory> memory, std::unique_ptr<Userfault> userfault,
                       std::vector<LazyLayer> layers, LazyOptions options,
                       std::function<void()> notify)
    : memory_(std::move(memory)),
      sources_(std::move(layers)),
      options_(std::move(options)),
      notify_(std::move(notify)),
      userfault_(std::move(userfault)),
      layout_(memory_->regions()),
      asks_owner_(std::ranges::any_of(
          sources_,
          [](const LazyLayer& layer) { return layer.source->asked_bytes().has_value(); })),
      states_(layout_.block_count()),
      plan_(layout_, options_.replay, options_.fill_bytes_per_second),
      stop_fd_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
      threads_(notify_) {}

LazyLoader::~LazyLoader() {
  Cancel();
  Join();
  memory_->SetMissing(false);
  if (stop_fd_ >= 0) ::close(stop_fd_);
}

LazyLoader::Stage LazyLoader::stage() const {
  const std::lock_guard lock(mutex_);
  return stage_;
}

Error LazyLoader::error() const {
  const std::lock_guard lock(mutex_);
  return error_;
}

LazyLoader::Counts LazyLoader::counts() const {
  return {.blocks = blocks_, .missing = missing_, .faults = faults_, .fault_blocks = fault_blocks_};
}

std::vector<std::uint32_t> LazyLoader::WorkingSet() const {
  const std::lock_guard lock(mutex_);
  return working_set_;
}

// False when the load has failed meanwhile: that stays.
bool LazyLoader::SetStage(Stage stage) {
  {
    const std::lock_guard lock(mutex_);
    if (stage_ == Stage::kFailed) return false;
    stage_ = stage;
    changed_.notify_all();
  }
  notify_();
  return true;
}

// False: the load ended before.
bool LazyLoader::WaitForStage(Stage stage) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return stage_ >= stage || StopAsked(); });
  return !StopAsked() && stage_ != Stage::kFailed;
}

void LazyLoader::Fail(Error error) {
  {
    const std::lock_guard lock(mutex_);
    if (stage_ == Stage::kFailed || stage_ == Stage::kResident) return;
    stage_ = Stage::kFailed;
    error_ = std::move(error);
    changed_.notify_all();
  }
  notify_();
}

void LazyLoader::Arm() {
  {
    const std::lock_guard lock(mutex_);
    if (stage_ != Stage::kPrepared) return;
    stage_ = Stage::kArming;
    changed_.notify_all();
  }
  for (unsigned i = 1; i < options_.handler_threads; ++i) {
    threads_.Start([this] {
      if (WaitForStage(Stage::kServing)) Serve();
    });
  }
  for (unsigned i = 0; asks_owner_ && i < kAskingThreads; ++i) {
    threads_.Start([this] { BringQueued(); });
  }
  for (unsigned i = 0; i < options_.fill_threads; ++i) {
    threads_.Start([this, is_first = i == 0] { Fill(is_first); });
  }
}

void LazyLoader::Release() {
  std::vector<std::uint64_t> damaged;
  {
    const std::lock_guard lock(mutex_);
    CHKPT_CHECK(stage_ == Stage::kFailed);
    released_ = true;
    damaged = damaged_;
  }
  for (const std::uint64_t block : damaged) Quarantine(block);
}

void LazyLoader::Cancel() {
  {
    const std::lock_guard lock(mutex_);
    cancelled_ = true;
    changed_.notify_all();
  }
  const std::uint64_t one = 1;
  if (stop_fd_ >= 0) static_cast<void>(!::write(stop_fd_, &one, sizeof one));
  queue_.End();
  for (LazyLayer& layer : sources_) layer.source->Cancel();
}

void LazyLoader::LetGo() {
  Fail({.code = ErrorCode::kClosed, .message = "the lazy load was closed"});
  if (stage() == Stage::kFailed) Release();
  for (LazyLayer& layer : sources_) layer.source->Cancel();
}

template <typename Visit>
void LazyLoader::ForEachBlock(std::uint64_t address, std::uint64_t bytes, Visit visit) const {
  for (const Region& region : memory_->regions()) {
    const std::uint64_t begin = std::max(address, region.base);
    const std::uint64_t end = std::min(address + bytes, region.base + region.bytes);
    if (begin >= end) continue;
    const auto block_of = [&](std::uint64_t at) {
      return layout_.BlockOf(region.first_page + (at - region.base) / kPageBytes);
    };
    for (std::uint64_t block = block_of(begin); block <= block_of(end - 1); ++block) {
      if (!visit(block)) return;
    }
  }
}

bool LazyLoader::IsHere(std::uint64_t address, std::uint64_t bytes) const {
  bool is_here = true;
  ForEachBlock(address, bytes, [&](std::uint64_t block) {
    return is_here = states_.Of(block) == BlockStates::State::kPresent || IsZero(block);
  });
  return is_here;
}

void LazyLoader::Want(std::uint64_t address, std::uint64_t bytes) {
  if (!asks_owner_) return;
  ForEachBlock(address, bytes, [&](std::uint64_t block) {
    if (!IsZero(block) && states_.Claim(block)) {
      NoteFault(block);
      fault_blocks_.fetch_add(1, std::memory_order_relaxed);
      queue_.Push(block);
    }
    return true;
  });
}

void LazyLoader::Control() {
  Status prepared = Prepare();
  if (!prepared.ok()) return Fail(std::move(prepared.error()));
  if (!SetStage(Stage::kPrepared)) return;
  {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return stage_ != Stage::kPrepared || StopAsked(); });
    if (StopAsked() || stage_ != Stage::kArming) return;
  }
  Status taken = TakeMemory();
  if (!taken.ok()) return Fail(std::move(taken.error()));
  if (SetStage(Stage::kServing)) Serve();
}

Status LazyLoader::Prepare() {
  for (LazyLayer& source : sources_) {
    const FrameReader reader(*source.source, source.uuid, source.epoch);
    auto map =
        BlockMap::Read(reader, layout_, memory_->regions(), source.groups, source.end_offset);
    if (!map.ok()) return map.error();
    layers_.push_back(
        {reader, std::make_shared<const BlockMap>(std::move(map.value())), source.has_parent});
  }
  std::uint64_t blocks = 0;
  for (std::uint64_t block = 0; block < layout_.block_count(); ++block) {
    if (!BlockDecoder::IsZero(layers_, block)) ++blocks;
  }
  blocks_ = blocks;
  missing_ = blocks;
  if (asks_owner_ && options_.walk) notes_.resize(layout_.block_count());
  // Whether this kernel takes this memory is known before anything of it is touched.
  Status registered = RegisterAll();
  for (const Region& region : memory_->regions()) {
    static_cast<void>(userfault_->Unregister(region.host, region.bytes));
  }
  return registered;
}

Status LazyLoader::RegisterAll() {
  for (const Region& region : memory_->regions()) {
    Status registered = userfault_->Register(region.host, region.bytes);
    if (!registered.ok()) return registered;
  }
  return Ok();
}

// What was in memory goes first: a page that is there is not served. Also of fresh memory: who has
// read it has mapped zero pages.
Status LazyLoader::TakeMemory() {
  memory_->SetMissing(true);
  memory_->MarkUsed();
  Status registered = RegisterAll();
  if (!registered.ok()) return registered;
  for (const Region& region : memory_->regions()) {
    Status dropped = memory_->Zero(region.pages());
    if (!dropped.ok()) return dropped;
  }
  return Ok();
}

void LazyLoader::Serve() {
  BlockDecoder decoder(layers_, layout_, cancelled_);
  const std::unique_ptr<std::uint8_t[]> buffer(new std::uint8_t[kBlockBytes]);
  pollfd waits[2] = {{userfault_->fd(), POLLIN, 0}, {stop_fd_, POLLIN, 0}};
  while (!StopAsked()) {
    if (const auto fault = userfault_->Next()) {
      ServeFault(*fault, decoder, buffer.get());
      continue;
    }
    if (::poll(waits, 2, -1) < 0 && errno != EINTR) return;
    if (waits[1].revents != 0) return;
  }
}

void LazyLoader::ServeFault(const Userfault::Fault& fault, BlockDecoder& decoder,
                            std::uint8_t* buffer) {
  faults_.fetch_add(1, std::memory_order_relaxed);
  last_fault_.store(FillPlan::Clock::now().time_since_epoch().count(), std::memory_order_relaxed);
  const Region* found = nullptr;
  for (const Region& region : memory_->regions()) {
    if (fault.address >= region.host && fault.address < region.host + region.bytes) found = &region;
  }
  if (found == nullptr) return;
  const std::uint64_t page =
      found->first_page + static_cast<std::uint64_t>(fault.address - found->host) / kPageBytes;
  const std::uint64_t block = layout_.BlockOf(page);
  std::uint8_t* page_host = found->host + (page - found->first_page) * kPageBytes;
  if (BlockDecoder::IsZero(layers_, block)) {
    static_cast<void>(userfault_->Zero(HostOf(block), BytesOf(block)));
    return;
  }
  const bool is_owner = fault.thread == options_.owner_thread && fault.thread != 0;
  if (is_owner && asks_owner_ && states_.Of(block) != BlockStates::State::kPresent) {
    Fail({.code = ErrorCode::kUnsupported,
          .message = "the thread that fetches pages touched one that is not there",
          .page = page});
    return PutPattern(block);
  }
  if (is_owner) owner_block_ = block;
  if (states_.Claim(block)) {
    NoteFault(block);
    fault_blocks_.fetch_add(1, std::memory_order_relaxed);
    if (asks_owner_) return queue_.Push(block);
    Bring(block, decoder, buffer);
    return;
  }
  switch (states_.Want(block)) {
    case BlockStates::State::kFetching: NoteFault(block); break;  // whoever fetches it wakes
    case BlockStates::State::kWanted: break;
    case BlockStates::State::kPresent:
      // The page was there and somebody gave it back (a balloon): then it is zeros.
      static_cast<void>(userfault_->Zero(page_host, kPageBytes));
      break;
    case BlockStates::State::kDamaged: HoldBlock(block); break;
    case BlockStates::State::kAbsent: break;  // given up by a load that ends
  }
}

void LazyLoader::BringQueued() {
  if (!WaitForStage(Stage::kServing)) return;
  BlockDecoder decoder(layers_, layout_, cancelled_);
  const std::unique_ptr<std::uint8_t[]> buffer(new std::uint8_t[kBlockBytes]);
  while (const auto block = queue_.Pop()) Bring(*block, decoder, buffer.get());
}

void LazyLoader::NoteFault(std::uint64_t block) {
  const std::lock_guard lock(mutex_);
  working_set_.push_back(static_cast<std::uint32_t>(block));
}

BlockStates::State LazyLoader::Fetcher::Require(std::uint64_t block) {
  LazyLoader& loader = loader_;
  if (!loader.states_.Claim(block)) return loader.states_.WaitSettled(block);
  loader.last_fault_.store(FillPlan::Clock::now().time_since_epoch().count(),
                           std::memory_order_relaxed);
  loader.NoteFault(block);
  loader.fault_blocks_.fetch_add(1, std::memory_order_relaxed);
  loader.Bring(block, decoder_, buffer_.get());
  return loader.states_.Of(block);
}

void LazyLoader::Bring(std::uint64_t block, BlockDecoder& decoder, std::uint8_t* buffer) {
  Status decoded = decoder.Decode(block, buffer);
  if (!decoded.ok()) return Damaged(block, std::move(decoded.error()));
  if (!notes_.empty()) notes_[block] = decoder.note();
  Status put = userfault_->Copy(HostOf(block), buffer, BytesOf(block));
  if (!put.ok()) return Damaged(block, std::move(put.error()));
  Arrived(block);
}

void LazyLoader::Arrived(std::uint64_t block) {
  if (states_.Arrived(block)) userfault_->Wake(HostOf(block), BytesOf(block));
  if (missing_.fetch_sub(1, std::memory_order_acq_rel) != 1) return;
  const std::lock_guard lock(mutex_);
  changed_.notify_all();
}

void LazyLoader::Damaged(std::uint64_t block, Error error) {
  if (error.page == kUnknown) error.page = layout_.PagesOf(block).first;
  if (StopAsked()) return states_.GiveUp(block);
  Fail(std::move(error));
  states_.Damaged(block);
  {
    const std::lock_guard lock(mutex_);
    damaged_.push_back(block);
  }
  HoldBlock(block);
}

// Who touches the block goes on sleeping, unless the owner knows already, or it is the owner.
void LazyLoader::HoldBlock(std::uint64_t block) {
  if (released_ || owner_block_ == block) Quarantine(block);
}

void LazyLoader::Quarantine(std::uint64_t block) {
  if (!options_.poison || !userfault_->can_poison()) return PutPattern(block);
  static_cast<void>(userfault_->Poison(HostOf(block), BytesOf(block)));
}

void LazyLoader::PutPattern(std::uint64_t block) {
  static constexpr auto kPattern = [] {
    std::array<std::uint8_t, kBlockBytes> bytes{};
    bytes.fill(kDamagePattern);
    return bytes;
  }();
  static_cast<void>(userfault_->Copy(HostOf(block), kPattern.data(), BytesOf(block)));
}

std::uint8_t* LazyLoader::HostOf(std::uint64_t block) const {
  const Region& region = memory_->regions()[layout_.RegionOfBlock(block)];
  return region.host + (layout_.PagesOf(block).first - region.first_page) * kPageBytes;
}

std::uint64_t LazyLoader::BytesOf(std::uint64_t block) const {
  return layout_.PagesOf(block).count * kPageBytes;
}

}  // namespace chkpt

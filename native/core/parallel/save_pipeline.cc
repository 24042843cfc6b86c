#include "core/parallel/save_pipeline.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "core/tracking/write_guard.h"

namespace chkpt {
namespace {

std::uint64_t ChunkCount(const GuestMemory& memory) {
  std::uint64_t count = 0;
  for (const Region& region : memory.regions()) {
    count += (region.page_count() + kChunkPages - 1) / kChunkPages;
  }
  return std::max<std::uint64_t>(count, 1);
}

std::vector<std::uint64_t> WordsOf(const DirtyBitmap* set) {
  if (set == nullptr) return {};
  std::vector<std::uint64_t> words(set->word_count());
  set->Copy(words);
  return words;
}

// Of pages that may differ from the parent: those that are scrubbed do, whatever anybody says.
std::vector<std::uint64_t> ChangedWords(const SaveOptions& options,
                                        std::span<const std::uint64_t> scrubbed) {
  if (!options.position.has_parent()) return {};
  std::vector<std::uint64_t> words = WordsOf(options.changed.get());
  const std::size_t count = std::min(words.size(), scrubbed.size());
  for (std::size_t i = 0; i < count; ++i) words[i] |= scrubbed[i];
  return words;
}

// The pages that the cursor looks for; empty: those that are present, or, with a parent, all.
std::span<const std::uint64_t> ToLookAt(const SaveOptions& options,
                                        std::span<const std::uint64_t> changed) {
  const bool all = options.position.has_parent();
  return options.guard == nullptr || all ? changed : options.guard->image();
}

}  // namespace

Result<std::unique_ptr<SavePipeline>> SavePipeline::Start(std::shared_ptr<GuestMemory> memory,
                                                          const SaveOptions& options,
                                                          std::function<void()> notify) {
  CHKPT_CHECK(options.threads >= 1);
  SaveOptions chosen = options;
  const bool fits =
      (chosen.changed == nullptr || chosen.changed->page_count() == memory->page_count()) &&
      (chosen.scrubbed == nullptr || chosen.scrubbed->page_count() == memory->page_count()) &&
      (chosen.digests == nullptr || chosen.digests->page_count() == memory->page_count()) &&
      (chosen.deltas == nullptr || chosen.deltas->page_count() == memory->page_count()) &&
      (chosen.guard == nullptr || chosen.guard->memory() == memory);
  if (!fits) return Error{.code = ErrorCode::kFormat, .message = "pages of another memory"};
  const bool copies_only =
      chosen.encode.codec == BlockCodec::kRaw && !chosen.encode.dedup && chosen.output == nullptr;
  const unsigned spare_slabs = chosen.output != nullptr ? kSpareSlabsOutput
                               : copies_only            ? kSpareSlabsRaw
                                                        : kSpareSlabs;
  if (chosen.slab_count == 0) chosen.slab_count = chosen.threads + spare_slabs;
  if (chosen.slab_count < chosen.threads + 1) chosen.slab_count = chosen.threads + 1;
  chosen.threads =
      static_cast<unsigned>(std::min<std::uint64_t>(chosen.threads, ChunkCount(*memory)));
  if (chosen.buffers == nullptr) chosen.buffers = std::make_shared<BufferPool>();
  std::unique_ptr<SavePipeline> pipeline(
      new SavePipeline(std::move(memory), chosen, std::move(notify)));
  if (chosen.encode.dedup) {
    auto dedup = PageDedup::Create(chosen.buffers, pipeline->memory_->page_count(),
                                   std::span<const std::uint8_t, 16>(chosen.position.uuid));
    if (!dedup.ok()) return dedup.error();
    pipeline->dedup_ = std::move(dedup.value());
  }
  for (unsigned i = 0; i < chosen.threads; ++i) {
    const bool has_parent = chosen.position.has_parent();
    const ChangeFilter filter{.has_parent = has_parent,
                              .changed = pipeline->changed_,
                              .scrubbed = pipeline->scrubbed_,
                              .digests = chosen.digests.get(),
                              .deltas = has_parent ? chosen.deltas.get() : nullptr,
                              .round = chosen.position.epoch,
                              .guard = chosen.guard.get()};
    auto encoder = ChunkEncoder::Create(*pipeline->memory_, pipeline->finder_, chosen.encode,
                                        filter, chosen.buffers);
    if (!encoder.ok()) return encoder.error();
    pipeline->encoders_.push_back(std::move(encoder.value()));
  }
  for (auto& encoder : pipeline->encoders_) {
    pipeline->threads_.Start([p = pipeline.get(), e = encoder.get()] { p->Work(*e); });
  }
  return pipeline;
}

SavePipeline::SavePipeline(std::shared_ptr<GuestMemory> memory, const SaveOptions& options,
                           std::function<void()> notify)
    : memory_(std::move(memory)),
      options_(options),
      notify_(std::move(notify)),
      scrubbed_(WordsOf(options.scrubbed.get())),
      changed_(ChangedWords(options, scrubbed_)),
      finder_(options.presence),
      cursor_(*memory_, finder_, ToLookAt(options, changed_), options.position.has_parent()),
      batch_(std::clamp(options.slab_count - options.threads, 2U, kSpareSlabsRaw) - 1),
      slabs_(options.slab_count),
      reorder_(options.slab_count),
      sequencer_(*memory_, options.position),
      threads_(notify_) {
  for (std::size_t i = 0; i < slabs_.size(); ++i) {
    slabs_[i].index = i;
    free_.push_back(&slabs_[slabs_.size() - 1 - i]);
  }
}

SavePipeline::~SavePipeline() {
  Cancel();
  Join();
  for (Slab& slab : slabs_) {
    if (slab.buffer != nullptr && !slab.taken) options_.buffers->GiveBack(std::move(slab.buffer));
  }
}

void SavePipeline::Work(ChunkEncoder& encoder) {
  EncodedChunk chunk;
  while (Slab* slab = TakeFreeSlab()) {
    chunk.slab = slab;
    if (!cursor_.Claim(&chunk.ticket, cancelled_)) {
      const Slab* const unused = slab;
      Release({&unused, 1});
      return;
    }
    if (!EncodeChunk(encoder, chunk)) return;
    const bool last = chunk.ticket.region == nullptr;
    Submit(std::move(chunk));
    if (last) return;
    chunk = EncodedChunk{};
  }
}

bool SavePipeline::EncodeChunk(ChunkEncoder& encoder, EncodedChunk& chunk) {
  const std::uint64_t order = chunk.ticket.order;
  if (chunk.ticket.region == nullptr) {
    chunk.frames.clear();
    return true;
  }
  Status gathered = encoder.Gather(chunk, dedup_.get(), cancelled_);
  if (!gathered.ok()) {
    Fail(std::move(gathered.error()));
    return false;
  }
  if (dedup_) {
    if (!WaitForDedupTurn(order)) return false;
    if (order == 0) dedup_->Clear();
    encoder.Deduplicate(*dedup_);
    PassDedupTurn();
  }
  encoder.Emit(chunk, cancelled_);
  return !cancelled_.load(std::memory_order_relaxed);
}

Slab* SavePipeline::TakeFreeSlab() {
  Slab* slab = WaitForFreeSlab();
  if (slab == nullptr || (slab->buffer != nullptr && !slab->buffer->spoiled())) return slab;
  auto buffer = options_.buffers->Take(kSlabBytes, memory_->page_count() >= kHugeBufferPages);
  if (!buffer.ok()) {
    Fail(std::move(buffer.error()));
    return nullptr;
  }
  slab->buffer = std::move(buffer.value());
  slab->data = slab->buffer->data();
  return slab;
}

Slab* SavePipeline::WaitForFreeSlab() {
  std::unique_lock lock(mutex_);
  // A slab that was left for more to come is the only one that nobody else frees.
  while (options_.output != nullptr && free_.empty() && !ready_.empty() && !cancelled_) {
    const std::vector<PlacedSlab> slabs = TakeReady(true);
    lock.unlock();
    WriteOut(slabs);
    lock.lock();
  }
  // Whoever takes slabs may have been left asleep for the sake of a batch.
  if (free_.empty() && !ready_.empty() && std::exchange(waiting_, false)) notify_();
  slab_freed_.wait(lock, [this] { return !free_.empty() || cancelled_; });
  if (cancelled_) return nullptr;
  Slab* slab = free_.back();
  free_.pop_back();
  return slab;
}

bool SavePipeline::WaitForDedupTurn(std::uint64_t order) {
  std::unique_lock lock(mutex_);
  turn_changed_.wait(lock, [&] { return dedup_turn_ == order || cancelled_; });
  return !cancelled_;
}

void SavePipeline::PassDedupTurn() {
  const std::lock_guard lock(mutex_);
  ++dedup_turn_;
  turn_changed_.notify_all();
}

// Whoever completes the oldest chunk appends it and all that wait behind it; nobody waits for a
// turn here.
void SavePipeline::Submit(EncodedChunk chunk) {
  std::unique_lock lock(mutex_);
  reorder_[chunk.ticket.order % reorder_.size()] = std::move(chunk);
  while (!appending_ && !cancelled_) {
    std::optional<EncodedChunk>& slot = reorder_[append_turn_ % reorder_.size()];
    if (!slot || slot->ticket.order != append_turn_) break;
    EncodedChunk next = std::move(*slot);
    slot.reset();
    appending_ = true;
    lock.unlock();
    sequencer_.Append(next);
    lock.lock();
    appending_ = false;
    ++append_turn_;
    Append(next.slab);
    if (next.ticket.region == nullptr) finished_ = true;
  }
  if (options_.output != nullptr) {
    const std::vector<PlacedSlab> slabs = TakeReady(finished_ || free_.empty());
    lock.unlock();
    WriteOut(slabs);
    return;
  }
  const bool news = HasNews();
  lock.unlock();
  if (news) notify_();
}

void SavePipeline::Append(Slab* slab) {
  if (options_.output != nullptr && slab->bytes != 0) {
    written_.bytes += slab->bytes;
    written_.pages = slab->pages;
    written_.digests.insert(written_.digests.end(), slab->digests.begin(), slab->digests.end());
    written_.groups.insert(written_.groups.end(), slab->groups.begin(), slab->groups.end());
  }
  if (slab->bytes == 0 || (!ready_.empty() && Pack(*slab, *ready_.back()))) {
    free_.push_back(slab);
    slab_freed_.notify_one();
  } else {
    ready_.push_back(slab);
  }
}

std::vector<SavePipeline::PlacedSlab> SavePipeline::TakeReady(bool all) {
  std::vector<PlacedSlab> taken;
  std::size_t count = ready_.size();
  if (!all && count > 0) {
    const Slab& last = *ready_.back();
    if (last.begin + last.bytes + kPackBytesMax <= kSlabBytes && last.bytes <= kSlabBytes / 4)
      --count;
  }
  for (std::size_t i = 0; i < count; ++i) {
    taken.push_back({ready_[i], ready_offset_});
    ready_offset_ += ready_[i]->bytes;
  }
  ready_.erase(ready_.begin(), ready_.begin() + static_cast<std::ptrdiff_t>(count));
  writing_ += static_cast<unsigned>(count);
  return taken;
}

void SavePipeline::WriteOut(const std::vector<PlacedSlab>& slabs) {
  for (const auto& [slab, offset] : slabs) {
    Status written = Ok();
    if (!cancelled_.load(std::memory_order_relaxed)) {
      written = options_.output->Write(offset, {slab->data + slab->begin, slab->bytes});
    }
    if (!written.ok()) Fail(std::move(written.error()), true);
    const std::lock_guard lock(mutex_);
    --writing_;
    free_.push_back(slab);
    slab_freed_.notify_one();
  }
  bool news = false;
  {
    const std::lock_guard lock(mutex_);
    news = HasNews();
  }
  if (news) notify_();
}

bool SavePipeline::HasNews() {
  if (!waiting_) return false;
  if (options_.output == nullptr) {
    if (!finished_ && ready_.size() < batch_) return false;
  } else if (!finished_) {
    if (std::chrono::steady_clock::now() - told_ < kTellEvery) return false;
  } else if (writing_ != 0 || !ready_.empty()) {
    return false;
  }
  waiting_ = false;
  return true;
}

bool SavePipeline::Pack(const Slab& slab, Slab& before) {
  const std::size_t end = before.begin + before.bytes;
  if (slab.bytes > kPackBytesMax || slab.bytes > kSlabBytes - end) return false;
  std::memcpy(before.data + end, slab.data + slab.begin, slab.bytes);
  before.bytes += slab.bytes;
  before.digests.insert(before.digests.end(), slab.digests.begin(), slab.digests.end());
  before.groups.insert(before.groups.end(), slab.groups.begin(), slab.groups.end());
  before.pages = slab.pages;
  return true;
}

SavePipeline::Polled SavePipeline::Poll() {
  const std::lock_guard lock(mutex_);
  if (error_) return {.state = State::kFailed, .error = *error_, .output_failed = output_failed_};
  if (cancelled_) {
    return {.state = State::kFailed,
            .error = {.code = ErrorCode::kAborted, .message = "save cancelled"}};
  }
  if (options_.output != nullptr) return PollWritten();
  if (!ready_.empty()) {
    for (Slab* slab : ready_) slab->taken = true;
    Polled polled{.state = State::kSlabs, .slabs = {ready_.begin(), ready_.end()}};
    ready_.clear();
    return polled;
  }
  waiting_ = !finished_;
  return {.state = finished_ ? State::kFinished : State::kPending};
}

SavePipeline::Polled SavePipeline::PollWritten() {
  const bool all = finished_ && writing_ == 0 && ready_.empty();
  if (all && written_.digests.empty()) return {.state = State::kFinished};
  const auto now = std::chrono::steady_clock::now();
  if (!all && now - told_ < kTellEvery) {
    waiting_ = true;
    return {.state = State::kPending};
  }
  told_ = now;
  if (written_.digests.empty()) {
    waiting_ = true;
    return {.state = State::kPending};
  }
  return {.state = State::kWritten, .written = std::exchange(written_, {.pages = written_.pages})};
}

void SavePipeline::Release(std::span<const Slab* const> slabs) {
  const std::lock_guard lock(mutex_);
  for (const Slab* slab : slabs) {
    slabs_[slab->index].taken = false;
    free_.push_back(&slabs_[slab->index]);
  }
  slab_freed_.notify_all();
}

void SavePipeline::Fail(Error error, bool of_output) {
  {
    const std::lock_guard lock(mutex_);
    if (!error_ && !cancelled_) {
      error_ = std::move(error);
      output_failed_ = of_output;
    }
    cancelled_ = true;
    slab_freed_.notify_all();
    turn_changed_.notify_all();
  }
  notify_();
}

void SavePipeline::Cancel() {
  {
    const std::lock_guard lock(mutex_);
    if (finished_ && ready_.empty() && writing_ == 0) return;
    cancelled_ = true;
    slab_freed_.notify_all();
    turn_changed_.notify_all();
  }
  notify_();
}

PageTotals SavePipeline::totals() const {
  const std::lock_guard lock(mutex_);
  return sequencer_.totals();
}

}  // namespace chkpt

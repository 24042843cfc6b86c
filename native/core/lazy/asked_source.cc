#include "core/lazy/asked_source.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace chkpt {
namespace {

Error CutError(std::uint64_t offset) {
  return {.code = ErrorCode::kTruncated, .message = "the stream ends early", .offset = offset};
}

}  // namespace

Status AskedSource::Read(std::uint64_t offset, std::span<std::uint8_t> target) {
  if (offset > byte_count_ || target.size() > byte_count_ - offset) return CutError(offset);
  while (!target.empty()) {
    const std::size_t bytes = std::min<std::size_t>(target.size(), kRequestBytesMax);
    Status read = Ask(offset, target.first(bytes));
    if (!read.ok()) return read;
    target = target.subspan(bytes);
    offset += bytes;
  }
  return Ok();
}

Status AskedSource::Ask(std::uint64_t offset, std::span<std::uint8_t> target) {
  Waiting own{{0, offset, target.size()}, target, std::nullopt};
  {
    const std::lock_guard lock(mutex_);
    if (!cancelled_) {
      own.request.id = next_id_++;
      waiting_.emplace(own.request.id, &own);
      asked_.push_back(own.request);
    }
  }
  if (own.request.id != 0) notify_();
  std::unique_lock lock(mutex_);
  settled_.wait(lock, [&] { return own.result.has_value() || cancelled_; });
  // From here on nobody writes to the target any more.
  waiting_.erase(own.request.id);
  if (own.result) return std::move(*own.result);
  return Error{.code = ErrorCode::kAborted, .message = "load cancelled"};
}

void AskedSource::Cancel() {
  {
    const std::lock_guard lock(mutex_);
    cancelled_ = true;
    asked_.clear();
    settled_.notify_all();
  }
  notify_();
}

bool AskedSource::is_cancelled() const {
  const std::lock_guard lock(mutex_);
  return cancelled_;
}

std::vector<AskedSource::Request> AskedSource::Take() {
  const std::lock_guard lock(mutex_);
  return std::exchange(asked_, {});
}

bool AskedSource::Answer(std::uint64_t id, std::span<const std::uint8_t> bytes) {
  const std::lock_guard lock(mutex_);
  const auto found = waiting_.find(id);
  if (found == waiting_.end() || found->second->result) return true;
  Waiting& waiting = *found->second;
  if (bytes.size() > waiting.target.size()) return false;
  if (!bytes.empty()) std::memcpy(waiting.target.data(), bytes.data(), bytes.size());
  if (bytes.size() == waiting.target.size()) {
    waiting.result = Ok();
  } else {
    waiting.result = CutError(waiting.request.offset + bytes.size());
  }
  settled_.notify_all();
  return true;
}

void AskedSource::Refuse(std::uint64_t id, Error error) {
  const std::lock_guard lock(mutex_);
  const auto found = waiting_.find(id);
  if (found == waiting_.end() || found->second->result) return;
  error.offset = found->second->request.offset;
  found->second->result = std::move(error);
  settled_.notify_all();
}

}  // namespace chkpt

// AskedSource: bytes of a checkpoint that only its owner can read, on a thread of its own: a store
// behind JavaScript, maybe far away. Threads that want bytes ask for them and wait; the owner takes
// what was asked, and answers in any order.
//
//   thread: Read ─► asked ─► owner: Take ─► told ─► Answer or Refuse ─► Read returns
//
// Bounds: a thread has one request in flight, of at most kRequestBytesMax. So threads times that is
// all that is ever asked for at once.
//
// The owner's thread must never Read, nor wait for a thread that does.
//
// Thread safety: all of it from any thread. What is answered is copied before Answer returns.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <vector>

#include "core/lazy/block_source.h"

namespace chkpt {

class AskedSource final : public BlockSource {
 public:
  static constexpr std::uint64_t kRequestBytesMax = 4u << 20;

  struct Request {
    std::uint64_t id = 0;
    std::uint64_t offset = 0;
    std::uint64_t bytes = 0;
  };

  // `byte_count`: of the stream. `notify` is called, from any thread, when there is something to
  // Take.
  AskedSource(std::uint64_t byte_count, std::function<void()> notify)
      : byte_count_(byte_count), notify_(std::move(notify)) {}

  Status Read(std::uint64_t offset, std::span<std::uint8_t> target) override;
  std::optional<std::uint64_t> asked_bytes() const override { return byte_count_; }
  void Cancel() override;

  // What was asked since the last call.
  std::vector<Request> Take();
  // All bytes of a request, or fewer: then the stream ends there. False: there are more than were
  // asked for. A request that nobody waits for any more is no error.
  bool Answer(std::uint64_t id, std::span<const std::uint8_t> bytes);
  void Refuse(std::uint64_t id, Error error);
  bool is_cancelled() const;

 private:
  struct Waiting {
    Request request;
    std::span<std::uint8_t> target;
    std::optional<Status> result;
  };
  Status Ask(std::uint64_t offset, std::span<std::uint8_t> target);

  const std::uint64_t byte_count_;
  const std::function<void()> notify_;
  mutable std::mutex mutex_;
  std::condition_variable settled_;
  bool cancelled_ = false;
  std::uint64_t next_id_ = 1;
  std::vector<Request> asked_;                 // not taken yet
  std::map<std::uint64_t, Waiting*> waiting_;  // by id; of threads that are in Ask
};

}  // namespace chkpt

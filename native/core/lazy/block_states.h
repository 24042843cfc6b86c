// BlockStates: who brings which block of guest memory, and which are there. Two threads that want
// one block decode it once.
//
//   absent ──Claim──► fetching ──Arrived──► present
//                        └─────Damaged──► damaged
//
// Thread safety: all of it from any thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

namespace chkpt {

class BlockStates {
 public:
  enum class State : std::uint8_t { kAbsent, kFetching, kWanted, kPresent, kDamaged };

  explicit BlockStates(std::uint64_t count)
      : states_(new std::atomic<State>[count]()), count_(count) {}

  std::uint64_t count() const { return count_; }
  State Of(std::uint64_t block) const { return states_[block].load(std::memory_order_acquire); }

  // True: the block is the caller's to fetch.
  bool Claim(std::uint64_t block) {
    State expected = State::kAbsent;
    return states_[block].compare_exchange_strong(expected, State::kFetching,
                                                  std::memory_order_acq_rel);
  }
  // Somebody waits for a block that another thread fetches; returns the state that it had. After
  // kFetching and kWanted the fetching thread wakes whoever waits once more.
  State Want(std::uint64_t block) {
    State expected = State::kFetching;
    states_[block].compare_exchange_strong(expected, State::kWanted, std::memory_order_acq_rel);
    return expected;
  }
  // Waits while somebody fetches the block; what became of it.
  State WaitSettled(std::uint64_t block) const {
    for (;;) {
      const State state = Of(block);
      if (state != State::kFetching && state != State::kWanted) return state;
      states_[block].wait(state, std::memory_order_acquire);
    }
  }
  // REQUIRES: claimed. True: somebody waits for it.
  bool Arrived(std::uint64_t block) { return Settle(block, State::kPresent); }
  bool Damaged(std::uint64_t block) { return Settle(block, State::kDamaged); }
  // Gives a claim back.
  void GiveUp(std::uint64_t block) { Settle(block, State::kAbsent); }

 private:
  bool Settle(std::uint64_t block, State state) {
    const bool wanted = states_[block].exchange(state, std::memory_order_acq_rel) == State::kWanted;
    states_[block].notify_all();
    return wanted;
  }

  const std::unique_ptr<std::atomic<State>[]> states_;
  const std::uint64_t count_;
};

}  // namespace chkpt

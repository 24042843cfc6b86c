// The random numbers of generated pages: splitmix64, because a generator must be cheap to start
// once per page.
//
// Deterministic: the same seed gives the same numbers on every machine and in every version;
// generated images are compared across both. Values copy. Not for keys.
#pragma once

#include <cstdint>

namespace chkpt {

// One well-mixed word from two. Also how seeds of parts are made from the seed of the whole.
inline std::uint64_t MixWords(std::uint64_t left, std::uint64_t right) {
  std::uint64_t word = left ^ (right * 0x9e3779b97f4a7c15u);
  word = (word ^ (word >> 30)) * 0xbf58476d1ce4e5b9u;
  word = (word ^ (word >> 27)) * 0x94d049bb133111ebu;
  return word ^ (word >> 31);
}

class PageRandom {
 public:
  explicit PageRandom(std::uint64_t seed) : state_(seed) {}

  std::uint64_t Next() {
    state_ += 0x9e3779b97f4a7c15u;
    std::uint64_t word = state_;
    word = (word ^ (word >> 30)) * 0xbf58476d1ce4e5b9u;
    word = (word ^ (word >> 27)) * 0x94d049bb133111ebu;
    return word ^ (word >> 31);
  }

  // Uniform in [0, bound), close enough for contents. REQUIRES: 0 < bound <= 2^32.
  std::uint64_t Below(std::uint64_t bound) { return ((Next() >> 32) * bound) >> 32; }

 private:
  std::uint64_t state_;
};

// Seeds of one generated page. `extent` is shared by the pages of a run (one file, one slab cache,
// one program).
struct PageSeeds {
  std::uint64_t extent = 0;
  std::uint64_t page = 0;
};

}  // namespace chkpt

// BitReader: bytes from somewhere, as bits (lowest first) or as bytes. Untrusted input.
//
// Behind the end of the input come zero bits, which count as padding: who consumes some of them has
// read a stream that was cut (`overrun()`).
//
// Ownership: owns a buffer, when it has a source; the source is the caller's. Thread safety: one
// thread at a time.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "core/base/bytes.h"
#include "core/base/result.h"

namespace chkpt {

// Puts the next bytes into the start of the target and says how many; 0 at the end.
using ByteSource = std::function<Result<std::size_t>(std::span<std::uint8_t> target)>;

// Where a reader stands. A loop that stores bytes works on a copy of its own: one that others could
// see would be read from memory again after each store.
struct BitCursor {
  const std::uint8_t* next = nullptr;
  const std::uint8_t* end = nullptr;
  std::uint64_t bits = 0;
  unsigned count = 0;    // of `bits` that count
  unsigned padding = 0;  // of those, the last ones that were never read

  // REQUIRES: no more than are there.
  void Consume(unsigned bit_count) {
    bits >>= bit_count;
    count -= bit_count;
  }
  // REQUIRES: the same, and bit_count <= 32.
  std::uint32_t Take(unsigned bit_count) {
    const auto value = static_cast<std::uint32_t>(bits & ((std::uint64_t{1} << bit_count) - 1));
    Consume(bit_count);
    return value;
  }
  bool overrun() const { return padding > count; }
};

class BitReader {
 public:
  explicit BitReader(ByteSource source, std::size_t buffer_bytes = 256u << 10)
      : source_(std::move(source)), buffer_(kKeptBytes + buffer_bytes) {
    at_.next = at_.end = buffer_.data();
  }
  // Bytes that are all there, and stay until the reader goes. Nothing is copied.
  explicit BitReader(std::span<const std::uint8_t> bytes) : ended_(true) {
    at_.next = bytes.data();
    at_.end = bytes.data() + bytes.size();
  }
  BitReader(const BitReader&) = delete;
  BitReader& operator=(const BitReader&) = delete;

  const BitCursor& cursor() const { return at_; }
  // REQUIRES: made from cursor(), which nobody has moved since.
  void set_cursor(const BitCursor& cursor) { at_ = cursor; }

  // At least 56 bits are there afterwards, padding included.
  void Refill(BitCursor& cursor) {
    if (cursor.end - cursor.next >= 8) [[likely]] {
      cursor.bits |= Load<std::uint64_t>(cursor.next) << cursor.count;
      cursor.next += (63 - cursor.count) >> 3;
      cursor.count |= 56;
    } else {
      cursor = RefillSlowly(cursor);
    }
  }
  void Refill() { Refill(at_); }
  std::uint32_t Take(unsigned bit_count) { return at_.Take(bit_count); }
  bool overrun() const { return at_.overrun(); }

  // Drops the rest of a byte. Bytes are then read as such.
  void AlignToByte() {
    at_.Consume(at_.count % 8);
    at_.next -= (at_.count - std::min(at_.padding, at_.count)) / 8;
    at_.bits = 0;
    at_.count = 0;
    at_.padding = 0;
  }

  // As many bytes as there are, up to all of the target; fewer only at the end. REQUIRES: aligned.
  std::size_t ReadBytes(std::span<std::uint8_t> target) {
    std::size_t done = 0;
    while (done < target.size() && !AtEnd()) {
      const std::size_t part =
          std::min(target.size() - done, static_cast<std::size_t>(at_.end - at_.next));
      std::memcpy(target.data() + done, at_.next, part);
      at_.next += part;
      done += part;
    }
    return done;
  }
  // REQUIRES: aligned.
  bool AtEnd() { return at_.next == at_.end && !Fill(at_); }

  // What the source failed with: everything reads as the end then.
  const std::optional<Error>& error() const { return error_; }

 private:
  // Bytes before `next` that AlignToByte may go back to.
  static constexpr std::size_t kKeptBytes = 8;

  __attribute__((noinline)) BitCursor RefillSlowly(BitCursor cursor) {
    while (cursor.count <= 56) {
      if (cursor.next != cursor.end || Fill(cursor)) {
        cursor.bits |= std::uint64_t{*cursor.next++} << cursor.count;
      } else {
        cursor.padding += 8;
      }
      cursor.count += 8;
    }
    return cursor;
  }

  bool Fill(BitCursor& cursor) {
    if (ended_) return false;
    const auto kept = std::min(kKeptBytes, static_cast<std::size_t>(cursor.end - buffer_.data()));
    std::memmove(buffer_.data(), cursor.end - kept, kept);
    cursor.next = cursor.end = buffer_.data() + kept;
    Result<std::size_t> read = source_(std::span(buffer_).subspan(kept));
    if (!read.ok()) error_ = std::move(read.error());
    ended_ = error_.has_value() || read.value() == 0;
    if (!ended_) cursor.end += read.value();
    return !ended_;
  }

  const ByteSource source_;
  std::vector<std::uint8_t> buffer_;
  BitCursor at_;
  bool ended_ = false;
  std::optional<Error> error_;
};

}  // namespace chkpt

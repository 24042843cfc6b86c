// The only functions besides the page kernels that touch guest memory through a pointer.
//
// The guest may read and write the same bytes at the same time. What is copied is then a mixture of
// before and after, as on real hardware; callers that need one consistent page stop the guest or
// find the page dirty again. That is no race of ours, so under ThreadSanitizer, whose memcpy would
// report it, words are moved one by one unseen.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace chkpt {

#if defined(__SANITIZE_THREAD__)

__attribute__((no_sanitize("thread"), noinline)) inline void CopyGuest(std::uint8_t* target,
                                                                       const std::uint8_t* source,
                                                                       std::size_t bytes) {
  using Word __attribute__((may_alias, aligned(1))) = std::uint64_t;
  std::size_t offset = 0;
  for (; offset + sizeof(Word) <= bytes; offset += sizeof(Word)) {
    *reinterpret_cast<volatile Word*>(target + offset) =
        *reinterpret_cast<const volatile Word*>(source + offset);
  }
  for (; offset < bytes; ++offset) {
    *static_cast<volatile std::uint8_t*>(target + offset) =
        *static_cast<const volatile std::uint8_t*>(source + offset);
  }
}

__attribute__((no_sanitize("thread"), noinline)) inline void ZeroGuest(std::uint8_t* target,
                                                                       std::size_t bytes) {
  for (std::size_t offset = 0; offset < bytes; ++offset)
    *static_cast<volatile std::uint8_t*>(target + offset) = 0;
}

#else

inline void CopyGuest(std::uint8_t* target, const std::uint8_t* source, std::size_t bytes) {
  std::memcpy(target, source, bytes);
}

inline void ZeroGuest(std::uint8_t* target, std::size_t bytes) { std::memset(target, 0, bytes); }

#endif

}  // namespace chkpt

// CHKPT_CHECK: always on, for our own bugs. Never on bytes from a file or a wire: those give a
// Result. CHKPT_DCHECK: for hot loops, only in debug and sanitizer builds (CHKPT_DEBUG).
#pragma once

namespace chkpt {
[[noreturn]] void CheckFailed(const char* condition, const char* file, int line);
}  // namespace chkpt

#define CHKPT_CHECK(condition) \
  ((condition) ? static_cast<void>(0) : ::chkpt::CheckFailed(#condition, __FILE__, __LINE__))

#ifdef CHKPT_DEBUG
#define CHKPT_DCHECK(condition) CHKPT_CHECK(condition)
#else
#define CHKPT_DCHECK(condition) static_cast<void>(0)
#endif

#include "core/base/exchange_paths.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

namespace chkpt {

Status ExchangePaths(const std::string& left, const std::string& right) {
  // Not every C library has a function for it.
  if (syscall(SYS_renameat2, AT_FDCWD, left.c_str(), AT_FDCWD, right.c_str(), RENAME_EXCHANGE) ==
      0) {
    return Ok();
  }
  if (errno == EINVAL || errno == ENOSYS) {
    return Error{.code = ErrorCode::kUnsupported, .message = "two names cannot be exchanged here"};
  }
  return SystemError(errno, "cannot exchange two names");
}

}  // namespace chkpt

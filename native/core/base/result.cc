#include "core/base/result.h"

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace chkpt {

void CheckFailed(const char* condition, const char* file, int line) {
  std::fprintf(stderr, "chkpt: internal error: %s at %s:%d\n", condition, file, line);
  std::abort();
}

const char* ErrorCodeName(ErrorCode code) {
  switch (code) {
    case ErrorCode::kDigest: return "CHKPT_DIGEST";
    case ErrorCode::kTruncated: return "CHKPT_TRUNCATED";
    case ErrorCode::kTrailingData: return "CHKPT_TRAILING_DATA";
    case ErrorCode::kFormat: return "CHKPT_FORMAT";
    case ErrorCode::kLimit: return "CHKPT_LIMIT";
    case ErrorCode::kDecode: return "CHKPT_DECODE";
    case ErrorCode::kVersion: return "CHKPT_VERSION";
    case ErrorCode::kNotFound: return "CHKPT_NOT_FOUND";
    case ErrorCode::kNoSpace: return "CHKPT_NO_SPACE";
    case ErrorCode::kPermission: return "CHKPT_PERMISSION";
    case ErrorCode::kIo: return "CHKPT_IO";
    case ErrorCode::kMemoryShort: return "CHKPT_MEMORY_SHORT";
    case ErrorCode::kMemoryDetached: return "CHKPT_MEMORY_DETACHED";
    case ErrorCode::kNoMemory: return "CHKPT_NO_MEMORY";
    case ErrorCode::kUnsupported: return "CHKPT_UNSUPPORTED";
    case ErrorCode::kClosed: return "CHKPT_CLOSED";
    case ErrorCode::kAborted: return "CHKPT_ABORTED";
    case ErrorCode::kSnapshotLost: return "CHKPT_SNAPSHOT_LOST";
    case ErrorCode::kInternal: return "CHKPT_INTERNAL";
  }
  return "CHKPT_INTERNAL";
}

Error SystemError(int system_errno, std::string what) {
  ErrorCode code = ErrorCode::kIo;
  switch (system_errno) {
    case ENOENT:
    case ENOTDIR: code = ErrorCode::kNotFound; break;
    case ENOSPC:
    case EDQUOT:
    case EFBIG: code = ErrorCode::kNoSpace; break;
    case EACCES:
    case EPERM:
    case EROFS:
    case ELOOP: code = ErrorCode::kPermission; break;
    case ENOMEM: code = ErrorCode::kNoMemory; break;
    default: break;
  }
  what += ": ";
  what += std::strerror(system_errno);
  return Error{.code = code, .message = std::move(what), .system_errno = system_errno};
}

}  // namespace chkpt

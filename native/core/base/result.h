// Result<T>: a value or an error. Operating errors travel this way; bugs of ours end in
// CHKPT_CHECK.
//
// No exceptions: the core is compiled with -fno-exceptions.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include "core/base/check.h"

namespace chkpt {

// Names match the error table in src/errors/error-table.ts without the CHKPT_ prefix;
// ErrorCodeName() gives the JavaScript code.
enum class ErrorCode : std::uint8_t {
  kDigest,
  kTruncated,
  kTrailingData,
  kFormat,
  kLimit,
  kDecode,
  kVersion,
  kNotFound,
  kNoSpace,
  kPermission,
  kIo,
  kMemoryShort,
  kMemoryDetached,
  kNoMemory,
  kUnsupported,
  kClosed,
  kAborted,
  kSnapshotLost,
  kInternal,
};

const char* ErrorCodeName(ErrorCode code);

// One past what any frame, page or offset can be: "not known".
inline constexpr std::uint64_t kUnknown = ~std::uint64_t{0};

struct Error {
  ErrorCode code = ErrorCode::kInternal;
  std::string message;
  // errno of the failed call, 0 if none.
  int system_errno = 0;
  std::uint64_t frame = kUnknown;
  std::uint64_t offset = kUnknown;
  std::uint64_t page = kUnknown;
};

// Maps errno to a code: ENOSPC/EDQUOT/EFBIG, ENOENT/ENOTDIR, EACCES/EPERM/EROFS/ELOOP, ENOMEM, else
// kIo.
Error SystemError(int system_errno, std::string what);

template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : value_(std::move(value)) {}      // NOLINT: implicit on purpose
  Result(Error error) : error_(std::move(error)) {}  // NOLINT: implicit on purpose

  bool ok() const { return value_.has_value(); }
  T& value() {
    CHKPT_CHECK(ok());
    return *value_;
  }
  const T& value() const {
    CHKPT_CHECK(ok());
    return *value_;
  }
  Error& error() {
    CHKPT_CHECK(!ok());
    return error_;
  }

 private:
  std::optional<T> value_;
  Error error_;
};

struct Nothing {};
using Status = Result<Nothing>;
inline Status Ok() { return Status(Nothing{}); }

}  // namespace chkpt

// Two names of a file system change places in one step.
#pragma once

#include <string>

#include "core/base/result.h"

namespace chkpt {

// Whoever looks finds both, as they were or exchanged. Errors: kUnsupported where the kernel or the
// file system cannot, kNotFound, kPermission, kIo.
Status ExchangePaths(const std::string& left, const std::string& right);

}  // namespace chkpt

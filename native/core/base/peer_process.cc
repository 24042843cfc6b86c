#include "core/base/peer_process.h"

#include <sys/socket.h>

#include <cerrno>

namespace chkpt {

Result<std::uint64_t> PeerProcess(int fd) {
  ucred credentials{};
  socklen_t bytes = sizeof(credentials);
  if (::getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &bytes) != 0) {
    return Error{.code = ErrorCode::kIo, .message = "no UNIX socket", .system_errno = errno};
  }
  return static_cast<std::uint64_t>(credentials.pid);
}

}  // namespace chkpt

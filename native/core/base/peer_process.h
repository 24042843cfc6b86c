// Who is at the other end of a UNIX socket.
#pragma once

#include <cstdint>

#include "core/base/result.h"

namespace chkpt {

// Process id of the peer of a connected UNIX socket: for a client, of the process that listens
// (SO_PEERCRED, unix(7)). kIo when `fd` is no such socket. 0 when the peer is in a PID namespace
// that this process does not see.
Result<std::uint64_t> PeerProcess(int fd);

}  // namespace chkpt

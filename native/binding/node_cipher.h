// The AEAD ciphers and SHA-256 of the OpenSSL that Node brings, called from any thread. Found at
// run time among the symbols of the process: the addon links nothing and needs no headers for them
// (OpenSSL 3, EVP_EncryptInit(3), EVP_Digest(3); stable since 1.1).
//
// Thread safety: a NodeCipher is used by one thread at a time.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <span>

#include "core/base/result.h"

namespace chkpt::binding {

inline constexpr std::size_t kSealKeyBytes = 32;
inline constexpr std::size_t kSealNonceBytes = 12;
inline constexpr std::size_t kSealTagBytes = 16;

enum class SealAlgorithm { kAes256Gcm = 1, kChaCha20Poly1305 = 2 };

// While one stands, the process does not leave exit(3): OpenSSL takes itself down there, also under
// threads that are using it.
class CipherUse {
 public:
  CipherUse();

 private:
  std::shared_lock<std::shared_mutex> lock_;
};

class NodeCipher {
 public:
  // Error kUnsupported: this process has no such cipher. Copies the key into memory of OpenSSL,
  // which clears it.
  static Result<std::unique_ptr<NodeCipher>> OpenToSeal(SealAlgorithm algorithm,
                                                        std::span<const std::uint8_t> key);
  ~NodeCipher();
  NodeCipher(const NodeCipher&) = delete;
  NodeCipher& operator=(const NodeCipher&) = delete;

  // A message: Begin, any number of Update, End. Errors: kInternal.
  Status Begin(std::span<const std::uint8_t> nonce);
  // REQUIRES: `out` has room for as many bytes as `in` has.
  Status Update(std::span<const std::uint8_t> in, std::uint8_t* out);
  Status End(std::span<std::uint8_t> tag);

 private:
  explicit NodeCipher(void* context) : context_(context) {}

  void* const context_;
};

using Sha256Digest = std::array<std::uint8_t, 32>;

// REQUIRES: a CipherUse stands. Errors: kUnsupported (this process has no such digest), kInternal.
Result<Sha256Digest> NodeSha256(std::span<const std::uint8_t> bytes);

}  // namespace chkpt::binding

#include "binding/node_cipher.h"

#include <dlfcn.h>

#include <algorithm>
#include <climits>
#include <cstdlib>

namespace chkpt::binding {
namespace {

constexpr int kGetTag = 0x10;  // EVP_CTRL_AEAD_GET_TAG

template <typename Function>
void Find(Function*& function, const char* name) {
  function = reinterpret_cast<Function*>(::dlsym(RTLD_DEFAULT, name));
}

struct Evp {
  Evp() {
    Find(new_context, "EVP_CIPHER_CTX_new");
    Find(free_context, "EVP_CIPHER_CTX_free");
    Find(control, "EVP_CIPHER_CTX_ctrl");
    Find(encrypt_init, "EVP_EncryptInit_ex");
    Find(encrypt_update, "EVP_EncryptUpdate");
    Find(encrypt_final, "EVP_EncryptFinal_ex");
    Find(set_mark, "ERR_set_mark");
    Find(pop_to_mark, "ERR_pop_to_mark");
    Find(aes_256_gcm, "EVP_aes_256_gcm");
    Find(chacha20_poly1305, "EVP_chacha20_poly1305");
    Find(digest, "EVP_Digest");
    Find(sha256, "EVP_sha256");
  }

  const void* CipherOf(SealAlgorithm algorithm) const {
    const bool whole = new_context != nullptr && free_context != nullptr && control != nullptr &&
                       encrypt_init != nullptr && encrypt_update != nullptr &&
                       encrypt_final != nullptr && set_mark != nullptr && pop_to_mark != nullptr;
    const auto find = algorithm == SealAlgorithm::kAes256Gcm ? aes_256_gcm : chacha20_poly1305;
    return whole && find != nullptr ? find() : nullptr;
  }

  void* (*new_context)() = nullptr;
  void (*free_context)(void*) = nullptr;
  int (*control)(void*, int, int, void*) = nullptr;
  int (*encrypt_init)(void*, const void*, void*, const unsigned char*,
                      const unsigned char*) = nullptr;
  int (*encrypt_update)(void*, unsigned char*, int*, const unsigned char*, int) = nullptr;
  int (*encrypt_final)(void*, unsigned char*, int*) = nullptr;
  int (*set_mark)() = nullptr;
  int (*pop_to_mark)() = nullptr;
  const void* (*aes_256_gcm)() = nullptr;
  const void* (*chacha20_poly1305)() = nullptr;
  int (*digest)(const void*, std::size_t, unsigned char*, unsigned*, const void*, void*) = nullptr;
  const void* (*sha256)() = nullptr;
};

const Evp& Library() {
  static const Evp evp;
  return evp;
}

// Never destroyed: threads may outlive static objects.
std::shared_mutex& Uses() {
  static auto* const uses = [] {
    auto* mutex = new std::shared_mutex;
    // Behind the handler that OpenSSL has registered when it began, so before it in turn. Not
    // unlocked.
    static std::shared_mutex* const at_exit = mutex;
    (void)std::atexit([] { at_exit->lock(); });
    return mutex;
  }();
  return *uses;
}

Status Check(bool is_right) {
  if (is_right) return Ok();
  return Error{.code = ErrorCode::kInternal, .message = "the cipher failed"};
}

}  // namespace

CipherUse::CipherUse() : lock_(Uses()) {}

Result<std::unique_ptr<NodeCipher>> NodeCipher::OpenToSeal(SealAlgorithm algorithm,
                                                           std::span<const std::uint8_t> key) {
  const Evp& evp = Library();
  const void* cipher = evp.CipherOf(algorithm);
  if (cipher == nullptr || key.size() != kSealKeyBytes) {
    return Error{.code = ErrorCode::kUnsupported, .message = "this process has no such cipher"};
  }
  void* context = evp.new_context();
  if (context == nullptr) {
    return Error{.code = ErrorCode::kNoMemory, .message = "no memory for a cipher"};
  }
  std::unique_ptr<NodeCipher> opened(new NodeCipher(context));
  // What goes wrong is told here, not to whoever asks OpenSSL on this thread later.
  evp.set_mark();
  const Status begun = Check(evp.encrypt_init(context, cipher, nullptr, key.data(), nullptr) == 1);
  evp.pop_to_mark();
  if (!begun.ok()) return Status(begun).error();
  return opened;
}

NodeCipher::~NodeCipher() { Library().free_context(context_); }

Status NodeCipher::Begin(std::span<const std::uint8_t> nonce) {
  if (nonce.size() != kSealNonceBytes) return Check(false);
  return Check(Library().encrypt_init(context_, nullptr, nullptr, nullptr, nonce.data()) == 1);
}

Status NodeCipher::Update(std::span<const std::uint8_t> in, std::uint8_t* out) {
  while (!in.empty()) {
    const std::size_t bytes = std::min<std::size_t>(in.size(), INT_MAX / 2);
    int made = 0;
    const bool is_right =
        Library().encrypt_update(context_, out, &made, in.data(), static_cast<int>(bytes)) == 1;
    if (!is_right || made != static_cast<int>(bytes)) return Check(false);
    in = in.subspan(bytes);
    out += bytes;
  }
  return Ok();
}

Status NodeCipher::End(std::span<std::uint8_t> tag) {
  if (tag.size() != kSealTagBytes) return Check(false);
  std::uint8_t rest[kSealTagBytes];
  int made = 0;
  if (Library().encrypt_final(context_, rest, &made) != 1 || made != 0) return Check(false);
  return Check(Library().control(context_, kGetTag, static_cast<int>(tag.size()), tag.data()) == 1);
}

Result<Sha256Digest> NodeSha256(std::span<const std::uint8_t> bytes) {
  const Evp& evp = Library();
  if (evp.digest == nullptr || evp.sha256 == nullptr) {
    return Error{.code = ErrorCode::kUnsupported, .message = "this process has no SHA-256"};
  }
  Sha256Digest digest;
  unsigned made = 0;
  Status status = Check(
      evp.digest(bytes.data(), bytes.size(), digest.data(), &made, evp.sha256(), nullptr) == 1 &&
      made == digest.size());
  if (!status.ok()) return status.error();
  return digest;
}

}  // namespace chkpt::binding

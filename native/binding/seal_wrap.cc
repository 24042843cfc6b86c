#include "binding/seal_wrap.h"

#include <string.h>

#include <algorithm>
#include <array>
#include <climits>
#include <utility>
#include <vector>

#include "binding/convert.h"
#include "binding/node_cipher.h"
#include "binding/task.h"

namespace chkpt::binding {
namespace {

constexpr std::uint64_t kRecordBytesMax = std::uint64_t{4} << 20;
constexpr std::uint64_t kRecordsMax = std::uint64_t{1} << 52;

using Nonce = std::array<std::uint8_t, kSealNonceBytes>;

// As src/store/seal/seal-record.ts has it.
Nonce NonceOf(std::uint64_t record) {
  Nonce nonce{};
  for (int i = 0; i < 8; ++i) nonce[i] = static_cast<std::uint8_t>(record >> (8 * i));
  return nonce;
}

using Pieces = std::vector<std::span<const std::uint8_t>>;

// Takes records of bytes that lie in pieces.
class RecordSource {
 public:
  explicit RecordSource(const Pieces& pieces) : pieces_(pieces) {}

  Status SealOne(NodeCipher& cipher, std::uint64_t record, std::span<std::uint8_t> out) {
    Status status = cipher.Begin(NonceOf(record));
    const std::size_t content = out.size() - kSealTagBytes;
    for (std::size_t done = 0; status.ok() && done < content;) {
      const auto piece = pieces_[index_].subspan(at_);
      const std::size_t bytes = std::min(piece.size(), content - done);
      status = cipher.Update(piece.first(bytes), out.data() + done);
      done += bytes;
      at_ += bytes;
      if (at_ == pieces_[index_].size()) {
        at_ = 0;
        ++index_;
      }
    }
    return status.ok() ? cipher.End(out.subspan(content)) : status;
  }

 private:
  const Pieces& pieces_;
  std::size_t index_ = 0;
  std::size_t at_ = 0;
};

}  // namespace

struct SealWrap::Settings {
  Settings(SealAlgorithm chosen, std::span<const std::uint8_t> bytes, std::size_t size)
      : algorithm(chosen), record_bytes(size) {
    std::copy(bytes.begin(), bytes.end(), key.begin());
  }
  ~Settings() { ::explicit_bzero(key.data(), key.size()); }

  Status Seal(std::uint64_t first, const Pieces& pieces, std::span<std::uint8_t> out,
              const std::atomic<bool>& cancelled) const {
    const CipherUse use;
    auto cipher = NodeCipher::OpenToSeal(algorithm, key);
    if (!cipher.ok()) return cipher.error();
    RecordSource source(pieces);
    const std::size_t stored = record_bytes + kSealTagBytes;
    for (std::size_t at = 0; at < out.size() && !cancelled; at += stored, ++first) {
      Status status = source.SealOne(*cipher.value(), first, out.subspan(at, stored));
      if (!status.ok()) return status;
    }
    return Ok();
  }

  const SealAlgorithm algorithm;
  const std::size_t record_bytes;
  std::array<std::uint8_t, kSealKeyBytes> key;
};

void SealWrap::Define(Napi::Env env, Napi::Object exports) {
  exports.Set("RecordSealer",
              DefineClass(env, "RecordSealer",
                          {
                              InstanceMethod<&SealWrap::WriteTo>("writeTo"),
                              InstanceMethod<&SealWrap::StayInMemory>("stayInMemory"),
                              InstanceMethod<&SealWrap::Seal>("seal"),
                          }));
}

SealWrap::SealWrap(const Napi::CallbackInfo& info) : Napi::ObjectWrap<SealWrap>(info) {
  const auto algorithm = ToUint64(info[0]);
  const auto key = ToBytes(info[1]);
  const auto record_bytes = ToUint64(info[2]);
  if (!algorithm || *algorithm < 1 || *algorithm > 2 || !key || key->size() != kSealKeyBytes ||
      !record_bytes || *record_bytes < 1 || *record_bytes > kRecordBytesMax) {
    ThrowType(info.Env(), "an algorithm, a key and the size of a record expected");
    return;
  }
  const auto chosen = static_cast<SealAlgorithm>(*algorithm);
  const CipherUse use;
  auto cipher = NodeCipher::OpenToSeal(chosen, *key);
  if (!cipher.ok()) {
    Throw(info.Env(), cipher.error());
    return;
  }
  settings_ = std::make_shared<const Settings>(chosen, *key, *record_bytes);
}

Napi::Value SealWrap::WriteTo(const Napi::CallbackInfo& info) {
  const auto descriptor = ToUint64(info[0]);
  const auto position = ToUint64(info[1]);
  if (!descriptor || *descriptor > INT_MAX || !position) {
    return ThrowType(info.Env(), "a descriptor and a position expected");
  }
  auto output = SlabOutput::Open(static_cast<int>(*descriptor), *position);
  output_ = output.ok() ? std::move(output.value()) : nullptr;
  return Napi::Boolean::New(info.Env(), output_ != nullptr);
}

void SealWrap::StayInMemory(const Napi::CallbackInfo&) { output_ = nullptr; }

Napi::Value SealWrap::Seal(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto first = ToUint64(info[0]);
  const auto out = ToBytes(info[2]);
  const auto offset = ToUint64(info[3]);
  if (!first || *first > kRecordsMax || !info[1].IsArray() || !out || !offset) {
    return ThrowType(env, "a record, an array of Uint8Arrays, a Uint8Array and an offset expected");
  }
  auto keep = std::make_shared<std::vector<Napi::ObjectReference>>();
  keep->push_back(Napi::Persistent(info[2].As<Napi::Object>()));
  Pieces pieces;
  std::size_t bytes = 0;
  const Napi::Array array = info[1].As<Napi::Array>();
  for (std::uint32_t i = 0; i < array.Length(); ++i) {
    const Napi::Value item = array.Get(i);
    const auto piece = ToBytes(item);
    if (!piece) return ThrowType(env, "pieces must be Uint8Arrays");
    keep->push_back(Napi::Persistent(item.As<Napi::Object>()));
    if (piece->empty()) continue;
    pieces.emplace_back(*piece);
    bytes += piece->size();
  }
  const std::size_t records = bytes / settings_->record_bytes;
  if (bytes != records * settings_->record_bytes ||
      out->size() != bytes + records * kSealTagBytes) {
    return ThrowType(env, "whole records, and room for them with their tags expected");
  }
  return Task<int>::Run(
      env,
      [settings = settings_, output = output_, first = *first, pieces = std::move(pieces),
       out = *out, offset = *offset](const std::atomic<bool>& cancelled) -> Result<int> {
        Status status = settings->Seal(first, pieces, out, cancelled);
        if (!status.ok()) return status.error();
        if (output == nullptr || cancelled) return 0;
        status = output->Write(offset, out);
        return status.ok() ? 0 : status.error().system_errno;
      },
      [keep](Napi::Env where, const int& failure) { return Napi::Number::New(where, failure); });
}

}  // namespace chkpt::binding

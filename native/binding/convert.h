// Conversions between JavaScript and the core. Arguments were validated by src/native and
// src/memory; what still can be wrong here is a caller that bypasses them, and gets a TypeError.
#pragma once

#include <napi.h>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "core/base/result.h"
#include "core/format/block_index.h"
#include "core/format/frame.h"
#include "core/memory/guest_memory.h"
#include "core/parallel/page_totals.h"

namespace chkpt::binding {

// An Error object with `code` and, where known, `errno`, `frame`, `offset`, `page`. src/native
// makes a CheckpointError of it.
Napi::Value ToJs(Napi::Env env, const Error& error);
void Throw(Napi::Env env, const Error& error);
// TypeError; returns an empty value for `return`.
Napi::Value ThrowType(Napi::Env env, const char* message);

// Non-negative integers up to 2^53 - 1, as number; up to 2^64 - 1, as bigint.
std::optional<std::uint64_t> ToUint64(const Napi::Value& value);
Napi::Value Number(Napi::Env env, std::uint64_t value);

// False for what is not true, and for what cannot be asked any more: in an environment that is
// about to end a property is a value without an environment, and asking that ends the process.
bool ToBool(const Napi::Value& value);

// The native side of an object with that tag; null when it is none, and in an environment that is
// about to end: there each call may fail where the one before did not, without an exception.
template <typename Wrap>
Wrap* UnwrapTagged(const Napi::Value& value, const napi_type_tag& tag) {
  bool is_tagged = false;
  if (!value.IsObject() ||
      napi_check_object_type_tag(value.Env(), value, &tag, &is_tagged) != napi_ok || !is_tagged) {
    return nullptr;
  }
  void* wrap = nullptr;
  if (napi_unwrap(value.Env(), value, &wrap) != napi_ok) return nullptr;
  return static_cast<Wrap*>(wrap);
}

// The bytes of a Uint8Array, valid during this call. Nothing when it is no Uint8Array or detached
// (length 0 with no data).
std::optional<std::span<std::uint8_t>> ToBytes(const Napi::Value& value);

// [[base, bytes], …] of bigints.
std::optional<std::vector<RegionSpec>> ToRegions(const Napi::Value& value);

// {uuid, epoch, sequence, offset}
std::optional<StreamPosition> ToPosition(const Napi::Object& object);

// A typed array of its own with these values (std::uint8_t, std::uint32_t or double). Undefined in
// an environment that is about to end: there nothing can be made any more, and nobody looks.
template <typename T>
Napi::Value CopyToJs(Napi::Env env, std::span<const T> values) {
  Napi::TypedArrayOf<T> array = Napi::TypedArrayOf<T>::New(env, values.size());
  if (array.IsEmpty()) return env.Undefined();
  std::copy(values.begin(), values.end(), array.Data());
  return array;
}

// Values of 8 bytes, little-endian, as a Uint8Array of their own.
Napi::Value DigestsToJs(Napi::Env env, std::span<const std::uint64_t> digests);

// {pages, zeroPages, fillPages, storedPages, samePages, encodedBytes}
Napi::Object TotalsToJs(Napi::Env env, const PageTotals& totals);

// [{firstPage, pageCount, offset}, …]
Napi::Value GroupsToJs(Napi::Env env, std::span<const IndexGroup> groups);

}  // namespace chkpt::binding

#include "binding/convert.h"

#include <cmath>

#include "core/base/bytes.h"

namespace chkpt::binding {

Napi::Value ToJs(Napi::Env env, const Error& error) {
  Napi::Object object = Napi::Error::New(env, error.message).Value();
  object.Set("code", ErrorCodeName(error.code));
  if (error.system_errno != 0) object.Set("errno", error.system_errno);
  if (error.frame != kUnknown) object.Set("frame", static_cast<double>(error.frame));
  if (error.offset != kUnknown) object.Set("offset", static_cast<double>(error.offset));
  if (error.page != kUnknown) object.Set("page", static_cast<double>(error.page));
  return object;
}

void Throw(Napi::Env env, const Error& error) { napi_throw(env, ToJs(env, error)); }

Napi::Value ThrowType(Napi::Env env, const char* message) {
  Napi::TypeError::New(env, message).ThrowAsJavaScriptException();
  return {};
}

std::optional<std::uint64_t> ToUint64(const Napi::Value& value) {
  if (value.IsBigInt()) {
    bool lossless = false;
    const std::uint64_t result = value.As<Napi::BigInt>().Uint64Value(&lossless);
    if (!lossless) return std::nullopt;
    return result;
  }
  if (!value.IsNumber()) return std::nullopt;
  const double number = value.As<Napi::Number>().DoubleValue();
  if (!(number >= 0) || number > 9007199254740991.0 || std::floor(number) != number) {
    return std::nullopt;
  }
  return static_cast<std::uint64_t>(number);
}

Napi::Value Number(Napi::Env env, std::uint64_t value) {
  return Napi::Number::New(env, static_cast<double>(value));
}

bool ToBool(const Napi::Value& value) {
  bool result = false;
  return !value.IsEmpty() && napi_get_value_bool(value.Env(), value, &result) == napi_ok && result;
}

std::optional<std::span<std::uint8_t>> ToBytes(const Napi::Value& value) {
  if (!value.IsTypedArray()) return std::nullopt;
  napi_typedarray_type type;
  std::size_t length = 0;
  void* data = nullptr;
  napi_value buffer = nullptr;
  if (napi_get_typedarray_info(value.Env(), value, &type, &length, &data, &buffer, nullptr) !=
          napi_ok ||
      type != napi_uint8_array) {
    return std::nullopt;
  }
  bool detached = false;
  napi_is_detached_arraybuffer(value.Env(), buffer, &detached);
  if (detached) return std::nullopt;
  return std::span<std::uint8_t>(static_cast<std::uint8_t*>(data), length);
}

std::optional<std::vector<RegionSpec>> ToRegions(const Napi::Value& value) {
  if (!value.IsArray()) return std::nullopt;
  const Napi::Array array = value.As<Napi::Array>();
  if (array.Length() > kRegionCountMax) return std::nullopt;
  std::vector<RegionSpec> specs;
  for (std::uint32_t i = 0; i < array.Length(); ++i) {
    const Napi::Value item = array.Get(i);
    if (!item.IsArray()) return std::nullopt;
    const auto base = ToUint64(item.As<Napi::Array>().Get(0u));
    const auto bytes = ToUint64(item.As<Napi::Array>().Get(1u));
    if (!base || !bytes) return std::nullopt;
    specs.push_back({*base, *bytes});
  }
  return specs;
}

std::optional<StreamPosition> ToPosition(const Napi::Object& object) {
  const auto uuid = ToBytes(object.Get("uuid"));
  const auto epoch = ToUint64(object.Get("epoch"));
  const auto sequence = ToUint64(object.Get("sequence"));
  const auto offset = ToUint64(object.Get("offset"));
  if (!uuid || uuid->size() != 16 || !epoch || !sequence || !offset) return std::nullopt;
  StreamPosition position{.epoch = *epoch, .sequence = *sequence, .offset = *offset};
  std::copy(uuid->begin(), uuid->end(), position.uuid.begin());
  return position;
}

Napi::Value DigestsToJs(Napi::Env env, std::span<const std::uint64_t> digests) {
  std::vector<std::uint8_t> bytes(digests.size() * 8);
  for (std::size_t i = 0; i < digests.size(); ++i) Store(bytes.data() + 8 * i, digests[i]);
  return CopyToJs<std::uint8_t>(env, bytes);
}

Napi::Object TotalsToJs(Napi::Env env, const PageTotals& totals) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("pages", Number(env, totals.pages));
  object.Set("zeroPages", Number(env, totals.zero_pages));
  object.Set("fillPages", Number(env, totals.fill_pages));
  object.Set("storedPages", Number(env, totals.stored_pages));
  object.Set("samePages", Number(env, totals.same_pages));
  object.Set("parentPages", Number(env, totals.parent_pages));
  object.Set("encodedBytes", Number(env, totals.encoded_bytes));
  return object;
}

Napi::Value GroupsToJs(Napi::Env env, std::span<const IndexGroup> groups) {
  Napi::Array array = Napi::Array::New(env, groups.size());
  for (std::uint32_t i = 0; i < groups.size(); ++i) {
    Napi::Object group = Napi::Object::New(env);
    group.Set("firstPage", Number(env, groups[i].first_page));
    group.Set("pageCount", Number(env, groups[i].page_count));
    group.Set("offset", Number(env, groups[i].offset));
    array.Set(i, group);
  }
  return array;
}

}  // namespace chkpt::binding

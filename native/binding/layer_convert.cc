#include "binding/layer_convert.h"

#include <algorithm>
#include <utility>

#include "binding/convert.h"
#include "binding/pool_wrap.h"
#include "binding/requests_wrap.h"

namespace chkpt::binding {
namespace {

const Error kBadExtent = {.code = ErrorCode::kFormat, .message = "extents of a store expected"};

std::optional<std::vector<IndexGroup>> ToGroups(const Napi::Value& value) {
  if (!value.IsArray()) return std::nullopt;
  const Napi::Array array = value.As<Napi::Array>();
  std::vector<IndexGroup> groups;
  for (std::uint32_t i = 0; i < array.Length(); ++i) {
    const Napi::Value item = array.Get(i);
    if (!item.IsObject()) return std::nullopt;
    const Napi::Object object = item.As<Napi::Object>();
    const auto first_page = ToUint64(object.Get("firstPage"));
    const auto page_count = ToUint64(object.Get("pageCount"));
    const auto offset = ToUint64(object.Get("offset"));
    if (!first_page || !page_count || !offset) return std::nullopt;
    groups.push_back({*first_page, *page_count, *offset});
  }
  return groups;
}

Result<std::unique_ptr<ExtentSource>> ToSource(const Napi::Value& value,
                                               std::vector<Napi::ObjectReference>* pins) {
  if (!value.IsArray()) return kBadExtent;
  const Napi::Array array = value.As<Napi::Array>();
  std::vector<ExtentSource::Extent> extents;
  for (std::uint32_t i = 0; i < array.Length(); ++i) {
    const Napi::Value item = array.Get(i);
    if (!item.IsObject()) return kBadExtent;
    const Napi::Object object = item.As<Napi::Object>();
    const auto bytes = ToUint64(object.Get("bytes"));
    if (!bytes) return kBadExtent;
    if (auto source = PooledSourceWrap::SourceOf(object.Get("source"))) {
      if (source->byte_count() != *bytes) return kBadExtent;
      extents.push_back({.bytes = *bytes, .source = std::move(source)});
      continue;
    }
    const auto view = ToBytes(object.Get("view"));
    if (view) {
      if (view->size() < *bytes) return kBadExtent;
      extents.push_back({.bytes = *bytes, .memory = view->data()});
      pins->push_back(Napi::Persistent(object.Get("view").As<Napi::Object>()));
      continue;
    }
    const auto descriptor = ToUint64(object.Get("descriptor"));
    const auto position = ToUint64(object.Get("position"));
    if (!descriptor || *descriptor > 0x7fffffff || !position) return kBadExtent;
    extents.push_back(
        {.bytes = *bytes, .fd = static_cast<int>(*descriptor), .fd_offset = *position});
  }
  return ExtentSource::Open(extents);
}

}  // namespace

std::optional<LazyLayer> ToLayer(const Napi::Value& value,
                                 std::vector<Napi::ObjectReference>* pins) {
  const Napi::Env env = value.Env();
  if (!value.IsObject()) {
    ThrowType(env, "a layer expected");
    return std::nullopt;
  }
  const Napi::Object object = value.As<Napi::Object>();
  const auto uuid = ToBytes(object.Get("uuid"));
  const auto epoch = ToUint64(object.Get("epoch"));
  const auto end = ToUint64(object.Get("endOffset"));
  auto groups = ToGroups(object.Get("groups"));
  if (!uuid || uuid->size() != 16 || !epoch || !end || !groups) {
    ThrowType(env, "a layer is not valid");
    return std::nullopt;
  }
  LazyLayer layer;
  layer.source = RequestsWrap::SourceOf(object.Get("source"));
  if (layer.source == nullptr) {
    auto source = ToSource(object.Get("extents"), pins);
    if (!source.ok()) {
      Throw(env, source.error());
      return std::nullopt;
    }
    layer.source = std::move(source.value());
  }
  std::copy(uuid->begin(), uuid->end(), layer.uuid.begin());
  layer.epoch = *epoch;
  layer.has_parent = ToBool(object.Get("hasParent"));
  layer.groups = std::move(*groups);
  layer.end_offset = *end;
  return layer;
}

}  // namespace chkpt::binding

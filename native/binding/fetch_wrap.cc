#include "binding/fetch_wrap.h"

#include <utility>

#include "binding/convert.h"
#include "binding/layer_convert.h"
#include "binding/memory_wrap.h"
#include "binding/page_set_wrap.h"
#include "binding/task.h"

namespace chkpt::binding {
namespace {

constexpr napi_type_tag kLayerTag = {0x3c5be0a7f2914d16, 0xa8e07f54c1b92d3e};

}  // namespace

void LayerWrap::Define(Napi::Env env, Napi::Object exports) {
  exports.Set("BlockLayer", DefineClass(env, "BlockLayer",
                                        {
                                            InstanceMethod<&LayerWrap::Open>("open"),
                                            InstanceMethod<&LayerWrap::MarkHeld>("markHeld"),
                                        }));
}

LayerWrap::LayerWrap(const Napi::CallbackInfo& info) : Napi::ObjectWrap<LayerWrap>(info) {
  std::shared_ptr<GuestMemory> memory = MemoryWrap::MemoryOf(info[0]);
  if (memory == nullptr) return;
  std::optional<LazyLayer> layer = ToLayer(info[1], &pins_);
  if (!layer) return;
  info.This().As<Napi::Object>().TypeTag(&kLayerTag);
  opening_ = std::make_shared<Opening>(Opening{std::move(memory), std::move(*layer), nullptr});
}

std::shared_ptr<const BlockLayer> LayerWrap::LayerOf(const Napi::Value& value) {
  const LayerWrap* const wrap = UnwrapTagged<LayerWrap>(value, kLayerTag);
  if (wrap == nullptr) {
    ThrowType(value.Env(), "a block layer expected");
    return nullptr;
  }
  auto layer = wrap->layer_;
  if (layer == nullptr) ThrowType(value.Env(), "the block layer is not open");
  return layer;
}

Napi::Value LayerWrap::Open(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  std::shared_ptr<Opening> opening = std::exchange(opening_, nullptr);
  if (opening == nullptr) return ThrowType(env, "the block layer was opened before");
  auto self = std::make_shared<Napi::ObjectReference>(
      Napi::Persistent(info.This().As<Napi::Object>()));  // what it reads from stays
  return Task<Nothing>::Run(
      env,
      [opening](const std::atomic<bool>&) -> Result<Nothing> {
        auto opened = BlockLayer::Open(std::move(opening->layer), *opening->memory);
        if (!opened.ok()) return opened.error();
        opening->opened = std::move(opened.value());
        return Nothing{};
      },
      [this, opening, self](Napi::Env e, const Nothing&) {
        layer_ = std::move(opening->opened);
        return e.Undefined();
      });
}

// markHeld(pages)
Napi::Value LayerWrap::MarkHeld(const Napi::CallbackInfo& info) {
  const auto set = PageSetWrap::SetOf(info[0]);
  if (set == nullptr) return {};
  if (layer_ == nullptr || set->page_count() != layer_->page_count()) {
    return ThrowType(info.Env(), "an open layer and a set of its pages expected");
  }
  layer_->MarkHeld(set.get());
  return info.Env().Undefined();
}

void FetchWrap::Define(Napi::Env env, Napi::Object exports) {
  exports.Set("PageFetch", DefineClass(env, "PageFetch",
                                       {
                                           InstanceMethod<&FetchWrap::Run>("run"),
                                           InstanceMethod<&FetchWrap::PagesDone>("pagesDone"),
                                           InstanceMethod<&FetchWrap::Cancel>("cancel"),
                                       }));
}

FetchWrap::FetchWrap(const Napi::CallbackInfo& info) : Napi::ObjectWrap<FetchWrap>(info) {
  std::shared_ptr<GuestMemory> memory = MemoryWrap::MemoryOf(info[0]);
  if (memory == nullptr) return;
  if (!info[1].IsArray() || info[1].As<Napi::Array>().Length() == 0) {
    ThrowType(info.Env(), "layers expected");
    return;
  }
  const Napi::Array array = info[1].As<Napi::Array>();
  std::vector<std::shared_ptr<const BlockLayer>> layers;
  for (std::uint32_t i = 0; i < array.Length(); ++i) {
    auto layer = LayerWrap::LayerOf(array.Get(i));
    if (layer == nullptr) return;
    if (layer->page_count() != memory->page_count()) {
      ThrowType(info.Env(), "layers of this memory expected");
      return;
    }
    layers.push_back(std::move(layer));
  }
  // Not a member of Work: a thread that ends last must not touch JavaScript's objects.
  info.This().As<Napi::Object>().Set("layers", array);
  work_ = std::make_shared<Work>(std::move(memory), std::move(layers));
}

// run(pages | undefined, threads): Promise<{pages, written, blocks}>
Napi::Value FetchWrap::Run(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto threads = ToUint64(info[1]);
  if (!threads || *threads < 1 || *threads > 64) return ThrowType(env, "1 to 64 threads expected");
  std::shared_ptr<DirtyBitmap> pages;
  if (!info[0].IsUndefined()) {
    pages = PageSetWrap::SetOf(info[0]);
    if (pages == nullptr) return {};
  }
  if (work_ == nullptr || (pages != nullptr && pages->page_count() != work_->page_count) ||
      work_->busy.exchange(true)) {
    return ThrowType(env, "a fetch that is not busy and a set of its pages expected");
  }
  auto self =
      std::make_shared<Napi::ObjectReference>(Napi::Persistent(info.This().As<Napi::Object>()));
  return Task<FetchCounts>::Run(
      env,
      [work = work_, pages, count = static_cast<unsigned>(*threads)](
          const std::atomic<bool>& torn_down) -> Result<FetchCounts> {
        const auto cancelled = [&] { return torn_down.load() || work->cancelled.load(); };
        auto set = pages;
        if (set == nullptr) {
          set = std::make_shared<DirtyBitmap>(work->page_count);
          work->fetch.MarkContent(set.get());
        }
        auto counts = work->fetch.Run(*set, count, cancelled, &work->pages_done);
        work->busy = false;
        return counts;
      },
      [self](Napi::Env e, const FetchCounts& counts) {
        Napi::Object object = Napi::Object::New(e);
        object.Set("pages", Number(e, counts.pages));
        object.Set("written", Number(e, counts.written));
        object.Set("blocks", Number(e, counts.blocks));
        return object;
      });
}

Napi::Value FetchWrap::PagesDone(const Napi::CallbackInfo& info) {
  return Number(info.Env(), work_ == nullptr ? 0 : work_->pages_done.load());
}

Napi::Value FetchWrap::Cancel(const Napi::CallbackInfo& info) {
  if (work_ != nullptr) work_->cancelled = true;
  return info.Env().Undefined();
}

}  // namespace chkpt::binding

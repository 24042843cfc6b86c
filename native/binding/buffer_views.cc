#include "binding/buffer_views.h"

#include <utility>

#include "binding/convert.h"

namespace chkpt::binding {

Napi::ArrayBuffer ArrayBufferOver(Napi::Env env, std::shared_ptr<Buffer> buffer) {
  auto* keep = new std::shared_ptr<Buffer>(std::move(buffer));
  napi_value value = nullptr;
  const napi_status status = napi_create_external_arraybuffer(
      env, (*keep)->data(), (*keep)->bytes(),
      [](napi_env, void*, void* hint) { delete static_cast<std::shared_ptr<Buffer>*>(hint); }, keep,
      &value);
  if (status != napi_ok) {
    delete keep;
    Throw(env, {.code = ErrorCode::kUnsupported,
                .message = "this runtime does not allow external buffers"});
    return {};
  }
  return {env, value};
}

Napi::ArrayBuffer BufferViews::Of(Napi::Env env, const std::shared_ptr<Buffer>& buffer) {
  const auto found = entries_.find(buffer.get());
  if (found != entries_.end() && found->second.buffer.lock() == buffer) {
    const Napi::ArrayBuffer view = found->second.view.Value();
    if (!view.IsEmpty() && !view.IsDetached()) return view;
    if (!view.IsEmpty()) buffer->Spoil();
  }
  Trim();
  const Napi::ArrayBuffer view = ArrayBufferOver(env, buffer);
  if (view.IsEmpty()) return view;
  Entry& entry = entries_[buffer.get()];
  entry.is_weak = false;
  entry.buffer = buffer;
  entry.view = Napi::Reference<Napi::ArrayBuffer>::New(view, 1);
  return view;
}

void BufferViews::Trim() {
  std::erase_if(entries_, [](const auto& entry) { return entry.second.buffer.expired(); });
  for (auto& [address, entry] : entries_) {
    // Only the view: neither a pool nor a pipeline can get at the buffer again.
    if (entry.buffer.use_count() > 1 || entry.is_weak) continue;
    entry.view.Unref();
    entry.is_weak = true;
  }
}

}  // namespace chkpt::binding

// Native buffers as JavaScript sees them, without a copy.
//
// A view is handed out again when its buffer is: V8 counts the bytes of every external ArrayBuffer
// that is made towards its next garbage collection. So views are kept as long as anybody but
// JavaScript has the buffer.
//
// Thread safety: none; the JavaScript thread.
#pragma once

#include <napi.h>

#include <map>
#include <memory>

#include "core/memory/buffer_pool.h"

namespace chkpt::binding {

// An ArrayBuffer over all of `buffer`, which it keeps alive. Empty, with an exception pending, in a
// runtime without external buffers.
Napi::ArrayBuffer ArrayBufferOver(Napi::Env env, std::shared_ptr<Buffer> buffer);

class BufferViews {
 public:
  // The ArrayBuffer made before, or a new one; empty as above. When somebody detached the one made
  // before, its memory may have a new owner: then the buffer is spoiled too.
  Napi::ArrayBuffer Of(Napi::Env env, const std::shared_ptr<Buffer>& buffer);

  // Leaves to the garbage collector what nobody else has any more.
  void Trim();

 private:
  struct Entry {
    std::weak_ptr<Buffer> buffer;             // tells an old buffer at the same address
    Napi::Reference<Napi::ArrayBuffer> view;  // strong, until Trim makes it weak
    bool is_weak = false;
  };
  std::map<const Buffer*, Entry> entries_;
};

}  // namespace chkpt::binding

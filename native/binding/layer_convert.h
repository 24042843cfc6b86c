// A layer as JavaScript describes it: NativeLazyLayer of src/native/addon.ts.
#pragma once

#include <napi.h>

#include <optional>
#include <vector>

#include "core/lazy/block_layer.h"

namespace chkpt::binding {

// Nothing, with an exception pending, when `value` is no layer. What native threads will read from
// is added to `pins`, which the caller keeps as long as the layer.
std::optional<LazyLayer> ToLayer(const Napi::Value& value,
                                 std::vector<Napi::ObjectReference>* pins);

}  // namespace chkpt::binding

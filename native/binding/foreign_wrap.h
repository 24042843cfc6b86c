// Guest memory in formats of others, as functions over a GuestMemory, and what it takes to publish
// folders of them.
#pragma once

#include <napi.h>

namespace chkpt::binding {

void DefineForeign(Napi::Env env, Napi::Object exports);

}  // namespace chkpt::binding

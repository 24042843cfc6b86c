// Large buffers for stores that keep what they are given: allocated in huge pages, filled off the
// JavaScript thread.
#pragma once

#include <napi.h>

namespace chkpt::binding {

void DefineBuffers(Napi::Env env, Napi::Object exports);

}  // namespace chkpt::binding

// The one place that includes xxHash. XXH3 is the checksum of the format (64 bits) and of page
// equality (128 bits). Source: https://github.com/Cyan4973/xxHash, 0.8.3, doc/xxhash_spec.md.
#pragma once

#ifdef CHKPT_XXH_DISPATCH
#include <xxh_x86dispatch.h>  // picks SSE2, AVX2 or AVX-512 at run time
#else
#define XXH_INLINE_ALL
#include <xxhash.h>
#endif

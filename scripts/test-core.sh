#!/usr/bin/env bash
# Builds the core alone (no Node headers) and runs its GoogleTest suite.
#   test-core.sh [sanitizers]      for example: test-core.sh address,undefined
set -euo pipefail
cd "$(dirname "$0")/.."
sanitize=${1:-}
suffix=${sanitize:+-${sanitize//,/-}}
tree=out/core$suffix
generator=$(command -v ninja >/dev/null && echo Ninja || echo 'Unix Makefiles')
# Sanitizers: less optimisation, lines only, and eight sources at a time. The same findings for half of the time.
unity=OFF
flags=()
if [ -n "$sanitize" ]; then
  unity=ON
  flags=(-DCMAKE_CXX_FLAGS_RELWITHDEBINFO='-O1 -g -DNDEBUG')
fi
cmake -S . -B "$tree" -G "$generator" -DCHKPT_DEV=ON -DCMAKE_BUILD_TYPE=RelWithDebInfo \
  -DCMAKE_UNITY_BUILD=$unity "${flags[@]}" \
  -DCHKPT_SANITIZE="$sanitize" >/dev/null
cmake --build "$tree" -j 2 --target chkpt_core_test | { grep -vE '^\[[0-9]+/[0-9]+\] (Building|Linking)' || true; }
mkdir -p out/results
run=("$tree/chkpt_core_test" --gtest_brief=1 "--gtest_output=json:out/results/core$suffix.json")
# The mix of generated memory is made by one thread, and counting it takes long.
if [ "$sanitize" = thread ]; then run+=(--gtest_filter=-GuestLikeTest.*Mix*); fi
# gcc 12's ThreadSanitizer does not know kernels that randomise more address bits.
if [ "$sanitize" = thread ]; then run=(setarch -R "${run[@]}"); fi
TSAN_OPTIONS=exitcode=66 "${run[@]}"

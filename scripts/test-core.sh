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
run=("$tree/chkpt_core_test" --gtest_color=no)
shards=1
if [ "$sanitize" = thread ]; then
  # What one thread does by itself has no races, and takes long to watch.
  run+=(--gtest_filter=-GuestLikeTest.*:PoolTest.Forged*:Lz4EncoderTest.*:DeflateTest.*:*PageKernelsTest.*)
  # gcc 12's ThreadSanitizer does not know kernels that randomise more address bits.
  run=(setarch -R "${run[@]}")
  # It takes three times as long as all else: a processor that has nothing else to do takes half of it.
  shards=2
fi

# Bounded: a test that hangs is a failure with a name.
run_shard() {
  local name=core$suffix$1 log=out/results/core$suffix$1.log status=0
  GTEST_TOTAL_SHARDS=$shards GTEST_SHARD_INDEX=$2 TSAN_OPTIONS=exitcode=66 \
    timeout --kill-after=10 900 "${run[@]}" "--gtest_output=json:out/results/$name.json" >"$log" 2>&1 || status=$?
  # Reasons of skipped tests, counted; of a failure everything.
  if [ "$status" -eq 0 ]; then
    grep -vE '^\[|^$|: Skipped$|^Running main|^Note: ' "$log" | sort | uniq -c || true
    grep -E '^\[  PASSED|^\[  SKIPPED \] [0-9]' "$log"
  else
    grep -vE '^\[ +(RUN|OK|SKIPPED) +\]|^\[-+\]|^$' "$log" || true
  fi
  if [ "$status" -eq 124 ]; then echo "not done after 900 s: $(grep -E '^\[ RUN' "$log" | tail -1)"; fi
  return "$status"
}

if [ "$shards" -eq 1 ]; then
  run_shard '' 0
  exit
fi
run_shard -1 0 &
first=$!
status=0
run_shard -2 1 || status=$?
wait "$first" || status=$?
exit "$status"

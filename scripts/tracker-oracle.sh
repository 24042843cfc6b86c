#!/usr/bin/env bash
# The oracle of dirty trackers with N writes (default 10^8), on memory of each kind, in the tree of test-core.sh. Fails when a page was missed.
#   tracker-oracle.sh [N [SEED]]
set -euo pipefail
cd "$(dirname "$0")/.."
generator=$(command -v ninja >/dev/null && echo Ninja || echo 'Unix Makefiles')
cmake -S . -B out/core -G "$generator" -DCHKPT_DEV=ON -DCMAKE_BUILD_TYPE=RelWithDebInfo >/dev/null
cmake --build out/core -j 2 --target tracker_oracle >/dev/null
mkdir -p out/results
status=0
# Bounded, 1 s for each 100,000 writes: one that hangs is a failure with a name.
writes=${1:-100000000}
timeout --kill-after=10 "$((300 + writes / 100000))" out/core/tracker_oracle "$writes" "${2:-1}" || status=$?
if [ "$status" -eq 124 ]; then echo 'the oracle of dirty trackers was not done in time'; fi
echo "{\"passed\": $((status == 0)), \"failed\": $((status != 0))}" >out/results/oracle.json
exit "$status"

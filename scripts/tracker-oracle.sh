#!/usr/bin/env bash
# The oracle of dirty trackers with N writes (default 10^8), on memory of each kind.
#   tracker-oracle.sh [N [SEED]]
set -euo pipefail
cd "$(dirname "$0")/.."
generator=$(command -v ninja >/dev/null && echo Ninja || echo 'Unix Makefiles')
cmake -S . -B out/core -G "$generator" -DCHKPT_DEV=ON -DCMAKE_BUILD_TYPE=RelWithDebInfo >/dev/null
cmake --build out/core -j 2 --target tracker_oracle >/dev/null
out/core/tracker_oracle "${1:-100000000}" "${2:-1}"

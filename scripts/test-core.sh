#!/usr/bin/env bash
# Builds the core alone (no Node headers) and runs its GoogleTest suite.
#   test-core.sh [sanitizers]      for example: test-core.sh address,undefined
set -euo pipefail
cd "$(dirname "$0")/.."
sanitize=${1:-}
tree=out/core${sanitize:+-${sanitize//,/-}}
generator=$(command -v ninja >/dev/null && echo Ninja || echo 'Unix Makefiles')
cmake -S . -B "$tree" -G "$generator" -DCHKPT_DEV=ON -DCMAKE_BUILD_TYPE=RelWithDebInfo \
  -DCHKPT_SANITIZE="$sanitize" >/dev/null
cmake --build "$tree" -j 2 | grep -vE '^\[[0-9]+/[0-9]+\] (Building|Linking)' || true
test -x "$tree/chkpt_core_test"
"$tree/chkpt_core_test" --gtest_brief=1

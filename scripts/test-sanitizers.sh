#!/usr/bin/env bash
# The core under AddressSanitizer with UBSan, and under ThreadSanitizer: one builds while the other tests with one thread.
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p out/results
bash scripts/test-core.sh address,undefined >out/results/address.out 2>&1 &
other=$!
status=0
bash scripts/test-core.sh thread || status=$?
wait "$other" || status=$?
cat out/results/address.out
exit "$status"

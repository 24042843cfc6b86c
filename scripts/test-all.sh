#!/usr/bin/env bash
# Everything: builds, types, lint, core tests with and without sanitizers, guests, and the TypeScript suites.
# Guests boot beside the builds of the core, which leave a processor idle at their ends.
set -euo pipefail
cd "$(dirname "$0")/.."

# Which part takes how long.
part() {
  local began=$SECONDS
  npm run "$@"
  echo "npm run $* took $((SECONDS - began)) s"
}

part build

mkdir -p out/results
guests_log=out/results/guests.log
# 3: this machine has not what a guest is made of; its tests say so.
make_guests() {
  local status=0
  npm run corpus || status=$?
  for architecture in i386 amd64; do
    if [ "$status" -eq 0 ] || [ "$status" -eq 3 ]; then
      status=0
      npm run guest -- "$architecture" || status=$?
    fi
  done
  test "$status" -eq 0 || test "$status" -eq 3
}
make_guests >"$guests_log" 2>&1 &
guests=$!
# Nothing is left running behind a failure.
trap 'wait "$guests" || true' EXIT

part types
part lint
part lint:cc
part test:core
part test:oracle
part test:sanitizers

guests_status=0
wait "$guests" || guests_status=$?
trap - EXIT
cat "$guests_log"
test "$guests_status" -eq 0
part test

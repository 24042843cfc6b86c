#!/usr/bin/env bash
# Fuzzes the native receiver with clang's libFuzzer, AddressSanitizer and UBSan.
#   fuzz.sh [SECONDS]      needs clang-19 and libclang-rt-19-dev
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-60}
command -v clang++-19 >/dev/null || { echo "fuzz.sh: clang++-19 is missing (packages clang-19 libclang-rt-19-dev)"; exit 3; }
CC=clang-19 CXX=clang++-19 cmake -S . -B out/fuzz -DCHKPT_DEV=ON -DCMAKE_BUILD_TYPE=RelWithDebInfo \
  -DCHKPT_SANITIZE=fuzzer-no-link,address,undefined >/dev/null
cmake --build out/fuzz -j 2 --target load_fuzz | tail -1
mkdir -p out/fuzz-corpus
# Seeds: the page frames of a golden checkpoint, behind its header, CONTEXT_OPEN and REGION_TABLE.
node -e "
const fs = require('node:fs');
const bytes = fs.readFileSync('test/golden/format-1.0/file');
for (let at = 128, n = 0; at + 56 <= bytes.length; n += 1) {
  const type = bytes.readUInt32LE(at);
  const length = 56 + Math.ceil(Number(bytes.readBigUInt64LE(at + 8)) / 8) * 8;
  if (type === 0x11 || type === 0x12 || type === 0x80000013) fs.writeFileSync('out/fuzz-corpus/seed' + n, bytes.subarray(at, at + length));
  at += length;
}"
ASAN_OPTIONS=quarantine_size_mb=16 out/fuzz/load_fuzz -max_len=65536 -rss_limit_mb=512 -timeout=2 \
  -max_total_time="$seconds" -print_final_stats=1 out/fuzz-corpus

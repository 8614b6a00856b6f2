#!/bin/bash
# Fuzzes the reader of segments for a while; what it finds stays in build-fuzz/found.
#
#   scripts/fuzz.sh [seconds]
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-60}
scripts/install-packages.sh lint
cmake --preset fuzz
cmake --build --preset fuzz --parallel "$(nproc)"
mkdir -p build-fuzz/corpus build-fuzz/found
build-fuzz/tests/fuzz/segment_fuzz make-corpus build-fuzz/corpus
# A hostile segment may not take more memory than a large honest one.
build-fuzz/tests/fuzz/segment_fuzz build-fuzz/corpus -max_total_time="$seconds" -max_len=65536 -timeout=10 \
  -rss_limit_mb=1024 -malloc_limit_mb=256 -artifact_prefix=build-fuzz/found/ -print_final_stats=1

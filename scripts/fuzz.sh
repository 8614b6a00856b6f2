#!/bin/bash
# Fuzzes each parser of foreign bytes, or those that are named, for a while; what is found stays in build-fuzz/found.
#
#   scripts/fuzz.sh [seconds [target ...]]          seconds for each target; targets are the folders of tests/fuzz/corpus
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-60}
targets=("${@:2}")
[ ${#targets[@]} -ne 0 ] || mapfile -t targets < <(ls tests/fuzz/corpus)
scripts/install-packages.sh lint
cmake --preset fuzz
cmake --build --preset fuzz --parallel "$(nproc)"
mkdir -p build-fuzz/found
export UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
failed=()
for target in "${targets[@]}"; do
  echo "== $target"
  mkdir -p "build-fuzz/corpus/$target"  # new inputs go here, and a later run starts with them
  # A hostile input may not take more memory than a large honest one.
  "build-fuzz/tests/fuzz/${target}_fuzz" "build-fuzz/corpus/$target" "tests/fuzz/corpus/$target" \
    -max_total_time="$seconds" -max_len=65536 -timeout=10 -rss_limit_mb=512 -malloc_limit_mb=256 \
    -artifact_prefix="build-fuzz/found/$target-" -print_final_stats=1 || failed+=("$target")
done
if [ ${#failed[@]} -ne 0 ]; then
  echo "found something in: ${failed[*]} (build-fuzz/found)" >&2
  exit 1
fi

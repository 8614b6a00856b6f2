#!/bin/bash
# What one second of an OLTP load costs in bytes, coded in different ways (docs/format.md, "Why these blocks").
#
#   bench/coding.sh [build folder]
set -euo pipefail
build=$(realpath "${1:-build}")
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$build/bench/coding" "$folder"
if command -v lz4 >/dev/null; then
  printf '%-60s %9d\n' "the WAL in LZ4, as Litestream 0.3 sends it" "$(lz4 -q -c "$folder/app.db-wal" | wc -c)"
else
  echo "the WAL in LZ4: not measured (apt install lz4)"
fi

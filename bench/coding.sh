#!/bin/bash
# What one second of an OLTP load costs in bytes, coded in different ways (docs/format.md, "Why these blocks").
#
#   bench/coding.sh [build folder]      needs lz4
set -euo pipefail
. "$(dirname "$0")/common.sh"
build=$(realpath "${1:-build}")
need "$build/bench/coding" lz4
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$build/bench/coding" "$folder" || die "the load failed"
[ -s "$folder/app.db-wal" ] || die "the load left no WAL"
bytes=$(lz4 -q -c "$folder/app.db-wal" | wc -c) || die "lz4 failed"
printf '%-60s %9d\n' "the WAL in LZ4, as Litestream 0.3 sends it" "$bytes"

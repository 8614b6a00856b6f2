#!/bin/bash
# One writer as fast as it can, plain and replicated in turn: commits a second, the largest WAL, the time to the last
# acknowledgement.
#
#   bench/saturate.sh [build folder] [seconds] [rounds]
set -euo pipefail
. "$(dirname "$0")/common.sh"
build=$(realpath "${1:-build}")
seconds=${2:-30}
rounds=${3:-3}
need "$build/bench/writer"
is_number "$rounds" && [ "$rounds" -gt 0 ] || die "rounds: \"$rounds\" is no number of rounds"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
for _ in $(seq "$rounds"); do
  rm -rf "$folder"/*
  plain=$(write "$folder/plain.db" seconds="$seconds")
  echo "plain:      $plain"
  rm -rf "$folder"/*
  replicated=$(write "$folder/app.db" seconds="$seconds" extension="$build/libreplica.so" \
    url="${REPLICA_BENCH_URL:-file://$folder/replica}")
  resyncs=$(resyncs "$folder/app.db")
  echo "replicated: $replicated"
  echo "resyncs:    $resyncs"
done

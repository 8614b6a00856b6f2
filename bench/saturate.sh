#!/bin/bash
# One writer as fast as it can, plain and replicated in turn: commits a second, the largest WAL, the time to the last
# acknowledgement.
#
#   bench/saturate.sh [build folder] [seconds] [rounds]
set -euo pipefail
build=$(realpath "${1:-build}")
seconds=${2:-30}
rounds=${3:-3}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
for _ in $(seq "$rounds"); do
  rm -rf "$folder"/*
  echo "plain:      $("$build/bench/writer" "$folder/plain.db" seconds="$seconds")"
  rm -rf "$folder"/*
  echo "replicated: $("$build/bench/writer" "$folder/app.db" seconds="$seconds" extension="$build/libreplica.so" \
    url="${REPLICA_BENCH_URL:-file://$folder/replica}")"
  grep -c '"resync"' "$folder/app.db-replica/events" || true
done

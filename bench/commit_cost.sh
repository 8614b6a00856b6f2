#!/bin/bash
# Instructions that replication adds to a commit on the application's thread, with the uploader asleep between turns:
# callgrind counts the same workload with and without it, twice as long and once, so that start-up cancels out.
#
#   bench/commit_cost.sh [build folder]      needs valgrind; prints instructions a commit
set -euo pipefail
build=$(realpath "${1:-build}")
writer=$build/bench/writer
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
# The writer's thread only: --separate-threads writes a file for each; the main thread is 1.
count() { # name commits arguments…
  local name=$1 commits=$2; shift 2
  rm -rf "$folder/db"* "$folder/replica"
  (cd "$folder" && valgrind --tool=callgrind --separate-threads=yes --callgrind-out-file="$folder/$name" \
    "$writer" "$folder/db" commits="$commits" "$@" >/dev/null 2>"$folder/$name.log")
  awk '/^(summary|totals):/ {print $2; exit}' "$folder/$name-01"
}
per_commit() {
  local short long
  short=$(count short 500 "$@")
  long=$(count long 1500 "$@")
  echo $(((long - short) / 1000))
}
plain=$(per_commit)
replicated=$(REPLICA_SYNC_INTERVAL=1h per_commit extension="$build/libreplica.so" url="file://$folder/replica")
echo "plain SQLite: $plain instructions a commit; replicated: $replicated; difference: $((replicated - plain))"

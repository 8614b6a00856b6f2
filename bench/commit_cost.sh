#!/bin/bash
# Instructions that replication adds to a commit on the application's thread, with the uploader asleep between turns:
# callgrind counts the same workload with and without it, twice as long and once, so that start-up cancels out.
#
#   bench/commit_cost.sh [build folder]      needs valgrind; prints instructions a commit
set -euo pipefail
. "$(dirname "$0")/common.sh"
build=$(realpath "${1:-build}")
need "$build/bench/writer" valgrind
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
# The writer's thread only: --separate-threads writes a file for each; the main thread is 1.
count() { # name commits arguments…
  local name=$1 commits=$2 instructions; shift 2
  rm -rf "$folder/db"* "$folder/replica" "$folder/$name"*
  (cd "$folder" && valgrind --tool=callgrind --separate-threads=yes --callgrind-out-file="$folder/$name" \
    "$build/bench/writer" "$folder/db" commits="$commits" "$@" >/dev/null 2>"$folder/$name.log") ||
    { tail -5 "$folder/$name.log" >&2; die "the writer failed under valgrind: commits=$commits $*"; }
  instructions=$(awk '/^(summary|totals):/ {print $2; exit}' "$folder/$name-01") || instructions=
  is_number "$instructions" || die "callgrind counted nothing: commits=$commits $*"
  echo "$instructions"
}
per_commit() {
  local short long
  short=$(count short 500 "$@")
  long=$(count long 1500 "$@")
  [ "$long" -gt $((short + 1000)) ] || die "1,500 commits took no more instructions than 500: $long, $short"
  echo $(((long - short) / 1000))
}
plain=$(per_commit)
replicated=$(REPLICA_SYNC_INTERVAL=1h per_commit extension="$build/libreplica.so" url="file://$folder/replica")
echo "plain SQLite: $plain instructions a commit; replicated: $replicated; difference: $((replicated - plain))"

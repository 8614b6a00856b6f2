#!/bin/bash
# Commit times while the uploader process is killed once a second, beside those of plain SQLite and of an uploader that
# is left alone: killing it must not delay a commit.
#
#   bench/killed_uploader.sh [build folder] [seconds] [commits a second]
set -euo pipefail
. "$(dirname "$0")/common.sh"
build=$(realpath "${1:-build}")
seconds=${2:-20}
rate=${3:-2000}
need "$build/bench/writer" "$build/replica" python3 sqlite3
folder=$(mktemp -d)
writer=
trap '[ -z "$writer" ] || kill "$writer" 2>/dev/null || true; rm -rf "$folder"' EXIT
export REPLICA_UPLOADER=process REPLICA_CONFIG=off
load=(seconds="$seconds" rate="$rate")
replicated=(extension="$build/libreplica.so" url="file://$folder/replica")

uploader() {  # the pid of the uploader process, if one leads
  "$build/replica" --json status "$folder/app.db" 2>/dev/null |
    python3 -c 'import json, sys; s = json.load(sys.stdin)["databases"][0]; print(s["leader_pid"] if s.get("uploader") == "process" else "")' ||
    true
}

plain=$(write "$folder/plain.db" "${load[@]}")
echo "plain:  $plain"
alone=$(write "$folder/app.db" "${load[@]}" "${replicated[@]}")
[[ "$alone" == *'"uploader":"process"'* ]] || die "no process of its own uploaded: $alone"
echo "alone:  $alone"
rm -rf "$folder"/*
"$build/bench/writer" "$folder/app.db" "${load[@]}" "${replicated[@]}" >"$folder/out" &
writer=$!
kills=0
while kill -0 "$writer" 2>/dev/null; do
  sleep 1
  pid=$(uploader)
  if [ -n "$pid" ] && kill -9 "$pid" 2>/dev/null; then kills=$((kills + 1)); fi
done
wait "$writer" || die "the writer whose uploader was killed failed"
writer=
killed=$(measured "$(cat "$folder/out")")
echo "killed: $killed"
[ "$kills" -gt 0 ] || die "no uploader was killed: the run was too short, or no process of its own uploaded"
resyncs=$(resyncs "$folder/app.db")
echo "kills: $kills, resyncs: $resyncs"
"$build/replica" restore "file://$folder/replica" --output "$folder/restored.db" >/dev/null || die "the replica cannot be restored"
for db in app restored; do
  found=$(sqlite3 -bail "$folder/$db.db" "SELECT count(*) FROM t; PRAGMA integrity_check" | paste -sd ' ')
  echo "$db: $found"
  [ "${expected:=$found}" = "$found" ] || die "the restored database is another one than the application's"
  [[ "$found" == [1-9]*' ok' ]] || die "$db.db holds no rows, or is damaged"
done

#!/bin/bash
# Commit times while the uploader process is killed once a second, beside those of plain SQLite and of an uploader that
# is left alone: killing it must not delay a commit.
#
#   bench/killed_uploader.sh [build folder] [seconds] [commits a second]
set -euo pipefail
build=$(realpath "${1:-build}")
seconds=${2:-20}
rate=${3:-2000}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export REPLICA_UPLOADER=process REPLICA_CONFIG=off

uploader() {  # the pid of the uploader process, if one leads
  "$build/replica" --json status "$folder/app.db" 2>/dev/null |
    python3 -c 'import json, sys; s = json.load(sys.stdin)["databases"][0]; print(s["leader_pid"] if s.get("uploader") == "process" else "")' ||
    true
}

write() {
  "$build/bench/writer" "$@" seconds="$seconds" rate="$rate"
}

echo "plain:  $(write "$folder/plain.db")"
echo "alone:  $(write "$folder/app.db" extension="$build/libreplica.so" url="file://$folder/replica")"
rm -rf "$folder"/*
write "$folder/app.db" extension="$build/libreplica.so" url="file://$folder/replica" >"$folder/out" &
writer=$!
kills=0
while kill -0 $writer 2>/dev/null; do
  sleep 1
  pid=$(uploader)
  if [ -n "$pid" ] && kill -9 "$pid" 2>/dev/null; then kills=$((kills + 1)); fi
done
wait $writer
echo "killed: $(cat "$folder/out")"
echo "kills: $kills, resyncs: $(grep -c '"resync"' "$folder/app.db-replica/events" || true)"
"$build/replica" restore "file://$folder/replica" --output "$folder/restored.db" >/dev/null
for db in app restored; do sqlite3 "$folder/$db.db" "SELECT '$db', count(*) FROM t; PRAGMA integrity_check"; done

#!/bin/bash
# One writer as fast as it can while the store is away and full verifies run: what comparisons do to the WAL and to the
# slowest commit, beside plain SQLite.
#
#   bench/outage.sh [build folder] [seconds of outage] [spool bound in bytes]
set -euo pipefail
. "$(dirname "$0")/common.sh"
build=$(realpath "${1:-build}")
outage=${2:-25}
# Less than is written meanwhile: captured segments are dropped, and the difference is sent afterwards.
export REPLICA_SPOOL_LIMIT=${3:-67108864}
need "$build/bench/writer" "$build/replica"
is_number "$outage" || die "seconds: \"$outage\" is no number"
folder=$(mktemp -d)
writer=
trap '[ -z "$writer" ] || kill "$writer" 2>/dev/null || true; rm -rf "$folder"' EXIT
seconds=$((outage + 30))
plain=$(write "$folder/plain.db" seconds="$seconds")
echo "plain:      $plain"
rm -f "$folder"/plain.db*
"$build/bench/writer" "$folder/app.db" seconds="$seconds" extension="$build/libreplica.so" url="file://$folder/replica" \
  >"$folder/result" &
writer=$!
sleep 5
mv "$folder/replica" "$folder/away"
echo "in the way" >"$folder/replica"
sleep "$outage"
rm "$folder/replica"
mv "$folder/away" "$folder/replica"
verifies=0
while kill -0 "$writer" 2>/dev/null; do
  if "$build/replica" verify --depth full "$folder/app.db" >"$folder/verify" 2>&1; then verifies=$((verifies + 1)); fi
  sleep 1
done
wait "$writer"
writer=
compared=$(grep -c 'comparing every page' "$folder/app.db-replica/events" || true)
replicated=$(measured "$(cat "$folder/result")")
echo "replicated: $replicated"
echo "comparisons: $compared, verifies while it wrote: $verifies"
[ "$compared" != 0 ] && [ "$verifies" != 0 ] ||
  die "nothing was compared or verified: a longer outage, or a smaller bound, is needed: $(cat "$folder/verify")"

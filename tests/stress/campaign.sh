#!/bin/bash
# A long campaign of the stress tool: many seeds, one after the other on one core. Goes on after a seed that fails,
# prints the totals and the seeds that failed, and ends with 1 if there are any; what failed stays on disk.
#
#   tests/stress/campaign.sh [build folder] [first seed] [seeds] [seconds a seed] [url]
#
# The goal of a campaign: 200 seeds of 30 seconds, 100,000 visits, 2,000 kills; it takes two hours. With a URL
# (s3://bucket/prefix, credentials in the environment) each seed has a prefix of its own below it. The lines of JSON go
# to stdout and to the file $CAMPAIGN_LOG, if that is set; more options for stress.py: $STRESS_OPTIONS.
set -uo pipefail
root=$(dirname "$(realpath "$0")")
build=$(realpath "${1:-build}")
first=${2:-1}
count=${3:-200}
seconds=${4:-30}
url=${5:-}
export LIBREPLICA=$build/libreplica.so REPLICA_TEST_BUILD=$build
log=${CAMPAIGN_LOG:-$(mktemp)}
: > "$log"
for seed in $(seq "$first" $((first + count - 1))); do
  # shellcheck disable=SC2086
  line=$("$root/stress.py" --seed "$seed" --seconds "$seconds" ${url:+--url "$url/$seed"} ${STRESS_OPTIONS:-} 2>&1 |
    tail -1)
  if [[ $line != "{"* ]]; then  # a tool that fell over has not printed JSON
    line="{\"ok\": false, \"seed\": $seed, \"problems\": [\"stress.py failed: $(tr -d '"\\' <<< "$line")\"]}"
  fi
  tee -a "$log" <<< "$line"
done
exec /usr/bin/python3 "$root/totals.py" "$log"

#!/bin/bash
# A long campaign of the stress tool: many seeds, page sizes and kills, with uploaders as threads and as processes in turn. Ends at the first failure; what failed stays on disk.
#
#   tests/stress/campaign.sh [build folder] [first seed] [seeds] [url]     100 seeds take about ten minutes on two cores
#
# With a URL (s3://bucket/prefix, credentials in the environment) each seed has a prefix of its own below it.
set -euo pipefail
root=$(dirname "$(realpath "$0")")
LIBREPLICA=$(realpath "${1:-build}")/libreplica.so
export LIBREPLICA
first=${2:-1}
count=${3:-100}
url=${4:-}
sizes=(512 1024 4096 16384 65536)
for seed in $(seq "$first" $((first + count - 1))); do
  uploader=thread
  [ $((seed % 2)) = 0 ] || uploader=process
  "$root/stress.py" --seed "$seed" --uploader $uploader --commits 600 --processes $((1 + seed % 4)) --kills 25 \
    --page-size "${sizes[$((seed % 5))]}" ${url:+--url "$url/$seed"}
done

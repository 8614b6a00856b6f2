#!/bin/bash
# A long run of simulated power losses (README.md). Prints totals by file system, synchronous mode, destination and
# verdict; exit code 1 after any violation. What failed stays in the folder power-failures.
#
#   tests/power/campaign.sh [build folder] [first seed] [states] [more options of campaign.py]
#
# 20,000 states take less than two hours on one core.
set -euo pipefail
root=$(dirname "$(realpath "$0")")
build=$(realpath "${1:-build}")
export LIBREPLICA=$build/libreplica.so REPLICA_TEST_BUILD=$build PYTHONDONTWRITEBYTECODE=1
export REPLICA_POWER_RECORDER=$build/tests/power/power_recorder.so
exec /usr/bin/python3 "$root/campaign.py" --first "${2:-1}" --states "${3:-20000}" "${@:4}"

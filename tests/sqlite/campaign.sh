#!/bin/bash
# All of SQLite's own tests, plain and with libreplica (README.md): every test file three times plain, then in variants
# A and B; the SQL files of wal.list in WAL mode; mptester, threadtest3, and speedtest1 with equal hashes.
#
#   tests/sqlite/campaign.sh [build folder] [folder]     default: build, <build folder>/sqlite
#
# Takes about three hours on one core the first time, and one and a half when the plain results are there. Goes on after
# a difference; ends with the totals, and with exit code 1 when something differs that is not in expected.tsv or when
# nothing was run. <folder>/results keeps everything.
set -euo pipefail
here=$(dirname "$(realpath "$0")")
build=$(realpath "${1:-build}")
folder=${2:-$build/sqlite}
export PYTHONDONTWRITEBYTECODE=1
"$here/build.sh" "$folder" "$build"
mkdir -p "$folder/results"
{
  failed=0
  "$here/run.py" --folder "$folder" --list full.list --limit 300 baseline A B || failed=1
  "$here/run.py" --folder "$folder" --list wal.list W WB || failed=1
  "$here/programs.py" --folder "$folder" || failed=1
  cd "$folder/results"
  cat {full,wal,programs}/{baseline,A,B,W,WB}.tsv 2>/dev/null | awk -F '\t' '
    !/^#/ { runs++; errors += $3; tests += $4; seconds += $5; replicas += $6; compared += $7 }
    END { printf "%d runs, %d errors in %d tests, %d replicas, %d compared with their databases, %.1f hours\n",
          runs, errors, tests, replicas, compared, seconds / 3600 }'
  cat {full,wal,programs}/differences-*.tsv | awk -F '\t' '
    $4 == "not listed" { without++ }
    END { printf "%d differences with a reason in expected.tsv, %d without\n", NR - without, without }'
  exit $failed
} 2>&1 | tee "$folder/results/campaign.log"

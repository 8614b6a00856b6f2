#!/usr/bin/python3
"""SQLite's own tests of the WAL, the pager, locks and files (short.list), with libreplica linked in: nothing replicated
(A), and each database replicated to a folder (B). Nothing may differ from plain SQLite but what expected.tsv gives a
reason for (README.md).

Needs SQLite's source: from an earlier run (REPLICA_TEST_SQLITE names the folder that build.sh made; default: sqlite in
the build folder) or from the network. Exit code 77 when there is neither.
"""
import os
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
BUILD = os.environ.get("REPLICA_TEST_BUILD", "build")
SKIPPED = 77  # CTest's SKIP_RETURN_CODE


def main():
    folder = os.environ.get("REPLICA_TEST_SQLITE", os.path.join(BUILD, "sqlite"))
    done = subprocess.run([os.path.join(HERE, "build.sh"), folder, BUILD], text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT)
    if done.returncode == SKIPPED:
        print("skipped: " + done.stdout.strip().rsplit("\n", 1)[-1])
        return SKIPPED
    if done.returncode != 0:
        print(done.stdout)
        return 1
    run = [os.path.join(HERE, "run.py"), "--folder", folder, "--list", "short.list", "baseline", "A", "B"]
    return subprocess.run(run).returncode


if __name__ == "__main__":
    sys.exit(main())

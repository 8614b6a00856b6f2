#!/usr/bin/python3
"""The totals of a campaign: sums, the kinds of problems with their seeds, the seeds that failed. Exit code 1 if any.

  tests/stress/totals.py FILE      lines of JSON, as stress.py prints them
"""
import collections
import json
import sys

from oracle import generic

SUMS = ("visits", "kills", "killed_uploaders", "young_databases", "commits", "acknowledged", "restores", "resyncs")


def main():
    with open(sys.argv[1]) as file:
        reports = [json.loads(line) for line in file if line.startswith("{")]
    failed = [report for report in reports if not report["ok"]]
    print("%d seeds, %s" % (len(reports), ", ".join(
        "%d %s" % (sum(report.get(key, 0) for report in reports), key.replace("_", " ")) for key in SUMS)))
    kinds = collections.defaultdict(list)
    for report in failed:
        # The first problem of a seed is the one to look at.
        kinds[generic(report["problems"][0])[:300]].append(report["seed"])
    for kind, seeds in sorted(kinds.items(), key=lambda item: -len(item[1])):
        print("%4d  %s\n      seeds %s" % (len(seeds), kind, " ".join(str(seed) for seed in seeds)))
    if failed:
        print("FAILED: %d of %d seeds: %s" % (len(failed), len(reports),
                                              " ".join(str(report["seed"]) for report in failed)))
    else:
        print("ok: all seeds passed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

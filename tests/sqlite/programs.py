#!/usr/bin/python3
"""Runs SQLite's other test programs, plain and with libreplica, and compares them as run.py does (README.md).

  tests/sqlite/programs.py [--folder build/sqlite] [--size 60] [mptester|threadtest3|speedtest1 …]

  mptester     several processes on one database; crash01 kills them
  threadtest3  several threads on one database; each test has a fixed time, four minutes in all
  speedtest1   --journal wal --verify: the hash of all results must be the same. Its times are printed, not judged

In the variants baseline, A and B; in B the replica is restored and compared with the database. The results are in
<folder>/results/programs. Exit code 1 when a difference is not in expected.tsv, and when nothing was run or replicated.
"""
import argparse
import os
import re
import shutil
import sys

from replicas import Check
from results import Comparison, Result, write_results, write_rows
from suite import VARIANTS, Suite, outcome, read_output

# name: repetitions, journal mode. config01 leaves WAL mode.
MPTESTER = {"config01.test": (1, "DELETE"), "config02.test": (1, "WAL"), "multiwrite01.test": (5, "WAL"),
            "crash01.test": (5, "WAL")}
THREADTEST3 = ("walthread1 walthread2 walthread3 walthread4 walthread5 cgt_pager_1 dynamic_triggers "
               "checkpoint_starvation_1 checkpoint_starvation_2 create_drop_index_1 lookaside1 vacuum1 stress1 stress2 "
               "shared1").split()
PROGRAMS = ("mptester", "threadtest3", "speedtest1")
SPEED_RUNS = 3
LIMIT = 600  # seconds for one run


def commands(suite, program, size):
    """(name, arguments) of each run of a program."""
    if program == "mptester":
        return [(name, ["test.db", suite.source("mptest", name), "--repeat", str(repeat), "--journalmode", mode])
                for name, (repeat, mode) in MPTESTER.items()]
    if program == "threadtest3":
        return [(name, [name]) for name in THREADTEST3]
    return [("run%d" % (number + 1), ["--journal", "wal", "--size", str(size), "--verify", "test.db"])
            for number in range(SPEED_RUNS)]


def read_summary(program, out):
    """(errors, tests, failures), or None when the program did not get there."""
    if program == "speedtest1":
        # No hash is equal to none: the results differ by name.
        hashes = re.findall(r"^Verification Hash: \d+ (\w+)", out, re.M)
        return (0, 1, ["hash-" + hashes[-1]]) if hashes else None
    found = re.findall(r"(\d+) errors out of (\d+) tests", out)
    if not found:
        return None
    errors, tests = map(int, found[-1])
    return errors, tests, ["errors-%d" % errors] if errors else []


def run_program(suite, variant, program, name, arguments):
    """Runs a program on test.db in a folder of its own."""
    kind = VARIANTS[variant]
    folder = suite.fresh("run", "programs", name)
    store = suite.fresh("run", "programs", name + ".store")
    config = suite.configure(folder, store) if kind.replicated else "off"
    log = suite.results("programs", variant, name + ".log")
    code, seconds = suite.execute([suite.program(kind, program), *arguments], folder, suite.environment(kind, config),
                                  LIMIT, log)
    out = read_output(log)
    summary = read_summary(program, out)
    errors, tests, failures = summary or (0, 0, [])
    note = out.rstrip().rsplit("\n", 1)[-1][:200]
    result = Result("%s/%s" % (program, name), "ok" if summary else outcome(code), errors, tests, round(seconds, 1),
                    0, 0, failures, note)
    if kind.replicated:
        with open(log + ".replicas", "w") as report:
            check = Check(suite, folder, store, config, report)
        result = result._replace(replicated=check.replicated, compared=check.compared, failures=failures + check.wrong)
    shutil.rmtree(folder, True)
    shutil.rmtree(store, True)
    print("  %-8s %-36s %-8s %d/%d %.1f s %s" % (variant, result.file, result.status, errors, tests, seconds,
                                                " ".join(result.failures)), flush=True)
    return result


def run_all(suite, variant, programs, size):
    results = [run_program(suite, variant, program, name, arguments)
               for program in programs for name, arguments in commands(suite, program, size)]
    seconds = sorted(result.seconds for result in results if result.file.startswith("speedtest1"))
    if seconds:
        print("  %-8s speedtest1: median %.2f s of %s" % (variant, seconds[len(seconds) // 2], seconds), flush=True)
    write_results(suite.results("programs", variant + ".tsv"), results)
    return results


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", default="build/sqlite", help="what build.sh made")
    parser.add_argument("--size", type=int, default=60, help="speedtest1's --size")
    parser.add_argument("programs", nargs="*", metavar="PROGRAM", help=", ".join(PROGRAMS) + "; default: all")
    arguments = parser.parse_args()
    if any(program not in PROGRAMS for program in arguments.programs):
        parser.error("a program is one of " + ", ".join(PROGRAMS))
    programs = arguments.programs or PROGRAMS
    suite = Suite(arguments.folder)
    if suite.missing:
        sys.exit(suite.missing)
    baseline = run_all(suite, "baseline", programs, arguments.size)
    passed = True
    for variant in ("A", "B"):
        results = run_all(suite, variant, programs, arguments.size)
        # The number of tests is all that the programs tell of them.
        tests = {run.file: run.tests for run in baseline}
        counts = {result.file: "" if result.tests == tests[result.file] else "tests" for result in results}
        comparison = Comparison(variant, baseline, results, counts.get)
        write_rows(suite.results("programs", "differences-%s.tsv" % variant), comparison.rows)
        passed = comparison.report([run.file for run in baseline], VARIANTS[variant].replicated) and passed
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/python3
"""Runs lists of SQLite's test files in variants and compares them with the baseline (README.md).

  tests/sqlite/run.py [--folder build/sqlite] --list short.list baseline A B
  tests/sqlite/run.py --list wal.list W WB
  tests/sqlite/run.py --test wal2.test --test pager1.test A

  baseline  plain SQLite
  A         libreplica linked in, nothing replicated
  B         each database in WAL mode is replicated to a folder; afterwards each replica is restored and compared
  W, WB     each connection is put into WAL mode first: plain, and replicated as in B

Each file runs in a process and a folder of its own. A baseline runs three times, to find the files whose results change
by themselves (<list>/flaky-<variant>.tsv). Its results are kept, and used until the plain program changes. All results
are in <folder>/results/<list>/<variant>.tsv, the output of each file beside them. Exit code 1 when a difference is not
in expected.tsv, and when nothing was run or replicated.

A list names files, a line each; `*` is a wildcard, and a line that begins with `-` takes files out again.
"""
import argparse
import fnmatch
import os
import shutil
import sys

from replicas import Check
from results import (Comparison, Expected, by_file, ended_late, is_flaky, other_tests, read_results, write_results,
                     write_rows)
from suite import HERE, VARIANTS, Suite, names_of_tests, read_log


def read_list(path, present):
    """The files that a list names, in order."""
    chosen = []
    with open(path) as file:
        for line in file:
            pattern = line.split("#")[0].strip()
            if pattern.startswith("-"):
                chosen = [name for name in chosen if not fnmatch.fnmatchcase(name, pattern[1:].strip())]
            elif pattern:
                found = [name for name in present if fnmatch.fnmatchcase(name, pattern)]
                if not found:
                    sys.exit("%s: SQLite has no %s" % (os.path.basename(path), pattern))
                chosen += [name for name in found if name not in chosen]
    return chosen


class Run:
    """One list of files."""

    def __init__(self, suite, name, files, limit, repeat):
        self.suite = suite
        self.name = name
        self.files = files
        self.limit = limit    # seconds for a file
        self.repeat = repeat  # of a baseline

    def log(self, variant, file):
        return self.suite.results(self.name, variant, file + ".log")

    def run_file(self, variant, file, limit):
        kind = VARIANTS[variant]
        # The same for all variants: some tests depend on the length of their path.
        folder = self.suite.fresh("run", self.name, file[:-len(".test")])
        store = self.suite.fresh("run", self.name, file[:-len(".test")] + ".store")
        config = self.suite.configure(folder, store) if kind.replicated else "off"
        script = [os.path.join(self.suite.own, "wal.tcl")] if kind.wal else []
        log = self.log(variant, file)
        command = [self.suite.program(kind, "testfixture"), *script, self.suite.test(file)]
        code, seconds = self.suite.execute(command, folder, self.suite.environment(kind, config), limit, log)
        result = read_log(file, code, seconds, log)
        if kind.replicated:
            with open(log + ".replicas", "w") as report:
                check = Check(self.suite, folder, store, config, report)
            result = result._replace(replicated=check.replicated, compared=check.compared,
                                     failures=result.failures + check.wrong)
        shutil.rmtree(folder, True)
        shutil.rmtree(store, True)
        shown = result.failures[:4] + ["…"] * (len(result.failures) > 4)
        print("  %-8s %-24s %-8s %d/%d %.1f s %s" % (variant, file, result.status, result.errors, result.tests, seconds,
                                                    " ".join(shown)), flush=True)
        return result

    def run_baseline(self, variant):
        """Runs what is not known yet of this program; returns all runs of all files."""
        path = self.suite.results(self.name, variant + ".tsv")
        heading = "%s, limit %g s" % (self.suite.identity(), self.limit)
        results = read_results(path, heading)
        done = by_file(results)
        for number in range(self.repeat):
            for file in self.files:
                if len(done[file]) > number or ended_late(done[file]):
                    continue
                result = self.run_file(variant, file, self.limit)
                done[file].append(result)
                results.append(result)
                write_results(path, results, heading)
        return [run for file in self.files for run in done[file]]

    def report_baseline(self, variant, runs):
        flaky = [(file, *("%s %d/%d %s" % (r.status, r.errors, r.tests, " ".join(r.failures)) for r in of_file))
                 for file, of_file in by_file(runs).items() if is_flaky(of_file)]
        for file, *outcomes in flaky:
            shown = "; ".join(outcome[:80] for outcome in outcomes)
            print("%s %s changes from run to run: %s" % (variant, file, shown))
        write_rows(self.suite.results(self.name, "flaky-%s.tsv" % variant), flaky)
        print("%s: %d files, %d runs, %d errors in %d tests, %.0f s" %
              (variant, len(by_file(runs)), len(runs), sum(r.errors for r in runs), sum(r.tests for r in runs),
               sum(r.seconds for r in runs)), flush=True)

    def run_variant(self, variant, baseline):
        path = self.suite.results(self.name, variant + ".tsv")
        known = by_file(baseline)
        results = []
        for file in self.files:
            if ended_late(known[file]):
                continue
            results.append(self.run_file(variant, file, self.time_limit(known[file])))
            write_results(path, results)
        return results

    def run_again(self, variant, file, baseline):
        """Once more, for a difference that must not be there twice. The first run's output stays beside it."""
        log = self.log(variant, file)
        shutil.copy(log, log + ".first")
        print("  %s %s once more:" % (variant, file))
        return self.run_file(variant, file, self.time_limit(by_file(baseline)[file]))

    def time_limit(self, runs):
        """A file may take four times as long as the baseline did: libreplica syncs, and the test programs do not."""
        return max(self.limit, 20 + 4 * max(run.seconds for run in runs))

    def other_tests(self, variant, file):
        return other_tests(*(names_of_tests(self.log(v, file)) for v in (variant, VARIANTS[variant].baseline)))

    def run(self, variant):
        """Whether it passes."""
        base = VARIANTS[variant].baseline
        if base is None:
            runs = self.run_baseline(variant)
            self.report_baseline(variant, runs)
            return sum(run.tests for run in runs) > 0
        baseline = self.run_baseline(base)
        results = self.run_variant(variant, baseline)
        comparison = Comparison(variant, baseline, results, lambda file: self.other_tests(variant, file),
                                lambda file: self.run_again(variant, file, baseline))
        write_rows(self.suite.results(self.name, "differences-%s.tsv" % variant), comparison.rows)
        return comparison.report(self.files, VARIANTS[variant].replicated)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", default="build/sqlite", help="what build.sh made")
    parser.add_argument("--list", help="a file beside this one or anywhere")
    parser.add_argument("--test", action="append", default=[], help="a test file; may be repeated")
    parser.add_argument("--runs", type=int, default=3, help="how often a baseline runs")
    parser.add_argument("--limit", type=float, default=60, help="seconds for a file")
    parser.add_argument("--markdown", action="store_true", help="prints expected.tsv as a table for docs/testing.md")
    parser.add_argument("variants", nargs="*", metavar="VARIANT", help=", ".join(VARIANTS))
    arguments = parser.parse_args()
    if arguments.markdown:
        Expected().markdown()
        return 0
    if any(variant not in VARIANTS for variant in arguments.variants) or not arguments.variants:
        parser.error("a variant is one of " + ", ".join(VARIANTS))
    suite = Suite(arguments.folder)
    if suite.missing:
        sys.exit(suite.missing)
    files, name = list(arguments.test), "one"
    if arguments.list:
        path = arguments.list if os.path.exists(arguments.list) else os.path.join(HERE, arguments.list)
        files = read_list(path, suite.tests()) + files
        name = os.path.splitext(os.path.basename(path))[0]
    if not files:
        parser.error("no test file: --list or --test")
    run = Run(suite, name, files, arguments.limit, arguments.runs)
    passed = [run.run(variant) for variant in arguments.variants]
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())

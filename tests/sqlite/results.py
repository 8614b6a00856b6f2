"""Results of test files and programs: kept as TSV, compared with a baseline, and judged by what expected.tsv allows."""
import collections
import fnmatch
import os
import re
import sys

# status: ok (it ran to its end, with failures or without), stop (it ended before), crash-<signal>, timeout. failures:
# the names of tests that failed (refused:<name> when libreplica refused to leave WAL mode or to lock exclusively) and
# what else is wrong: open-files, memory, replica:<database>:<what>. replicated, compared: see replicas.py.
Result = collections.namedtuple("Result", "file status errors tests seconds replicated compared failures note")

EXPECTED = os.path.join(os.path.dirname(os.path.realpath(__file__)), "expected.tsv")

# How the reason begins of a difference that must not be there again when the file runs once more.
NOT_TWICE = "not twice"

# A test of a loop that injects the first, the second, … fault until the statement goes through without meeting one.
ROUND = re.compile(r"(transient|persistent)\.\d+")


def write_results(path, results, heading=""):
    with open(path + ".new", "w") as file:
        file.write("# %s\n" % heading)
        for result in results:
            fields = [" ".join(field) if isinstance(field, list) else str(field) for field in result]
            file.write("\t".join(re.sub(r"[\t\n]", " ", field) for field in fields) + "\n")
    os.replace(path + ".new", path)


def read_results(path, heading):
    """The results in order; none when they were written under another heading."""
    if not os.path.exists(path):
        return []
    with open(path) as file:
        if file.readline() != "# %s\n" % heading:
            return []
        rows = [line.rstrip("\n").split("\t") for line in file]
    return [Result(r[0], r[1], int(r[2]), int(r[3]), float(r[4]), int(r[5]), int(r[6]), r[7].split(), r[8])
            for r in rows]


def write_rows(path, rows):
    with open(path, "w") as file:
        for row in rows:
            file.write("\t".join(row) + "\n")


def by_file(results):
    found = collections.defaultdict(list)
    for result in results:
        found[result.file].append(result)
    return found


def is_flaky(runs):
    return len({(run.status, run.tests, tuple(run.failures)) for run in runs}) > 1


def ended_late(runs):
    """Whether the baseline did not end in time: its variants do not run."""
    return any(run.status == "timeout" for run in runs)


def other_tests(names, others):
    """How the tests of two runs that ended differ (counters of their names): "" if not; rounds: only in how often a
    loop of fault injection went round; tests: otherwise."""
    different = (names - others) + (others - names)
    if not different:
        return ""
    loops = [{ROUND.sub(r"\1.#", name) for name in side if ROUND.search(name)} for side in (names, others)]
    if all(ROUND.search(name) and all(ROUND.sub(r"\1.#", name) in side for side in loops) for name in different):
        return "rounds"
    return "tests"


def differences(runs, result, other):
    """What a result has that no run of the baseline had, as names. other: see other_tests; a file whose number of tests
    changes in the baseline too is not compared by its tests."""
    found = []
    statuses = {run.status for run in runs}
    if result.status not in statuses:
        found.append(result.status)
    found += [name for name in result.failures if not any(name in run.failures for run in runs)]
    if result.status == "ok" and statuses == {"ok"}:
        if other and len({run.tests for run in runs}) == 1:
            found.append(other)
        found += ["passes:" + name for name in runs[0].failures
                  if all(name in run.failures for run in runs) and name not in result.failures]
    return found


class Expected:
    """expected.tsv: file, variants, differences (shell patterns, separated by blanks) and why they are no faults. A
    reason that begins with "timing" is of what does not happen in every run; one that begins with "not twice" is of
    tests, and counts only if the file's next run does not show the difference again."""

    def __init__(self, path=EXPECTED):
        self.rows = []
        self.used = set()
        with open(path) as file:
            for line in file:
                if line.strip() and not line.startswith("#"):
                    name, variants, patterns, reason = line.rstrip("\n").split("\t")
                    self.rows.append((name, variants.split(), patterns.split(), reason))

    def reason(self, variant, file, difference):
        for number, (name, variants, patterns, reason) in enumerate(self.rows):
            if reason.startswith(NOT_TWICE) and ":" in difference:
                continue  # tests only, no replica
            if variant in variants and fnmatch.fnmatchcase(file, name):
                for pattern in patterns:
                    if fnmatch.fnmatchcase(difference, pattern):
                        self.used.add((number, pattern))
                        return reason
        return None

    def unused(self, variant, files):
        """What is listed for one of these files by its name, and did not happen."""
        return [(name, pattern) for number, (name, variants, patterns, reason) in enumerate(self.rows)
                if variant in variants and not reason.startswith(("timing", NOT_TWICE)) and name in files
                for pattern in patterns if (number, pattern) not in self.used]

    def markdown(self):
        """The table in docs/testing.md."""
        print("| file | variants | differs | why it is no fault |\n|---|---|---|---|")
        for name, variants, patterns, reason in self.rows:
            shown = ", ".join("`%s`" % pattern for pattern in patterns)
            print("| `%s` | %s | %s | %s |" % (name, ", ".join(variants), shown, reason))


class Comparison:
    """A variant against its baseline. rows: (variant, file, difference, reason or "not listed")."""

    def __init__(self, variant, baseline, results, others, again=None):
        """others: for a file, what other_tests() says of the variant's run and the baseline's. again: runs a file once
        more and returns the result."""
        self.variant = variant
        self.again = again
        self.results = results
        self.rows = []
        self.expected = Expected()
        self.baseline = by_file(baseline)
        self.unlisted = 0
        for result in results:
            self.compare(result, others(result.file))

    def compare(self, result, other):
        runs = self.baseline[result.file]
        new = []
        found = [(difference, self.expected.reason(self.variant, result.file, difference))
                 for difference in differences(runs, result, other)]
        repeated = ()
        if any(reason is not None and reason.startswith(NOT_TWICE) for _, reason in found):
            repeated = differences(runs, self.again(result.file), "") if self.again else [name for name, _ in found]
        for difference, reason in found:
            if reason is not None and reason.startswith(NOT_TWICE) and difference in repeated:
                reason = None
            self.rows.append((self.variant, result.file, difference, reason or "not listed"))
            if reason is None:
                new.append(difference)
        self.unlisted += len(new)
        if new:
            flaky = " (the baseline's runs differ too)" if is_flaky(runs) else ""
            more = " and %d more" % (len(new) - 12) if len(new) > 12 else ""
            print("%s %s differs%s: %s%s" % (self.variant, result.file, flaky, " ".join(new[:12]), more))
            if result.note:
                print("    " + result.note)

    def nothing(self, files, replicated):
        """Why this run proves nothing, if so; each is a failure. files: what was to be run."""
        late = [file for file in files if ended_late(self.baseline[file])]
        for file in late:
            print("%s %s: the baseline did not end in time, not run" % (self.variant, file))
        reasons = []
        missing = set(files) - set(late) - {result.file for result in self.results}
        if missing:
            reasons.append("%d files did not run: %s" % (len(missing), " ".join(sorted(missing)[:5])))
        if not sum(run.tests for file in files for run in self.baseline[file]):
            reasons.append("the baseline has no tests")
        if not sum(result.tests for result in self.results):
            reasons.append("no test ran")
        if replicated and not sum(result.replicated for result in self.results):
            reasons.append("no database was replicated")
        if replicated and not sum(result.compared for result in self.results):
            reasons.append("no replica was compared with its database")
        return reasons

    def report(self, files, replicated):
        """Prints the totals; returns whether the variant passes."""
        for file, pattern in self.expected.unused(self.variant, {result.file for result in self.results}):
            print("%s %s: %s is in expected.tsv and did not happen" % (self.variant, file, pattern))
        reasons = self.nothing(files, replicated)
        for reason in reasons:
            print("%s proves nothing: %s" % (self.variant, reason))
        print("%s: %d files, %d errors in %d tests, %d replicas, %d compared with their databases, %.0f s; "
              "%d differences with a reason, %d without" %
              (self.variant, len(self.results), sum(r.errors for r in self.results), sum(r.tests for r in self.results),
               sum(r.replicated for r in self.results), sum(r.compared for r in self.results),
               sum(r.seconds for r in self.results), len(self.rows) - self.unlisted, self.unlisted))
        sys.stdout.flush()
        return not reasons and not self.unlisted

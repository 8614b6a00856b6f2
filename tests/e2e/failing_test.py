"""Memory and threads that run out: the application goes on, and nothing that it committed is lost.

By default a few dozen of the allocations fail, each in an application of its own, in a minute at most.
FAILING_STEP=N tries every Nth one (1: all), FAILING_FIRST=N all of the first ones, FAILING_JOBS=N as many at a time.
"""
import concurrent.futures
import json
import os
import shutil
import subprocess
import unittest

import harness
from harness import LIBRARY, ask, clean_environment, connect, one, sync

HERE = os.path.dirname(os.path.abspath(__file__))
STEP = int(os.environ.get("FAILING_STEP", "83"))
FIRST = int(os.environ.get("FAILING_FIRST", "0"))
JOBS = int(os.environ.get("FAILING_JOBS", "8"))  # they mostly wait
FOR_EVER = 10**9


class Ended:
    """What became of an application: its exit code, and what it printed."""

    def __init__(self, done):
        self.code, self.errors = done.returncode, done.stderr.strip()
        lines = done.stdout.split("\n", 3) + 4 * [""]
        self.attached, self.synced = lines[0] == "1", lines[2] == "1"
        self.rows = int(lines[1] or 0)
        self.status = json.loads(lines[3]) if lines[3].strip() else {}

    def is_replicated(self):
        """All is sent, though the call that asked for it had no memory."""
        return self.status.get("state") == "streaming" and self.status["lag"]["txids"] == 0

    def reason(self):
        return self.status.get("last_error") or self.status.get("message") or ""


@unittest.skipIf(os.environ.get("REPLICA_TEST_SANITIZED"), "a sanitizer has an allocator of its own")
class Failing(harness.TestCase):
    maxDiff = None

    @classmethod
    def setUpClass(cls):
        cls.tools = harness.tempfile.mkdtemp(prefix="libreplica-")
        cls.addClassCleanup(shutil.rmtree, cls.tools, True)
        cls.program, cls.preloaded = os.path.join(cls.tools, "failing_host"), os.path.join(cls.tools, "failing.so")
        # libstdc++ from the start: for one that comes by dlopen glibc allocates each thread's variables at their first
        # use, and ends the process when it cannot.
        subprocess.run(["cc", "-o", cls.program, os.path.join(HERE, "failing_host.c"), "-lsqlite3", "-ldl",
                        "-Wl,--no-as-needed", "-lstdc++"], check=True)
        subprocess.run(["cc", "-shared", "-fPIC", "-o", cls.preloaded, os.path.join(HERE, "failing.c"), "-ldl"],
                       check=True)

    def work(self, name, **failures):
        """Runs the application on a new database."""
        path = self.path(name + ".db")
        return Ended(subprocess.run([self.program, path, LIBRARY, self.url(name)], capture_output=True, text=True,
                                    timeout=60, env=clean_environment(LD_PRELOAD=self.preloaded, REPLICA_CONFIG="off",
                                                                      REPLICA_SYNC_INTERVAL="10ms", **failures)))

    def check_nothing_is_lost(self, name, rows):
        """A process without failures goes on from the files as they were left."""
        path = self.path(name + ".db")
        db = connect(path)
        try:
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("CREATE TABLE IF NOT EXISTS t(a)")
            one(db, "SELECT replica_attach(?)", self.url(name))
            sync(db, timeout_ms=20000)
            self.assertGreaterEqual(one(db, "SELECT count(*) FROM t"), rows)
            report = ask(db, "SELECT replica_verify('main', 'full')")
            self.assertTrue(report["ok"], report)
        finally:
            db.close()
        for left in (path, path + "-replica", self.path(name)):
            shutil.rmtree(left) if os.path.isdir(left) else os.remove(left)

    def counts(self):
        counted = self.work("counted", FAIL_COUNTS=self.path("counts"))
        self.assertEqual((counted.code, counted.rows, counted.synced), (0, 5, True), counted.errors)
        with open(self.path("counts")) as file:
            return [int(n) for n in file.read().split()]

    def try_one(self, n, variable, run):
        """What is wrong when the nth call fails, and those after it; empty: nothing."""
        name = "%s-%d-%d" % (variable.lower(), n, run)
        try:
            ended = self.work(name, FAIL_RUN=str(run), **{variable: str(n)})
            if ended.code != 0:
                return "exit code %d: %s" % (ended.code, ended.errors[-1500:])
            self.check_nothing_is_lost(name, ended.rows)
            if ended.attached and not ended.synced and not ended.is_replicated() and not ended.reason():
                return "it was not replicated, and nothing says why: %s" % ended.status
        except Exception as error:
            return "afterwards: %r" % error
        return ""

    def try_all(self, numbers, variable, run):
        """Each failure in an application of its own; what is wrong is reported together."""
        with concurrent.futures.ThreadPoolExecutor(JOBS) as pool:
            wrong = pool.map(lambda n: (n, self.try_one(n, variable, run)), numbers)
            self.assertEqual(["%s=%d FAIL_RUN=%d: %s" % (variable, n, run, what) for n, what in wrong if what], [])

    def test_an_allocation_fails(self):
        """Exceptions crossed SQLite's C frames, and threads of ours ended the application."""
        allocations, _ = self.counts()
        self.assertGreater(allocations, 500)
        self.try_all(sorted({*range(1, FIRST + 1), *range(1, allocations, STEP)}), "FAIL_MALLOC", 1)

    def test_many_allocations_in_a_row_fail(self):
        allocations, _ = self.counts()
        self.try_all(range(1, allocations, 4 * STEP), "FAIL_MALLOC", 100)

    def test_no_memory_from_some_point_on(self):
        allocations, _ = self.counts()
        self.try_all(range(1, allocations, 4 * STEP), "FAIL_MALLOC", FOR_EVER)

    def test_a_thread_cannot_be_started(self):
        _, threads = self.counts()
        self.assertGreater(threads, 0)
        for run in (1, 2, FOR_EVER):
            self.try_all(range(1, threads + 1), "FAIL_THREAD", run)

    def test_status_says_that_a_thread_could_not_be_started(self):
        ended = self.work("never", FAIL_THREAD="1", FAIL_RUN=str(FOR_EVER))
        self.assertEqual((ended.code, ended.rows, ended.synced), (0, 5, False), ended.errors)
        self.assertEqual(ended.status["state"], "error")
        self.assertIn("cannot start the thread", ended.status["last_error"])

    def test_a_later_commit_starts_the_thread(self):
        ended = self.work("later", FAIL_THREAD="1", FAIL_RUN="1")
        self.assertEqual((ended.code, ended.rows, ended.synced), (0, 5, True), ended.errors)


if __name__ == "__main__":
    harness.main()

"""The wall clock jumps forward and is set back: a restore to a time gives what docs/sql.md says, and history tells."""
import datetime
import json
import os
import re
import sqlite3
import subprocess
import sys
import unittest

import harness
from harness import LIBRARY, clean_environment, restore

HERE = os.path.dirname(os.path.abspath(__file__))
HOUR = 3600

WORKER = """
from harness import *
load(sqlite3.connect(":memory:"))
db = sqlite3.connect(sys.argv[1], isolation_level=None)
for line in sys.stdin:
    print(json.dumps(db.execute(line).fetchall()), flush=True)
db.close()
"""


class Clock(harness.TestCase):
    def setUp(self):
        super().setUp()
        self.file = self.path("app.db")
        self.library = self.path("clock.so")
        subprocess.run(["cc", "-shared", "-fPIC", "-o", self.library, os.path.join(HERE, "clock.c")], check=True)
        self.ahead(0)

    def ahead(self, seconds):
        """Sets the clock of the processes under test."""
        with open(self.path("clock.new"), "w") as file:
            file.write("%d\n" % seconds)
        os.rename(self.path("clock.new"), self.path("clock"))

    def start(self):
        preload = (os.environ.get("LD_PRELOAD", "") + " " + self.library).strip()
        process = subprocess.Popen([sys.executable, "-c", WORKER, self.file], stdin=subprocess.PIPE,
                                   stdout=subprocess.PIPE, text=True, env=clean_environment(
                                       REPLICA_URL=self.url(), REPLICA_CONFIG="off", REPLICA_SYNC_INTERVAL="0",
                                       LD_PRELOAD=preload, CLOCK_FILE=self.path("clock"), PYTHONPATH=HERE,
                                       LIBREPLICA=LIBRARY))
        for clean in (process.stdout.close, process.stdin.close, process.wait, process.kill):
            self.addCleanup(clean)
        return process

    @staticmethod
    def run_in(process, sql):
        process.stdin.write(sql + "\n")
        process.stdin.flush()
        return json.loads(process.stdout.readline())

    def end(self, process):
        process.stdin.close()
        self.assertEqual(process.wait(timeout=30), 0)

    def commit(self, process, row):
        """Commits and returns its TXID once it is stored."""
        self.run_in(process, "INSERT INTO t VALUES('%s')" % row)
        return self.run_in(process, "SELECT replica_sync()")[0][0]

    def rows(self, target):
        out = self.path("out-%s.db" % re.sub(r"\W", "", str(target)))
        restore(self.url("replica/app.db"), out, target, clean_environment(REPLICA_CONFIG="off"))
        file = sqlite3.connect("file:%s?immutable=1" % out, uri=True)
        try:
            return [row for row, in file.execute("SELECT a FROM t ORDER BY rowid")]
        finally:
            file.close()

    def history(self):
        return self.replica_json("history", "--most", "0", self.url("replica/app.db"))

    @staticmethod
    def time_of(seconds):
        """The moment so many seconds from now, as a restore's target."""
        moment = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=seconds)
        return moment.strftime("%Y-%m-%dT%H:%M:%SZ")

    def check(self, before, ahead, after):
        """Each is (row, TXID): before the jump, while the clock was an hour ahead, after it was set back."""
        names = [row for row, _ in before + ahead + after]
        # Between the time before the jump and the hour ahead: the state before the first commit that is later than it.
        # What was committed after the clock was set back is missed by it, as documented …
        self.assertEqual(self.rows(self.time_of(HOUR / 2)), [row for row, _ in before])
        # … and a time behind all of them means all of them.
        self.assertEqual(self.rows(self.time_of(2 * HOUR)), names)
        self.assertEqual(self.rows("latest"), names)
        # History shows where, with the TXID that is the last before the step, and that one gets there by TXID.
        steps = self.history()["clock_steps"]
        self.assertEqual([step["txid"] for step in steps], [ahead[-1][1]], steps)
        text = self.replica("history", "--most", "0", self.url("replica/app.db"))
        self.assertRegex(text, r"behind TXID %d of generation .* the clock was set back" % ahead[-1][1])
        for i, (row, txid) in enumerate(before + ahead + after):
            self.assertEqual(self.rows(txid), names[:i + 1])

    def test_set_back_while_a_process_runs(self):
        """A restore to a time missed commits, and nothing said so."""
        process = self.start()
        self.run_in(process, "PRAGMA journal_mode=WAL")
        self.run_in(process, "CREATE TABLE t(a)")
        self.run_in(process, "SELECT replica_sync()")
        before = [("before", self.commit(process, "before"))]
        self.assertEqual(self.history()["clock_steps"], [])
        self.ahead(HOUR)
        ahead = [(row, self.commit(process, row)) for row in ("ahead", "ahead too")]
        self.ahead(0)
        after = [(row, self.commit(process, row)) for row in ("after", "after too")]
        self.end(process)
        self.check(before, ahead, after)

    def test_set_back_between_two_processes(self):
        process = self.start()
        self.run_in(process, "PRAGMA journal_mode=WAL")
        self.run_in(process, "CREATE TABLE t(a)")
        self.run_in(process, "SELECT replica_sync()")
        before = [("before", self.commit(process, "before"))]
        self.end(process)
        self.ahead(HOUR)
        process = self.start()
        ahead = [("ahead", self.commit(process, "ahead"))]
        self.end(process)
        self.ahead(0)
        process = self.start()
        after = [("after", self.commit(process, "after"))]
        self.end(process)
        self.check(before, ahead, after)

    def test_status_tells_no_negative_lag(self):
        process = self.start()
        self.run_in(process, "PRAGMA journal_mode=WAL")
        self.run_in(process, "CREATE TABLE t(a)")
        self.run_in(process, "SELECT replica_sync()")
        os.rename(self.path("replica"), self.path("away"))
        with open(self.path("replica"), "w"):
            pass
        self.ahead(HOUR)
        self.run_in(process, "INSERT INTO t VALUES(1)")
        self.ahead(0)
        lag = json.loads(self.run_in(process, "SELECT replica_status()")[0][0])["lag"]["seconds"]
        self.assertGreaterEqual(lag, 0)
        self.assertLess(lag, HOUR)
        os.remove(self.path("replica"))
        os.rename(self.path("away"), self.path("replica"))
        self.run_in(process, "SELECT replica_sync()")
        self.end(process)


if __name__ == "__main__":
    harness.main()

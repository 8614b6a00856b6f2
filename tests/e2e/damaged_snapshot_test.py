"""Snapshots that are damaged: an older one and the log take their place where they lead to the same state, and nowhere else."""
import glob
import os
import shutil
import sqlite3
import subprocess
import unittest

import harness
from harness import ask, clean_environment, connect, one, status, sync

SEQUENCE = 57  # second byte of the sequence in a segment's header (docs/format.md)


class DamagedSnapshot(harness.TestCase):
    def setUp(self):
        super().setUp()
        self.db = connect(self.path("app.db"))
        self.db.execute("PRAGMA journal_mode=WAL")
        self.db.execute("CREATE TABLE t(x)")
        one(self.db, "SELECT replica_attach(?, '{\"sync_interval_ms\": 0}')", self.url())
        sync(self.db)
        for i in range(3):
            self.insert(i)
        self.assertEqual(one(self.db, "SELECT replica_snapshot()"), 4)
        self.addCleanup(lambda: self.db.close())
        self.snapshot, = glob.glob(self.path("replica", "*", "snapshot", "%016x" % 4))

    def verify(self):
        """"ok", or what is wrong."""
        try:
            report = ask(self.db, "SELECT replica_verify('main', 'objects')")
        except sqlite3.OperationalError as error:
            return str(error)
        return "ok" if report["ok"] else " ".join(report["errors"])

    def insert_elsewhere(self):
        """By a process without libreplica, after the folder that knows the history is gone."""
        self.db.close()
        shutil.rmtree(self.path("app.db-replica"))
        subprocess.run(["sqlite3", self.path("app.db"), "INSERT INTO t VALUES (9)"], check=True, env=clean_environment())

    def insert(self, i):
        self.db.execute("INSERT INTO t VALUES (?)", (i,))
        return sync(self.db)

    def flip(self, at):
        with open(self.snapshot, "r+b") as file:
            file.seek(at)
            byte = file.read(1)[0]
            file.seek(at)
            file.write(bytes([byte ^ 1]))

    def restore(self, to, code=0):
        """What is restored, and what is said."""
        out = self.path("out.db")
        done = subprocess.run([harness.COMMAND, "restore", self.url(), "-o", out, "--to", to], capture_output=True, text=True,
                              env=clean_environment(REPLICA_CONFIG="off"))
        self.assertEqual(done.returncode, code, done.stdout + done.stderr)
        plan = subprocess.run([harness.COMMAND, "restore", self.url(), "-o", self.path("plan.db"), "--to", to, "--dry-run"],
                              capture_output=True, text=True, env=clean_environment(REPLICA_CONFIG="off"))
        self.assertEqual(plan.returncode, code, plan.stdout + plan.stderr)
        if code != 0:
            self.assertFalse(os.path.exists(out))
            return None, done.stderr
        with sqlite3.connect(out) as db:
            rows = one(db, "SELECT count(*) FROM t")
        db.close()
        os.remove(out)
        shutil.rmtree(out + "-replica")
        return rows, done.stderr

    def test_an_older_snapshot_takes_its_place(self):
        for at in (0, SEQUENCE, -1):  # magic, header, the trailer's end
            with self.subTest(at=at):
                self.insert(3)
                size = os.path.getsize(self.snapshot)
                self.flip(at % size)
                for to, rows in (("latest", one(self.db, "SELECT count(*) FROM t")), ("4", 3), ("2", 1)):
                    found, said = self.restore(to)
                    self.assertEqual(found, rows, to)
                    if to != "4":  # the header's sequence does not matter there
                        self.assertEqual("damaged segment" in said, to == "latest", said)
                report = self.verify()
                self.assertNotEqual(report, "ok")
                self.assertIn("damaged segment", report)
                self.flip(at % size)
                self.assertEqual(self.verify(), "ok")

    def test_with_nothing_behind_it(self):
        self.flip(SEQUENCE)
        rows, said = self.restore("latest")
        self.assertEqual(rows, 3)
        self.assertIn("damaged segment", said)

    def test_regression_a_log_that_ends_before_it_is_an_error(self):
        """The older snapshot's state was taken for the latest one."""
        self.flip(200)
        for log in glob.glob(self.path("replica", "*", "log", "*")):
            os.remove(log)
        for to in ("latest", "2100-01-01T00:00:00Z"):
            _, said = self.restore(to, 1)
            self.assertIn("the log ends before TXID 4", said)
        self.assertEqual(self.restore("1")[0], 0)

    def test_regression_a_takeover_does_not_take_an_older_state_for_the_newest(self):
        """The difference to it was appended, acknowledged, and not restorable."""
        self.flip(200)
        for log in glob.glob(self.path("replica", "*", "log", "*")):
            os.remove(log)
        self.insert_elsewhere()
        self.db = connect(self.path("app.db"))
        one(self.db, "SELECT replica_attach(?, '{\"takeover\": true}')", self.url())
        with self.assertRaises(sqlite3.OperationalError):
            sync(self.db, timeout_ms=3000)
        self.assertIn("damaged segment", status(self.db)["last_error"])

    def test_a_takeover_beside_a_damaged_snapshot_makes_another(self):
        self.flip(200)
        self.insert_elsewhere()
        self.db = connect(self.path("app.db"))
        one(self.db, "SELECT replica_attach(?, '{\"takeover\": true}')", self.url())
        sync(self.db)
        report = ask(self.db, "SELECT replica_verify('main', 'full')")
        self.assertTrue(report["ok"], report)
        self.assertEqual(self.restore("latest")[0], 4)


if __name__ == "__main__":
    harness.main()

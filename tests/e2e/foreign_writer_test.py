"""Processes without the extension: whatever they do between two looks of ours is noticed and healed by difference, never
silently left out (Invariant NoSilentGap). Each case was once a silent divergence."""
import subprocess
import sys
import time

import harness
from harness import ask, connect, image, one, status, sync

FOREIGN = """
import sqlite3, sys
c = sqlite3.connect(sys.argv[1], isolation_level=None)
for sql in sys.argv[2:]:
    c.execute(sql).fetchall()
"""


class ForeignWriter(harness.TestCase):
    def plain(self, *statements):
        subprocess.run([sys.executable, "-c", FOREIGN, self.path("app.db")] + list(statements), check=True)

    def make(self):
        self.plain("PRAGMA journal_mode=WAL", "CREATE TABLE t(x)", "CREATE TABLE u(x)")

    def attach(self):
        db = connect(self.path("app.db"))
        one(db, "SELECT replica_attach(?)", self.url())
        sync(db)
        return db

    def assert_equal(self, db):
        sync(db)
        self.assert_restores(self.url(), "latest", image(db), 4096)
        report = ask(db, "SELECT replica_verify('main', 'full')")
        self.assertTrue(report["ok"], report)

    HIDDEN = ("INSERT INTO u VALUES (1)", "INSERT INTO u VALUES (2)", "PRAGMA wal_checkpoint(TRUNCATE)",
              "INSERT INTO t VALUES (3)")

    def test_restart_behind_a_fresh_attach(self):
        self.make()
        self.attach().close()
        db = self.attach()
        self.plain(*self.HIDDEN)
        self.assert_equal(db)

    def test_restart_behind_a_new_generation(self):
        self.make()
        db = self.attach()
        self.plain(*self.HIDDEN)
        self.assert_equal(db)

    def test_restart_behind_a_captured_commit(self):
        self.make()
        db = self.attach()
        db.execute("INSERT INTO t VALUES ('ours')")
        sync(db)
        self.plain(*self.HIDDEN)
        self.assert_equal(db)

    def test_truncated_wal_at_the_last_close(self):
        self.make()
        db = self.attach()
        db.execute("INSERT INTO t VALUES ('ours')")
        sync(db)
        self.plain("INSERT INTO u VALUES (1)", "PRAGMA wal_checkpoint(TRUNCATE)")
        db.close()
        self.assert_equal(self.attach())

    def test_same_number_of_commits_in_another_life_of_the_wal_index(self):
        self.make()
        db = self.attach()
        for i in range(3):
            db.execute("INSERT INTO t VALUES (?)", (i,))
        sync(db)
        db.close()
        self.plain("INSERT INTO u VALUES (1)", "INSERT INTO u VALUES (2)", "INSERT INTO u VALUES (3)",
                   "PRAGMA wal_checkpoint(TRUNCATE)", "INSERT INTO t VALUES (4)")
        self.assert_equal(self.attach())

    def test_foreign_commits_in_the_same_wal_are_commits(self):
        self.make()
        db = self.attach()
        db.execute("INSERT INTO t VALUES ('ours')")
        txid = sync(db)
        self.plain("INSERT INTO t VALUES ('theirs')", "INSERT INTO t VALUES ('theirs too')")
        self.assertEqual(sync(db), txid + 2)
        self.assert_equal(db)


if __name__ == "__main__":
    harness.main()

"""Comparisons and verifies beside writers that never rest: whatever they read of pages that change meanwhile, each state
that they lead to is one that the database had."""
import os
import sqlite3
import subprocess
import sys

import harness
from harness import ask, clean_environment, connect, image, one, restore, status, sync

ROWS = 4000
# Each transaction takes from one row what it gives to another, on two pages.
WRITER = """
import random, sqlite3, sys, threading
path, library, url, options = sys.argv[1:]
m = sqlite3.connect(":memory:")
if library:
    m.enable_load_extension(True)
    m.load_extension(library)
db = sqlite3.connect(path, isolation_level=None, timeout=60)
if library:
    db.execute("SELECT replica_attach(?, ?)", (url, options)).fetchone()
print("ready", flush=True)
enough = threading.Thread(target=sys.stdin.readline, daemon=True)
enough.start()
commits = 0
while enough.is_alive():
    a, b = random.randrange(%d), random.randrange(%d)
    db.execute("BEGIN IMMEDIATE")
    db.execute("UPDATE accounts SET amount = amount - 1, pad = randomblob(1500) WHERE id = ?", (a,))
    db.execute("UPDATE accounts SET amount = amount + 1, pad = randomblob(1500) WHERE id = ?", (b,))
    db.execute("COMMIT")
    commits += 1
    if commits %% 2000 == 0:
        db.execute("INSERT INTO grown SELECT NULL, randomblob(3000) FROM accounts LIMIT 50")
    if commits %% 5000 == 0:
        db.execute("DELETE FROM grown")
        db.execute("PRAGMA incremental_vacuum(100)").fetchall()
print(commits, flush=True)
sys.stdin.readline()
""" % (ROWS, ROWS)
HIDDEN = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=60)
for i in range(3):
    db.execute("INSERT INTO hidden VALUES (randomblob(100))")
    for _ in range(100):
        if db.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()[0] == 0:
            break
"""


class Comparison(harness.TestCase):
    def setUp(self):
        super().setUp()
        db = sqlite3.connect(self.path("app.db"), isolation_level=None)
        for sql in ("PRAGMA page_size=4096", "PRAGMA auto_vacuum=INCREMENTAL", "PRAGMA journal_mode=WAL",
                    "CREATE TABLE accounts(id INTEGER PRIMARY KEY, amount INT, pad BLOB)", "CREATE TABLE hidden(x)",
                    "CREATE TABLE grown(id INTEGER PRIMARY KEY, pad BLOB)", "BEGIN"):
            db.execute(sql)
        db.executemany("INSERT INTO accounts VALUES (?, 0, randomblob(1500))", ((i,) for i in range(ROWS)))
        db.execute("COMMIT")
        db.close()

    def start(self, options="{}"):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, self.path("app.db"), harness.LIBRARY[:-3], self.url(),
                                   options], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                  env=clean_environment(REPLICA_CONFIG="off"))
        self.addCleanup(writer.communicate)
        self.addCleanup(writer.kill)
        self.assertEqual(writer.stdout.readline(), "ready\n")
        self.wait_for(lambda: self.replica_json("status", self.path("app.db"))["databases"][0]["leader_pid"] == writer.pid)
        return writer

    def end(self, writer):
        writer.stdin.write("\n")
        writer.stdin.flush()
        commits = int(writer.stdout.readline())
        self.assertGreater(commits, 100)
        return commits

    def await_commits(self, count):
        """Waits until others have been seen to commit so many times; the writer commits more."""
        db = sqlite3.connect(self.path("app.db"))
        seen = set()
        self.wait_for(lambda: seen.add(one(db, "PRAGMA data_version")) or len(seen) > count)
        db.close()

    def events(self, text):
        with open(self.path("app.db-replica", "events")) as events:
            return [line for line in events if text in line]

    def assert_state(self, txid):
        path = self.path("state.db")
        restore(self.url(), path, txid)
        db = sqlite3.connect(path)
        self.assertEqual(db.execute("SELECT sum(amount), count(*) FROM accounts").fetchone(), (0, ROWS), "at %d" % txid)
        self.assertEqual(db.execute("PRAGMA integrity_check").fetchone()[0], "ok", "at %d" % txid)
        db.close()
        os.remove(path)

    def finish(self, writer, differences):
        """The last state is the database; every difference, and what stands around it, is one that it had."""
        self.end(writer)
        db = connect(self.path("app.db"))
        one(db, "SELECT replica_attach(?)", self.url())
        last = sync(db)
        self.assert_restores(self.url(), "latest", image(db), 4096)
        report = ask(db, "SELECT replica_verify('main', 'full')")
        self.assertTrue(report["ok"], report)
        wanted = {last, last - 1}
        for txid in differences:
            wanted |= {txid - 1, txid, txid + 1, txid + 2}
        for txid in sorted(t for t in wanted if 1 < t <= last)[-24:]:
            self.assert_state(txid)
        writer.communicate("\n", timeout=60)
        db.close()

    def differences(self):
        out = []
        for line in self.events("pages differ"):
            numbers = line.split("they are TXID ")[1].split(".")[0].split(" to ")
            out += [int(n) for n in numbers]
        return out

    def test_Invariant_Consistent_a_comparison_beside_writers(self):
        writer = self.start()
        for _ in range(6):
            self.await_commits(20)
            subprocess.run([sys.executable, "-c", HIDDEN, self.path("app.db")], check=True)
        # Enough of them were not seen in between.
        self.assertGreater(len(self.events("comparing every page")), 0)
        self.finish(writer, self.differences())

    def test_Invariant_Consistent_a_dropped_spool_beside_writers(self):
        """While the store is away the differences wait, and what is committed meanwhile is followed."""
        writer = self.start('{"spool_limit_bytes": 4000000, "sync_interval_ms": 100}')
        db = connect(self.path("app.db"))
        sync(db)
        os.rename(self.path("replica"), self.path("away"))
        with open(self.path("replica"), "w"):
            pass
        self.wait_for(lambda: self.events('needed: '))
        self.await_commits(80)
        self.assertLess(status(db)["spool_bytes"], 20 << 20)
        os.remove(self.path("replica"))
        os.rename(self.path("away"), self.path("replica"))
        self.wait_for(lambda: self.events("pages differ"))
        db.close()
        self.finish(writer, self.differences())

    def test_Invariant_Consistent_snapshots_beside_writers_and_old_readers(self):
        """A snapshot's last pages were read in a view, which old readers can make impossible to have."""
        writer = self.start('{"sync_interval_ms": 100}')
        readers = []
        for _ in range(5):  # one of each read mark's
            readers.append(sqlite3.connect(self.path("app.db"), isolation_level=None))
            readers[-1].execute("BEGIN")
            one(readers[-1], "SELECT count(*) FROM accounts")
            self.await_commits(5)
        db = connect(self.path("app.db"))
        for _ in range(4):
            one(db, "SELECT replica_snapshot()")
        self.assertEqual(self.events('"waiting"'), [])
        taken = [int(line.split("TXID ")[1].split(",")[0]) for line in self.events('"snapshot"')]
        self.assertGreaterEqual(len(taken), 4)
        for connection in readers + [db]:
            connection.close()
        self.finish(writer, [])
        for txid in taken[-4:]:
            self.assert_state(txid)

    def test_a_snapshot_finds_a_page_that_no_commit_made_so(self):
        db = connect(self.path("app.db"))
        one(db, "SELECT replica_attach(?)", self.url())
        sync(db)
        db.execute("UPDATE accounts SET pad = randomblob(1500) WHERE id = 1")
        sync(db)
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        page = one(db, "PRAGMA page_count")
        # By another process: a close by this one would take SQLite's locks with it.
        subprocess.run([sys.executable, "-c", "import os, sys; f = os.open(sys.argv[1], os.O_WRONLY); "
                        "os.pwrite(f, b'other', int(sys.argv[2]))", self.path("app.db"), str(page * 4096 - 100)], check=True)
        one(db, "SELECT replica_snapshot()")
        self.wait_for(lambda: self.events("1 pages differ"))
        self.assertEqual(len(self.events("differs from the state that its commits lead to")), 2)
        sync(db)
        self.assert_restores(self.url(), "latest", image(db), 4096)
        db.close()

    def test_verifies_beside_writers_read_one_state(self):
        writer = self.start('{"sync_interval_ms": 100}')
        for _ in range(4):
            report = self.replica_json("verify", "--depth", "full", self.path("app.db"))["databases"][0]
            self.assertTrue(report["ok"], report)
        self.assertEqual(self.events('"resync"'), [])
        self.finish(writer, [])


if __name__ == "__main__":
    harness.main()

"""Processes without the extension: whatever they do between two looks of ours is noticed and healed by difference, never
silently left out (Invariant NoSilentGap). Each case was once a silent divergence."""
import fcntl
import os
import pathlib
import re
import shutil
import sqlite3
import struct
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

    def attach(self, options="{}"):
        db = connect(self.path("app.db"))
        one(db, "SELECT replica_attach(?, ?)", self.url(), options)
        sync(db)
        return db

    def assert_equal(self, db):
        sync(db)
        self.assert_restores(self.url(), "latest", image(db), 4096)
        report = ask(db, "SELECT replica_verify('main', 'full')")
        self.assertTrue(report["ok"], report)

    HIDDEN = ("INSERT INTO u VALUES (1)", "INSERT INTO u VALUES (2)", "PRAGMA wal_checkpoint(TRUNCATE)",
              "INSERT INTO t VALUES (3)")

    def test_Invariant_NoSilentGap_a_WAL_older_than_the_count(self):
        """A foreign writer left commits in a WAL and died; SQLite's count begins at 0 behind such a WAL. Then a foreign writer
        restarted it before our leader came: the next WAL's count fitted, and the commits before it were missing."""
        self.make()
        self.attach().close()
        subprocess.run([sys.executable, "-c", FOREIGN + "\nimport os; os.kill(os.getpid(), 9)", self.path("app.db"),
                        "INSERT INTO u VALUES (1)", "INSERT INTO u VALUES (2)", "INSERT INTO u VALUES (3)"])
        # Somebody else has the leadership for a moment.
        fd = os.open(self.path("app.db-replica/lock"), os.O_RDWR)
        fcntl.fcntl(fd, 37, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 1, 0))  # F_OFD_SETLK
        db = connect(self.path("app.db"))
        one(db, "SELECT replica_attach(?)", self.url())
        one(db, "SELECT count(*) FROM u")
        waiter = re.compile(r" -> OFDLCK .*:%d " % os.fstat(fd).st_ino)  # our leader
        self.wait_for(lambda: waiter.search(pathlib.Path("/proc/locks").read_text()))
        self.plain("PRAGMA wal_checkpoint(PASSIVE)", "INSERT INTO t VALUES ('the next WAL')")
        os.close(fd)
        self.assert_equal(db)
        self.assertEqual(one(db, "SELECT count(*) FROM u"), 3)

    def test_the_WAL_of_a_killed_foreign_writer_goes_on_without_a_resync(self):
        self.make()
        self.attach().close()
        subprocess.run([sys.executable, "-c", FOREIGN + "\nimport os; os.kill(os.getpid(), 9)", self.path("app.db"),
                        "INSERT INTO u VALUES (1)", "INSERT INTO u VALUES (2)", "INSERT INTO u VALUES (3)"])
        db = self.attach()
        self.assert_equal(db)
        self.assertEqual([m for k, m in db.execute("SELECT kind, message FROM replica_events") if k == "resync"], [])

    def test_Invariant_NoCommitLost_a_resync_from_an_older_view_meets_no_request(self):
        """With every read mark held by a reader the resync's view was older than the request that it was taken to meet."""
        self.make()
        self.attach().close()
        self.plain(*self.HIDDEN)
        writer = connect(self.path("app.db"), False)
        readers = []
        for i in range(4):
            writer.execute("INSERT INTO t VALUES (?)", (i,))
            readers.append(connect(self.path("app.db"), False))
            readers[-1].execute("BEGIN")
            readers[-1].execute("SELECT count(*) FROM t").fetchone()
        writer.execute("INSERT INTO t VALUES ('late')")
        db = connect(self.path("app.db"))
        one(db, "SELECT replica_attach(?, '{\"sync_interval_ms\": 0}')", self.url())
        sync(db)
        shutil.copytree(self.path("replica"), self.path("copy"))
        for connection in readers + [writer]:
            connection.close()
        harness.restore(self.url("copy"), self.path("r.db"))
        self.assertEqual(one(connect(self.path("r.db"), False), "SELECT count(*) FROM t WHERE x = 'late'"), 1)

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

    def test_Invariant_NoSilentGap_the_note_of_a_close_does_not_vouch_for_foreign_commits(self):
        """The last close noted where the last WAL had ended that passed a gate, though a foreign one had come after it."""
        self.make()
        db = self.attach()
        db.execute("INSERT INTO t VALUES ('ours')")
        sync(db)
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        self.plain("INSERT INTO u VALUES ('foreign')", "PRAGMA wal_checkpoint(TRUNCATE)")
        db.close()
        db = self.attach()
        db.execute("INSERT INTO t VALUES ('later')")
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

    def resyncs(self):
        with open(self.path("app.db-replica", "events")) as events:
            return events.read().count('"resync"')

    def test_guard_keeps_every_commit_of_a_busy_foreign_writer(self):
        """Plain processes commit as fast as they can, checkpointing and restarting the WAL as SQLite does."""
        self.make()
        db = self.attach('{"guard": true, "sync_interval_ms": 100}')
        before = sync(db)
        writers = [subprocess.Popen([sys.executable, "-c", """
import sqlite3, sys
c = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30)
c.execute("PRAGMA synchronous=NORMAL")
for i in range(int(sys.argv[2])):
    c.execute("INSERT INTO t VALUES (randomblob(2000))")
    if i % 1000 == 999:
        c.execute("PRAGMA wal_checkpoint(%s)" % sys.argv[3]).fetchall()
""", self.path("app.db"), "6000", mode]) for mode in ("PASSIVE", "RESTART")]
        largest = 0
        while any(w.poll() is None for w in writers):
            largest = max(largest, os.path.getsize(self.path("app.db-wal")))
            time.sleep(0.01)  # the size is looked at so often
        self.assertEqual([w.returncode for w in writers], [0, 0])
        self.assertEqual(sync(db), before + 12000)
        self.assertEqual(self.resyncs(), 0)
        # 12,000 commits are some 100 MB of frames.
        self.assertLess(largest, 80 << 20)
        self.assert_equal(db)

    def test_Regression_a_journaled_WAL_of_a_foreign_process_has_its_number(self):
        """The leader copied frames of a WAL that it had not looked at yet: its journal did not say which WAL that was."""
        self.make()
        db = self.attach('{"guard": true}')
        os.rename(self.path("replica"), self.path("away"))
        with open(self.path("replica"), "w"):
            pass
        db.execute("INSERT INTO t VALUES ('is not sent')")
        self.wait_for(lambda: status(db)["spool_bytes"] > 0)
        self.plain("PRAGMA wal_checkpoint(RESTART)", "INSERT INTO t VALUES (zeroblob(2000000))")
        self.wait_for(lambda: [name for name in os.listdir(self.path("app.db-replica/spool")) if name.startswith("journal-")])
        self.plain("PRAGMA wal_checkpoint(RESTART)", "INSERT INTO u VALUES ('in the next one')")
        os.remove(self.path("replica"))
        os.rename(self.path("away"), self.path("replica"))
        self.assertEqual(sync(db), 4)
        self.assertEqual(self.resyncs(), 0)
        self.assert_equal(db)

    def test_guard_over_many_quiet_restarts(self):
        self.make()
        db = self.attach('{"guard": true, "sync_interval_ms": 0}')
        txid = sync(db)
        for i in range(30):
            self.plain("INSERT INTO t VALUES (%d)" % i, "PRAGMA wal_checkpoint(%s)" % ("PASSIVE", "FULL")[i % 2],
                       "INSERT INTO u VALUES (%d)" % i)
            if i % 3 == 0:
                txid = sync(db)
            if i % 5 == 0:
                db.execute("INSERT INTO t VALUES ('ours')")
        self.assertEqual(sync(db), 1 + 60 + 6)
        self.assertEqual(self.resyncs(), 0)
        self.assert_equal(db)

    def test_guard_takes_no_old_journal_for_the_next_wal(self):
        """A leader killed between writing its state and removing a journal: with mark 0 held, the journal's older WAL was
        taken for the one that follows, and a state published that never was."""
        code = """
import sys
sys.path.insert(0, %r)
from harness import *
db = connect(sys.argv[1])
one(db, "SELECT replica_attach(?, '{\\"guard\\": true, \\"sync_interval_ms\\": 20000}')", sys.argv[2])
for line in sys.stdin:
    print(sync(db), flush=True)
""" % os.path.dirname(os.path.abspath(__file__))

        def lead():
            return subprocess.Popen([sys.executable, "-c", code, self.path("app.db"), self.url()],
                                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

        def synced(leader):
            leader.stdin.write("sync\n")
            leader.stdin.flush()
            return int(leader.stdout.readline())

        def told():
            return self.replica_json("status", self.path("app.db"), code=None)["databases"][0]

        self.make()
        self.plain("INSERT INTO t VALUES ('t0')", "INSERT INTO u VALUES ('u0')")
        keep = sqlite3.connect(self.path("app.db"), isolation_level=None)
        keep.execute("SELECT 1 FROM t").fetchall()
        leader = lead()
        synced(leader)
        spool = self.path("app.db-replica", "spool")
        shm = open(self.path("app.db-shm"), "r+b")  # to the end: closing it would drop the locks of `keep`
        self.addCleanup(shm.close)

        def held(mark):
            wanted = struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 123 + mark, 1, 0)
            return struct.unpack("hhqqi4x", fcntl.fcntl(shm, fcntl.F_OFD_GETLK, wanted))[0] != fcntl.F_UNLCK

        def only_mark_0():
            return [mark for mark in range(5) if held(mark)] == [0]

        def change(*statements):
            """In a new WAL, while the leader holds mark 0 alone."""
            self.plain("PRAGMA wal_checkpoint(PASSIVE)")
            self.wait_for(only_mark_0)
            self.plain(*statements)

        begin = told()["txid"]["committed"]
        for i in (1, 2):
            change("UPDATE t SET x = 't%d'" % i)
            self.wait_for(lambda: told()["txid"]["committed"] == begin + i and only_mark_0())
        journals = {}
        for name in os.listdir(spool):
            if name.startswith("journal-"):
                with open(os.path.join(spool, name), "rb") as file:
                    journals[name] = file.read()
        self.assertTrue(journals, "the case needs a journal")
        synced(leader)
        change("UPDATE t SET x = 't3'", "UPDATE u SET x = 'u3'")
        last = synced(leader)
        leader.kill()
        leader.communicate()
        for name, content in journals.items():
            with open(os.path.join(spool, name), "wb") as file:
                file.write(content)
        self.plain("PRAGMA wal_checkpoint(PASSIVE)")
        leader = lead()
        self.wait_for(lambda: told()["leader_pid"] == leader.pid)
        self.assertEqual(synced(leader), last, "nothing was committed")
        self.assertEqual(self.resyncs(), 0)
        leader.communicate()
        keep.close()


if __name__ == "__main__":
    harness.main()

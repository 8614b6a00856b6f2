"""What a user does first: attach, sync, status, verify, lose the database, restore; and how attach decides."""
import glob
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time

import harness
from harness import ask, connect, image, one, restore, status, sync


class Attach(harness.TestCase):
    def events(self, database="app.db"):
        connection = connect(self.path(database))
        rows = connection.execute("SELECT kind, message FROM replica_events").fetchall()
        connection.close()
        return rows

    def objects(self, name="replica"):
        return sorted(glob.glob(self.path(name) + "/**/*", recursive=True))

    def test_the_shell_session_of_the_readme(self):
        out = self.shell(self.path("app.db"),
                         "SELECT replica_attach('%s');" % self.url(),
                         "CREATE TABLE t(x); INSERT INTO t VALUES ('hello');",
                         "SELECT replica_sync() >= 1;",
                         "SELECT json_extract(replica_status(), '$.state');",
                         "SELECT json_extract(replica_verify('main', 'full'), '$.ok');").split("\n")
        self.assertEqual(out, [self.url(), "1", "streaming", "1"])
        for file in glob.glob(self.path("app.db*")):
            shutil.rmtree(file) if os.path.isdir(file) else os.remove(file)
        restore(self.url(), self.path("app.db"))
        self.assertEqual(self.shell(self.path("app.db"), "SELECT x FROM t;"), "hello")

    def test_one_line_is_replicated_when_it_returns(self):
        environment = harness.clean_environment(REPLICA_URL=self.url())
        self.shell(self.path("app.db"), "PRAGMA journal_mode=WAL; CREATE TABLE t(x);", environment=environment)
        for i in range(5):
            self.shell(self.path("app.db"), "INSERT INTO t VALUES (%d);" % i, environment=environment)
            with open(self.path("app.db"), "rb") as file:
                self.assert_restores(self.url("replica/app.db"), "latest", file.read(), 4096)

    def test_connections_opened_before_and_after_the_load_and_by_attach(self):
        first = sqlite3.connect(self.path("app.db"), isolation_level=None)
        first.execute("PRAGMA journal_mode=WAL")
        first.execute("CREATE TABLE t(x)")
        harness.load(first)
        one(first, "SELECT replica_attach(?)", self.url())
        sync(first)
        second = sqlite3.connect(self.path("app.db"), isolation_level=None)
        for connection in (first, second):
            connection.execute("INSERT INTO t VALUES (1)")
        # ATTACH on the connection that was there before the load goes through the shim as well.
        first.execute("ATTACH ? AS other", (self.path("other.db"),))
        one(first, "SELECT replica_attach(?, '{\"schema\": \"other\"}')", self.url("replica-other"))
        first.execute("CREATE TABLE other.o(x)")
        sync(second)
        self.assertEqual(status(second)["txid"]["committed"], status(second)["txid"]["acknowledged"])
        # A leader that sleeps is woken by the commit itself.
        self.wait_for(lambda: second.execute("INSERT INTO t VALUES (1)") and status(second)["commit_wakes"] > 0)
        sync(second)
        sync(first, "other")
        expected = image(first)
        self.assert_restores(self.url(), "latest", expected, 4096)
        restore(self.url("replica-other"), self.path("o.db"))
        self.assertEqual(sqlite3.connect(self.path("o.db")).execute("SELECT name FROM sqlite_schema").fetchall(), [("o",)])
        paths = [row[0] for row in first.execute("SELECT path FROM replica_databases") if row[0].startswith(self.folder)]
        self.assertEqual(paths, [self.path("app.db"), self.path("other.db")])

    def test_clean_reattach_uploads_nothing(self):
        db = connect(self.path("app.db"))
        one(db, "SELECT replica_attach(?)", self.url())
        sync(db)
        db.execute("CREATE TABLE t AS SELECT randomblob(100000) AS x")
        txid = sync(db)
        db.close()
        before = self.objects()
        db = connect(self.path("app.db"))
        one(db, "SELECT replica_attach(?)", self.url())
        self.assertEqual(sync(db), txid)
        self.assertEqual(self.objects(), before)
        self.assertEqual(status(db)["puts"], 1 + 1)  # of the first session: the snapshot and the table
        db.execute("INSERT INTO t VALUES (1)")
        self.assertEqual(sync(db), txid + 1)
        expected = image(db)
        db.close()
        self.assertNotIn("resync", [kind for kind, _ in self.events()])
        self.assert_restores(self.url(), "latest", expected, 4096)

    def test_regression_a_short_visit_leaves_no_event(self):
        """Two lines for each made 256 KiB of them in a day, and what had happened was gone."""
        for i in range(12):
            db = connect(self.path("app.db"))
            one(db, "SELECT replica_attach(?)", self.url())
            db.execute("CREATE TABLE IF NOT EXISTS t(x)")
            db.execute("INSERT INTO t VALUES (?)", (i,))
            sync(db)
            db.close()
            if i == 0:
                first = self.events()
        self.assertEqual(self.events(), first)
        self.assertEqual([kind for kind, _ in first], ["leader", "generation", "snapshot"])
        self.assertIn(self.url(), first[0][1])

    def test_writes_without_libreplica_cost_only_the_pages_that_differ(self):
        db = connect(self.path("app.db"))
        one(db, "SELECT replica_attach(?)", self.url())
        db.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, x)")
        db.execute("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < 3000)"
                   "INSERT INTO t SELECT i, randomblob(500) FROM n")
        sync(db)
        db.close()
        plain = subprocess.run(["sqlite3", self.path("app.db"), "UPDATE t SET x = 'changed' WHERE id IN (10, 2000)"])
        self.assertEqual(plain.returncode, 0)
        db = connect(self.path("app.db"))
        one(db, "SELECT replica_attach(?)", self.url())
        sync(db)
        pages = [m for k, m in db.execute("SELECT kind, message FROM replica_events") if "pages differ" in m]
        self.assertEqual(len(pages), 1)
        self.assertLessEqual(int(pages[0].split()[0]), 4)
        self.assertEqual(len(self.generations()), 1, "no new generation")
        self.assert_restores(self.url(), "latest", image(db), 4096)

    def test_killed_process_goes_on_where_it_stopped(self):
        writer = subprocess.Popen([sys.executable, "-c", """
import sys; sys.path.insert(0, %r)
from harness import *
db = connect(%r)
one(db, "SELECT replica_attach(?, '{\\"sync_interval_ms\\": 300}')", %r)
db.execute("CREATE TABLE IF NOT EXISTS t(x)")
sync(db)
print("ready", flush=True)
for i in range(10**6):
    db.execute("INSERT INTO t VALUES (randomblob(300))")
""" % (os.path.dirname(os.path.abspath(__file__)), self.path("app.db"), self.url())], stdout=subprocess.PIPE)
        self.assertEqual(writer.stdout.readline(), b"ready\n")
        self.wait_for(lambda: len(glob.glob(self.path("replica/*/log/*"))) >= 3)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        db = connect(self.path("app.db"))
        one(db, "SELECT replica_attach(?)", self.url())
        sync(db)
        self.assert_restores(self.url(), "latest", image(db), 4096)
        report = ask(db, "SELECT replica_verify('main', 'full')")
        self.assertTrue(report["ok"], report)
        db.close()

    def test_restore_to_a_time(self):
        db = connect(self.path("app.db"))
        one(db, "SELECT replica_attach(?, '{\"sync_interval_ms\": 10}')", self.url())
        db.execute("CREATE TABLE t(x)")
        sync(db)
        images = []
        for i in range(4):
            db.execute("INSERT INTO t VALUES (?)", (i,))
            images.append((image(db), time.time()))
            time.sleep(0.05)  # the moment is well before the next commit
        sync(db)
        for data, moment in images:
            stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(moment)) + ("%.6f" % (moment % 1))[1:] + "Z"
            self.assert_restores(self.url(), stamp, data, 4096)

    def test_a_restored_database_continues_the_history(self):
        db = connect(self.path("app.db"))
        one(db, "SELECT replica_attach(?)", self.url())
        db.execute("CREATE TABLE t(x)")
        txid = sync(db)
        db.execute("INSERT INTO t VALUES ('later')")
        sync(db)
        db.close()
        # To the end of the history: nothing to send.
        self.lose("app.db")
        restore(self.url(), self.path("app.db"))
        db = connect(self.path("app.db"))
        one(db, "SELECT replica_attach(?)", self.url())
        self.assertEqual(sync(db), txid + 1)
        db.close()
        # To an earlier commit: what was undone is one more commit of the same generation.
        self.lose("app.db")
        restore(self.url(), self.path("app.db"), txid)
        db = connect(self.path("app.db"))
        one(db, "SELECT replica_attach(?)", self.url())
        sync(db)
        db.execute("INSERT INTO t VALUES ('other')")
        sync(db)
        self.assertEqual(len(self.generations()), 1)
        self.assert_restores(self.url(), "latest", image(db), 4096)

    def lose(self, name):
        for end in ("", "-wal", "-shm"):
            if os.path.exists(self.path(name + end)):
                os.remove(self.path(name + end))
        shutil.rmtree(self.path(name + "-replica"), True)

    def test_Invariant_OneWriter_a_copy_does_not_take_the_history_from_its_database(self):
        """A restore that is only tried, opened with the production settings, fenced the database that it was of."""
        db = connect(self.path("app.db"))
        one(db, "SELECT replica_attach(?)", self.url())
        db.execute("CREATE TABLE t(x)")
        sync(db)
        restore(self.url(), self.path("copy.db"))
        copy = connect(self.path("copy.db"))
        one(copy, "SELECT replica_attach(?)", self.url())
        copy.execute("INSERT INTO t VALUES ('drill')")
        with self.assertRaisesRegex(sqlite3.OperationalError, "copy.db is a copy.*takeover"):
            sync(copy)
        db.execute("INSERT INTO t VALUES ('production')")
        sync(db)
        self.assertEqual(status(db)["state"], "streaming")
        self.assert_restores(self.url(), "latest", image(db), 4096)
        db.close()
        # Told to, the copy goes on in its place.
        one(copy, "SELECT replica_attach(?, '{\"takeover\": true}')", self.url())
        sync(copy)
        self.assert_restores(self.url(), "latest", image(copy), 4096)

    def test_regression_a_later_snapshot_does_not_make_a_txid_later(self):
        db = connect(self.path("app.db"))
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("CREATE TABLE t(x)")
        one(db, "SELECT replica_attach(?)", self.url())
        for _ in range(2):  # the first state, then a commit
            sync(db)
            one(db, "SELECT replica_snapshot()")
            moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime()) + ("%.6f" % (time.time() % 1))[1:] + "Z"
            expected = image(db)
            time.sleep(0.01)  # so much later is the next snapshot
            one(db, "SELECT replica_snapshot()")
            self.assert_restores(self.url(), moment, expected, 4096)
            db.execute("INSERT INTO t VALUES (1)")

    def test_verify_finds_a_hole_at_each_depth(self):
        db = connect(self.path("app.db"))
        one(db, "SELECT replica_attach(?, '{\"sync_interval_ms\": 0}')", self.url())
        db.execute("CREATE TABLE t(x)")
        for i in range(5):
            db.execute("INSERT INTO t VALUES (?)", (i,))
            sync(db)
        log = sorted(glob.glob(self.path("replica/*/log/*")))
        # The first one too: nothing but the snapshot before it tells that it is missing.
        os.rename(log[0], self.path("kept"))
        for depth in ("quick", "full", "objects"):
            report = ask(db, "SELECT replica_verify('main', ?)", depth)
            self.assertFalse(report["ok"], depth)
            self.assertIn("missing", report["errors"][0], depth)
        os.rename(self.path("kept"), log[0])
        os.remove(log[1])
        for depth in ("quick", "full", "objects"):
            report = ask(db, "SELECT replica_verify('main', ?)", depth)
            self.assertFalse(report["ok"], depth)
            self.assertIn("missing", report["errors"][0], depth)
        # Behind a newer snapshot only earlier states lack it.
        one(db, "SELECT replica_snapshot()")
        for depth in ("quick", "full", "objects"):
            report = ask(db, "SELECT replica_verify('main', ?)", depth)
            self.assertTrue(report["ok"], report)
            self.assertIn("missing", report["warnings"][0], depth)

    def test_regression_a_replica_that_is_gone_is_made_anew(self):
        """A folder that was lost, or not mounted, took the next segments as if nothing had happened: nothing was restorable."""
        db = connect(self.path("app.db"))
        one(db, "SELECT replica_attach(?)", self.url())
        db.execute("CREATE TABLE t AS SELECT randomblob(50000)")
        sync(db)
        db.close()
        os.rename(self.path("replica"), self.path("lost"))
        # As after a restart of the machine: a look at the replica lies longer back.
        os.remove(self.path("app.db-replica/control"))
        db = connect(self.path("app.db"))
        one(db, "SELECT replica_attach(?)", self.url())
        db.execute("INSERT INTO t VALUES (1)")
        self.wait_for(lambda: "replica" in [k for (k,) in db.execute("SELECT kind FROM replica_events")])
        sync(db)
        self.assert_restores(self.url(), "latest", image(db), 4096)

    def test_lost_replica_folder_is_recognised_by_content(self):
        db = connect(self.path("app.db"))
        one(db, "SELECT replica_attach(?)", self.url())
        db.execute("CREATE TABLE t AS SELECT randomblob(50000)")
        txid = sync(db)
        db.close()
        shutil.rmtree(self.path("app.db-replica"))
        before = self.objects()
        db = connect(self.path("app.db"))
        one(db, "SELECT replica_attach(?)", self.url())
        self.assertEqual(sync(db), txid)
        self.assertEqual(self.objects(), before)

    def test_regression_a_log_object_that_is_gone_is_noticed(self):
        """Later commits were acknowledged behind the hole, also after a restart: nothing of them was restorable."""
        for gone in (2, 3):
            with self.subTest(gone=gone):
                name = "gone%d" % gone
                db = connect(self.path(name + ".db"))
                db.execute("PRAGMA journal_mode=WAL")
                db.execute("CREATE TABLE t(x)")
                one(db, "SELECT replica_attach(?, '{\"sync_interval_ms\": 0}')", self.url(name))
                sync(db)
                for i in range(3):
                    db.execute("INSERT INTO t VALUES (?)", (i,))
                    sync(db)
                db.close()
                log, = glob.glob(self.path(name, "*", "log", "%016x" % gone))
                os.remove(log)
                os.remove(self.path(name + ".db-replica", "control"))  # it knows of a look that was just now
                db = connect(self.path(name + ".db"))
                one(db, "SELECT replica_attach(?)", self.url(name))
                db.execute("INSERT INTO t VALUES (9)")
                sync(db)
                self.wait_for(lambda: any("it is not what was stored" in row[0] and log in row[0] for row in db.execute(
                    "SELECT message FROM replica_events")))
                db.execute("INSERT INTO t VALUES (10)")
                self.wait_for(lambda: ask(db, "SELECT replica_verify('main', 'full')")["ok"])
                self.assert_restores(self.url(name), "latest", image(db), 4096)
                db.close()

    def test_snapshot_function_and_history(self):
        db = connect(self.path("app.db"))
        one(db, "SELECT replica_attach(?)", self.url())
        db.execute("CREATE TABLE t(x)")
        txid = one(db, "SELECT replica_snapshot()")
        kinds = [row[0] for row in db.execute("SELECT kind FROM replica_history WHERE max_txid = ?", (txid,))]
        self.assertIn("snapshot", kinds)

    def test_sync_commit_waits_for_the_store(self):
        db = connect(self.path("app.db"))
        one(db, "SELECT replica_attach(?, '{\"sync\": \"commit\"}')", self.url())
        db.execute("CREATE TABLE t(x)")
        for i in range(5):
            db.execute("INSERT INTO t VALUES (?)", (i,))
            s = status(db)
            self.assertEqual(s["txid"]["committed"], s["txid"]["acknowledged"])

    def test_detach_lets_the_application_leave_wal_mode(self):
        db = connect(self.path("app.db"))
        one(db, "SELECT replica_attach(?)", self.url())
        db.execute("CREATE TABLE t(x)")
        with self.assertRaisesRegex(sqlite3.OperationalError, "journal_mode must stay WAL"):
            db.execute("PRAGMA journal_mode=DELETE")
        with self.assertRaisesRegex(sqlite3.OperationalError, "locking_mode must stay NORMAL"):
            db.execute("PRAGMA locking_mode=EXCLUSIVE")
        one(db, "SELECT replica_detach()")
        self.assertEqual(one(db, "PRAGMA journal_mode=DELETE"), "delete")

    def test_a_refusal_without_memory_is_out_of_memory(self):
        """It was an error without a message: "SQL logic error"."""
        code = """
import ctypes, os, sqlite3
from harness import connect, one, sync
library = ctypes.CDLL("libsqlite3.so.0")
library.sqlite3_memory_used.restype = ctypes.c_int64
library.sqlite3_hard_heap_limit64.argtypes = [ctypes.c_int64]
db = connect(%r)
one(db, "SELECT replica_attach(?)", %r)
sync(db)
seen = set()
used = library.sqlite3_memory_used()
for limit in range(used + 6000, used, -8):
    library.sqlite3_hard_heap_limit64(limit)
    try:
        db.execute("PRAGMA journal_mode=DELETE")
    except MemoryError:
        seen.add("memory")
    except sqlite3.Error as e:
        seen.add(str(e).split(", so ")[-1].split(";")[0])
    finally:
        library.sqlite3_hard_heap_limit64(0)
print(sorted(seen), flush=True)
os._exit(0)
""" % (self.path("app.db"), self.url())
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                              env=harness.clean_environment(REPLICA_CONFIG="off", LIBREPLICA=harness.LIBRARY,
                                                            PYTHONPATH=os.path.dirname(os.path.abspath(__file__))))
        self.assertEqual(done.stdout.strip(), "['journal_mode must stay WAL', 'memory']", done.stderr)

    def test_Invariant_SQLiteUntouched(self):
        def run(path, extension):
            db = connect(path, extension=extension)
            db.execute("PRAGMA journal_mode=WAL")
            if extension:
                one(db, "SELECT replica_attach(?)", self.url())
            for i in range(50):
                db.execute("CREATE TABLE t%d(x)" % i)
                db.execute("INSERT INTO t%d VALUES (zeroblob(5000))" % i)
            if extension:
                sync(db)
            db.close()
            with open(path, "rb") as file:
                return file.read()
        plain, replicated = run(self.path("plain.db"), False), run(self.path("app.db"), True)
        self.assertEqual(harness.first_difference(plain, replicated, 4096), "")
        self.assertFalse(os.path.exists(self.path("app.db-wal")), "the last close removes the WAL, as without us")


if __name__ == "__main__":
    harness.main()

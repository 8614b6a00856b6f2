"""A test for each bug that was found by attack: the name says what went wrong."""
import fcntl
import glob
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time

import harness
from harness import ask, clean_environment, connect, image, one, restore, status, sync

HERE = os.path.dirname(os.path.abspath(__file__))


class Regression(harness.TestCase):
    def test_exit_flushes_although_openssl_cleans_up_at_exit(self):
        """The leader used OpenSSL after its exit handler: SIGSEGV, and the last commits were not sent."""
        code = ("import sys; sys.path.insert(0, %r)\nfrom harness import *\n"
                "db = connect(%r)\none(db, 'SELECT replica_attach(?)', %r)\nsync(db)\n"
                "db.execute('CREATE TABLE t(x)')\nimport ctypes\nctypes.CDLL(None).exit(0)\n")
        for i in range(5):
            name = "app%d.db" % i
            done = subprocess.run([sys.executable, "-c", code % (HERE, self.path(name), self.url("replica-" + name))], timeout=60)
            self.assertEqual(done.returncode, 0)
            restore(self.url("replica-" + name), self.path("out%d.db" % i))
            tables = sqlite3.connect(self.path("out%d.db" % i)).execute("SELECT name FROM sqlite_schema").fetchall()
            self.assertEqual(tables, [("t",)])

    def test_Invariant_NoCommitLost_a_commit_during_a_verify_or_snapshot(self):
        """A request that came while a view was open counted as met by the view, which did not hold its commit: with
        sync=commit the COMMIT returned before the store had it."""
        db = connect(self.path("app.db"))
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("CREATE TABLE t(x)")
        one(db, "SELECT replica_attach(?, '{\"sync\": \"commit\", \"sync_interval_ms\": 0}')", self.url())
        first = sync(db)
        stop = threading.Event()

        def look():
            other = connect(self.path("app.db"))
            while not stop.is_set():
                one(other, "SELECT replica_verify('main', 'full')")
                one(other, "SELECT replica_snapshot()")
            other.close()
        looking = threading.Thread(target=look)
        looking.start()
        early = []
        for i in range(1, 501):
            db.execute("INSERT INTO t VALUES (?)", ("x" * 300,))
            txid = status(db)["txid"]
            if txid["acknowledged"] < first + i:
                early.append((i, txid))
        stop.set()
        looking.join()
        self.assertEqual(early, [])

    def test_interrupt_that_exits_inside_a_wait(self):
        """The shell calls exit() from its third SIGINT, in the thread that waits in replica_sync."""
        if os.environ.get("REPLICA_TEST_SANITIZED") == "thread":
            self.skipTest("the shell's own handler calls exit(), which ThreadSanitizer refuses in any handler")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        shell = subprocess.Popen(["sqlite3", self.path("a.db")], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                 env=harness.clean_environment(REPLICA_SHUTDOWN_TIMEOUT="500ms"))
        shell.stdin.write((""".load %s
SELECT replica_attach('s3://bucket/x', '{"endpoint": "http://127.0.0.1:%d", "access_key_id": "a", "secret_access_key": "b"}');
CREATE TABLE t(x);
.print waiting
SELECT replica_sync();
""" % (harness.LIBRARY[:-3], port)).encode())
        shell.stdin.flush()
        os.set_blocking(shell.stdout.fileno(), True)
        while b"waiting" not in shell.stdout.readline():
            pass
        time.sleep(0.2)  # into the wait, which nothing outside can see
        for _ in range(3):
            shell.send_signal(signal.SIGINT)
            time.sleep(0.05)  # one signal each, and none is lost
        code = shell.wait(timeout=30)
        shell.stdin.close()
        shell.stdout.close()
        self.assertEqual(code, 1)

    def test_journal_of_captured_frames_is_removed(self):
        """A checkpoint journaled frames while they were being captured: the leader spun and the close took ten seconds."""
        db = connect(self.path("app.db"))
        one(db, "SELECT replica_attach(?)", self.url())
        db.execute("CREATE TABLE t(x)")
        sync(db)
        for delay in (0.0, 0.01, 0.03, 0.06):
            db.execute("INSERT INTO t VALUES (randomblob(20000000))")
            time.sleep(delay)
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        sync(db)
        self.wait_for(lambda: status(db)["spool_bytes"] == 0, 10)
        started = time.monotonic()
        db.close()
        self.assertLess(time.monotonic() - started, 5)

    def test_quick_verify_misses_no_snapshot(self):
        """A replica whose snapshots were removed cannot be restored: quick said ok."""
        db = connect(self.path("app.db"))
        one(db, "SELECT replica_attach(?)", self.url())
        sync(db)
        db.execute("CREATE TABLE t(x)")
        sync(db)
        for snapshot in glob.glob(self.path("replica/*/snapshot/*")):
            os.remove(snapshot)
        self.assertFalse(ask(db, "SELECT replica_verify()")["ok"])
        one(db, "SELECT replica_snapshot()")
        self.assertTrue(ask(db, "SELECT replica_verify()")["ok"])
        self.assert_restores(self.url(), "latest", image(db), 4096)

    def test_removed_replica_folder_is_named(self):
        db = connect(self.path("app.db"))
        one(db, "SELECT replica_attach(?)", self.url())
        db.execute("CREATE TABLE t(x)")
        sync(db)
        subprocess.run(["rm", "-r", self.path("app.db-replica")], check=True)
        self.assertEqual(status(db)["state"], "error")
        self.assertIn("was removed while it was in use", status(db)["message"])
        started = time.monotonic()
        one(db, "SELECT replica_attach(?)", self.url())
        self.assertLess(time.monotonic() - started, 8)
        sync(db)
        self.assert_restores(self.url(), "latest", image(db), 4096)

    def test_missing_keys_are_named_outside_production(self):
        out = self.shell(self.path("a.db"), "PRAGMA journal_mode=WAL;", "CREATE TABLE t(x);",
                         "SELECT json_extract(replica_status(), '$.message');",
                         environment=harness.clean_environment(REPLICA_URL="s3://bucket/x"))
        self.assertIn("REPLICA_ACCESS_KEY_ID", out)

    def test_error_is_gone_after_recovery(self):
        other = connect(self.path("other.db"))
        one(other, "SELECT replica_attach(?)", self.url())
        other.execute("CREATE TABLE o(x)")
        sync(other)
        db = connect(self.path("app.db"))
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("CREATE TABLE t(x)")
        one(db, "SELECT replica_attach(?)", self.url())
        with self.assertRaises(sqlite3.OperationalError):
            sync(db)
        one(db, "SELECT replica_attach(?, '{\"takeover\": true}')", self.url())
        sync(db)
        self.assertIsNone(status(db)["last_error"])
        self.assertIsNone(status(db)["error_since"])

    def test_close_does_not_wait_for_who_opens_meanwhile(self):
        def use():
            for _ in range(40):
                db = connect(self.path("app.db"), check_same_thread=False)
                db.execute("PRAGMA busy_timeout=10000")
                db.execute("INSERT INTO t VALUES (1)")
                started = time.monotonic()
                db.close()
                slowest.append(time.monotonic() - started)
        slowest = []
        db = connect(self.path("app.db"))
        one(db, "SELECT replica_attach(?, '{\"sync_interval_ms\": 0}')", self.url())
        db.execute("CREATE TABLE t(x)")
        sync(db)
        db.close()
        threads = [threading.Thread(target=use) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertLess(max(slowest), 5)
        db = connect(self.path("app.db"))
        sync(db)
        self.assertEqual(one(db, "SELECT count(*) FROM t"), 120)
        self.assert_restores(self.url(), "latest", image(db), 4096)

    def test_commits_of_a_process_killed_alone_stay_single(self):
        """After the kill the wal-index is rebuilt and SQLite's count of commits begins anew: it was compared with the gate's
        count of before, and thousands of commits became one."""
        code = """
import os, sys
sys.path.insert(0, %r)
from harness import *
db = connect(%r)
one(db, "SELECT replica_attach(?, '{\\"sync_interval_ms\\": 60000}')", %r)
db.execute("CREATE TABLE IF NOT EXISTS t(i INTEGER PRIMARY KEY, p)")
sync(db)
for i in range(int(sys.argv[1])):
    db.execute("INSERT INTO t(p) VALUES (randomblob(200))")
print(one(db, "SELECT count(*) FROM t"), flush=True)
os.kill(os.getpid(), 9)
"""
        rows = 0
        for number in (3000, 400, 2200):
            done = subprocess.run([sys.executable, "-c", code % (HERE, self.path("app.db"), self.url()), str(number)],
                                  capture_output=True, text=True, timeout=120)
            self.assertEqual(done.returncode, -signal.SIGKILL, done.stderr)
            rows += number
            self.assertEqual(int(done.stdout), rows)
        db = connect(self.path("app.db"))
        one(db, "SELECT replica_attach(?)", self.url())
        txid = sync(db)
        with open(self.path("app.db-replica", "events")) as events:
            text = events.read()
        self.assertNotIn('"resync"', text)
        self.assertGreaterEqual(txid, rows)
        self.assert_restores(self.url(), "latest", image(db), 4096)
        for back in (1, 1000, 2500):
            out = self.path("back-%d.db" % back)
            restore(self.url(), out, txid - back)
            self.assertEqual(one(sqlite3.connect(out), "SELECT count(*) FROM t"), rows - back)

    def test_a_fenced_database_says_so_after_a_restart(self):
        """Attaching counted as recovery and took the reason away."""
        db = connect(self.path("app.db"))
        one(db, "SELECT replica_attach(?, '{\"sync_interval_ms\": 0}')", self.url())
        db.execute("CREATE TABLE t(x)")
        sync(db)
        db.close()
        for suffix in ("", "-replica"):
            subprocess.run(["cp", "-r", self.path("app.db" + suffix), self.path("copy.db" + suffix)], check=True)
        for name in ("copy.db", "app.db", "app.db"):
            other = connect(self.path(name))
            one(other, "SELECT replica_attach(?, '{\"sync_interval_ms\": 0}')", self.url())
            other.execute("INSERT INTO t VALUES (?)", (name,))
            try:
                sync(other, timeout_ms=5000)
            except sqlite3.OperationalError:
                pass
            report = status(other)
            other.close()
        self.assertEqual(report["state"], "fenced")
        self.assertIn("another writer", report["last_error"])

    def test_Regression_nobody_recovers_the_wal_index_before_the_application(self):
        """The leader opened the database while the application's first connection had not locked anything yet: without a
        busy timeout it got SQLITE_BUSY_RECOVERY, about once in 300 times."""
        db = sqlite3.connect(self.path("app.db"))
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("CREATE TABLE t(x)")
        db.close()
        # Somebody is recovering the wal-index: the application's first read lock has to wait.
        index = os.open(self.path("app.db-shm"), os.O_RDWR | os.O_CREAT)
        fcntl.lockf(index, fcntl.LOCK_EX, 1, 122)
        host = subprocess.Popen([sys.executable, "-c", """
import os, sqlite3, sys
m = sqlite3.connect(":memory:")
m.enable_load_extension(True)
m.load_extension(sys.argv[1])
c = sqlite3.connect(sys.argv[2], timeout=0)
try:
    c.execute("SELECT count(*) FROM t")
except sqlite3.OperationalError as e:
    print(e, len(os.listdir("/proc/self/task")), flush=True)
sys.stdin.readline()
c.execute("SELECT count(*) FROM t").fetchall()
print(len(os.listdir("/proc/self/task")) > 1)
""", harness.LIBRARY[:-3], self.path("app.db")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                env=clean_environment(REPLICA_CONFIG="off", REPLICA_URL=self.url()))
        self.assertEqual(host.stdout.readline(), "database is locked 1\n")
        fcntl.lockf(index, fcntl.LOCK_UN, 1, 122)
        out, _ = host.communicate("\n", timeout=60)
        os.close(index)
        self.assertEqual((out, host.returncode), ("True\n", 0))

    def test_the_next_restore_removes_the_copy_of_a_killed_one(self):
        """It took the database's size until somebody looked."""
        db = connect(self.path("app.db"))
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("CREATE TABLE t(x)")
        one(db, "SELECT replica_attach(?)", self.url())
        db.execute("WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500) "
                   "INSERT INTO t SELECT randomblob(100000) FROM n")
        sync(db)
        out = self.path("out.db")
        for _ in range(20):
            restoring = subprocess.Popen([harness.COMMAND, "restore", self.url(), "-o", out], stdout=subprocess.DEVNULL,
                                         env=clean_environment(REPLICA_CONFIG="off"))
            while restoring.poll() is None and not glob.glob(out + ".restore-*"):
                pass
            restoring.kill()
            restoring.wait()
            if not os.path.exists(out):
                break
            os.remove(out)
        self.assertEqual(len(glob.glob(out + ".restore-*")), 1)
        restore(self.url(), out)
        self.assertEqual(glob.glob(out + ".restore-*"), [])
        self.assertEqual(image(sqlite3.connect(out)), image(db))
        db.close()


if __name__ == "__main__":
    harness.main()

"""Connections that are open before the extension is loaded, on whatever connection: replicated as all others are."""
import os
import sqlite3
import subprocess
import sys
import threading

import harness
from harness import ask, image, load, one, status, sync


def plain(path):
    return sqlite3.connect(path, isolation_level=None, timeout=30, check_same_thread=False)


class LateLoad(harness.TestCase):
    def setUp(self):
        super().setUp()
        self.database = self.path("app.db")
        db = plain(self.database)
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("CREATE TABLE t(x)")
        db.close()

    def assert_equal(self, db, txid="latest"):
        self.assert_restores(self.url(), txid, image(db), 4096)

    def resyncs(self):
        with open(self.database + "-replica/events") as file:
            events = file.read()
        return events.count("resync")

    def test_all_that_are_open(self):
        old = [plain(self.database) for _ in range(3)]
        for i, db in enumerate(old):
            db.execute("INSERT INTO t VALUES (?)", (i,))
        loader = load(plain(self.database))
        one(loader, "SELECT replica_attach(?)", self.url())
        first = sync(loader)
        # Each commit alone, restarts of the WAL by the old connections included: no gap, no comparison of pages.
        for i in range(300):
            db = old[i % 3]
            db.execute("INSERT INTO t VALUES (randomblob(3000))")
            if i % 50 == 49:
                self.assertEqual(db.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()[0], 0)
        self.assertEqual(sync(loader), first + 300)
        self.assertEqual(self.resyncs(), 0)
        self.assert_equal(old[0])
        self.assertTrue(ask(loader, "SELECT replica_verify('main', 'full')")["ok"])

    def test_inside_a_transaction(self):
        old = plain(self.database)
        old.execute("BEGIN IMMEDIATE")
        old.execute("INSERT INTO t VALUES (1)")
        loader = load(plain(self.database))
        one(loader, "SELECT replica_attach(?)", self.url())
        first = sync(loader)
        old.execute("COMMIT")
        self.assertEqual(sync(loader), first + 1)
        self.assertEqual(status(loader)["lag"]["txids"], 0)
        old.execute("INSERT INTO t VALUES (2)")
        self.assertEqual(sync(loader), first + 2)
        self.assert_equal(old)

    def test_the_last_close_flushes(self):
        old = plain(self.database)
        old.execute("INSERT INTO t VALUES (1)")
        loader = load(plain(self.database))
        one(loader, "SELECT replica_attach(?)", self.url())
        sync(loader)
        old.execute("INSERT INTO t VALUES (2)")
        loader.close()
        old.execute("INSERT INTO t VALUES (3)")
        expected = image(old)
        old.close()
        self.assertFalse(os.path.exists(self.database + "-wal"))
        self.assert_restores(self.url(), "latest", expected, 4096)

    def test_journal_mode_stays_wal(self):
        old = plain(self.database)
        old.execute("INSERT INTO t VALUES (1)")
        loader = load(plain(self.database))
        one(loader, "SELECT replica_attach(?)", self.url())
        old.execute("INSERT INTO t VALUES (2)")
        with self.assertRaisesRegex(sqlite3.OperationalError, "journal_mode must stay WAL"):
            old.execute("PRAGMA journal_mode=DELETE")

    def test_many_threads_while_it_is_loaded(self):
        old = [plain(self.database) for _ in range(4)]
        stop = threading.Event()
        counts = [0] * 4

        def work(i):
            while not stop.is_set():
                old[i].execute("INSERT INTO t VALUES (?)", (i,))
                counts[i] += 1

        threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
        for t in threads:
            t.start()
        loader = load(plain(self.database))
        one(loader, "SELECT replica_attach(?)", self.url())
        first = sync(loader)
        stop.wait(1)
        stop.set()
        for t in threads:
            t.join()
        self.assertGreaterEqual(sync(loader), first)
        self.assertEqual(self.resyncs(), 0)
        rows = one(loader, "SELECT count(*) FROM t")
        self.assertEqual(rows, sum(counts))
        self.assert_equal(loader)

    def test_named_by_the_environment_and_loaded_elsewhere(self):
        code = """
import sqlite3, sys
old = sqlite3.connect(sys.argv[1], isolation_level=None)
old.execute("INSERT INTO t VALUES ('before')")
loader = sqlite3.connect(":memory:")
loader.enable_load_extension(True)
loader.load_extension(sys.argv[2])
old.execute("INSERT INTO t VALUES ('after')")
"""
        subprocess.run([sys.executable, "-c", code, self.database, harness.LIBRARY], check=True,
                       env=harness.clean_environment(REPLICA_URL=self.url("all")))
        self.assert_restores(self.url("all") + "/app.db", "latest", image(plain(self.database)), 4096)

    def test_hosts_with_tables_and_vfses_of_their_own(self):
        """Each once ended in a crash or a hang: at the load, or at the first transaction after it."""
        here = os.path.dirname(os.path.abspath(__file__))
        subprocess.run(["cc", os.path.join(here, "vfs_host.c"), "-lsqlite3", "-o", self.path("host")], check=True)
        for case in ("table-in-front", "own-tables", "nested-open", "copied-vfs"):
            with self.subTest(case):
                done = subprocess.run([self.path("host"), case, self.path(case + ".db"), harness.LIBRARY],
                                      env=harness.clean_environment(REPLICA_URL=self.url("hosts")),
                                      capture_output=True, text=True, timeout=60)
                self.assertEqual((done.returncode, done.stdout), (0, "ok\n"), done.stderr)
                self.assertEqual(one(sqlite3.connect(self.path(case + ".db")), "SELECT count(*) FROM t"), 100)


if __name__ == "__main__":
    harness.main()

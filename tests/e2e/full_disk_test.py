"""Disks that are full, really: small tmpfs mounts in a mount namespace of the test's own."""
import glob
import os
import shutil
import sqlite3
import subprocess
import sys
import time

import harness
from harness import ask, connect, image, one, restore, status, sync

INSIDE = "REPLICA_TEST_INSIDE_NAMESPACE"


def mount(path, size):
    os.makedirs(path)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=" + size, "tmpfs", path], check=True)
    return path


def fill(path):
    """Takes all the room that is left; returns the file to remove."""
    name = os.path.join(path, "filler")
    with open(name, "wb", buffering=0) as file:
        for size in (65536, 4096):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                pass
    return name


class FullDisk(harness.TestCase):
    def setUp(self):
        super().setUp()
        self.disk = mount(self.path("disk"), "8m")
        self.addCleanup(subprocess.run, ["umount", "-l", self.disk])

    def wait_for_error(self, db, pattern):
        self.assertRegex(self.wait_for(lambda: status(db)["last_error"]), pattern)

    def test_Invariant_NeverInTheWay_the_replica_folder_is_full(self):
        url = "file://" + self.disk + "/replica"
        db = connect(self.path("app.db"))
        one(db, "SELECT replica_attach(?, '{\"sync_interval_ms\": 0}')", url)
        db.execute("CREATE TABLE t(x)")
        sync(db)
        filler = fill(self.disk)
        for _ in range(300):
            db.execute("INSERT INTO t VALUES (randomblob(4000))")
        self.wait_for_error(db, "replica.*[Nn]o space left on device")
        self.assertGreater(status(db)["lag"]["txids"], 0)
        # Nothing half-written is taken for an object.
        restore(url, self.path("before.db"))
        self.assertEqual(harness.check_file(self.path("before.db")), "ok")
        os.remove(filler)
        sync(db)
        self.assertIsNone(status(db)["last_error"])
        self.assert_restores(url, "latest", image(db), 4096)

    def test_Invariant_NeverInTheWay_a_guard_lets_go_when_nothing_can_be_captured(self):
        db = connect(self.path("app.db"))
        shutil.rmtree(self.path("app.db-replica"), True)
        os.makedirs(self.path("app.db-replica"))
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m,mode=0700", "tmpfs", self.path("app.db-replica")], check=True)
        self.addCleanup(subprocess.run, ["umount", "-l", self.path("app.db-replica")])
        one(db, "SELECT replica_attach(?, '{\"guard\": true, \"sync_interval_ms\": 0}')", self.url())
        db.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, x)")
        sync(db)
        filler = fill(self.path("app.db-replica"))
        code = """
import os, sqlite3, sys, time
c = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=20)
c.execute("PRAGMA synchronous=OFF")
end = time.monotonic() + 4
while time.monotonic() < end:
    c.execute("INSERT OR REPLACE INTO t VALUES (abs(random()) % 100, randomblob(3000))")
print(os.path.getsize(sys.argv[1] + "-wal"), c.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0])
"""
        done = subprocess.run([sys.executable, "-c", code, self.path("app.db")], capture_output=True, text=True, check=True)
        size, busy = done.stdout.split()
        self.assertEqual(busy, "0")
        self.assertLess(int(size), 32 << 20)
        os.remove(filler)
        db.execute("INSERT INTO t VALUES (1000, 'after')")
        sync(db)
        self.assert_restores(self.url(), "latest", image(db), 4096)

    def test_the_databases_own_disk_is_full(self):
        db = connect(os.path.join(self.disk, "app.db"))
        url = self.url()
        one(db, "SELECT replica_attach(?, '{\"sync_interval_ms\": 0}')", url)
        db.execute("CREATE TABLE t(x)")
        sync(db)
        done = 0
        filler = None
        with self.assertRaisesRegex(sqlite3.OperationalError, "disk is full|disk I/O error"):
            for i in range(3000):
                db.execute("INSERT INTO t VALUES (randomblob(3000))")
                done += 1
                if i == 200:
                    sync(db)
                    filler = fill(self.disk)
        self.assertEqual(one(db, "SELECT count(*) FROM t"), done)
        # What was acknowledged before is restorable now, and nothing after it is wrong.
        restore(url, self.path("now.db"))
        self.assertEqual(harness.check_file(self.path("now.db")), "ok")
        self.assertGreaterEqual(one(sqlite3.connect(self.path("now.db")), "SELECT count(*) FROM t"), 201)
        os.remove(filler)
        for _ in range(20):
            db.execute("INSERT INTO t VALUES ('after')")
        sync(db)
        self.assert_restores(url, "latest", image(db), 4096)
        self.assertTrue(ask(db, "SELECT replica_verify('main', 'full')")["ok"])

    def test_a_restore_onto_a_full_disk_leaves_nothing(self):
        db = connect(self.path("app.db"))
        one(db, "SELECT replica_attach(?)", self.url())
        db.execute("CREATE TABLE t AS SELECT randomblob(9000000) AS x")
        sync(db)
        before = set(glob.glob(self.disk + "/*"))
        with self.assertRaisesRegex(RuntimeError, "[Nn]o space left on device"):
            restore(self.url(), os.path.join(self.disk, "out.db"))
        self.assertEqual(set(glob.glob(self.disk + "/*") + glob.glob(self.disk + "/.*")), before)


if __name__ == "__main__":
    if os.environ.get(INSIDE):
        harness.main()
    elif subprocess.run(["unshare", "--user", "--map-root-user", "--mount", "true"]).returncode == 0:
        os.environ[INSIDE] = "1"
        os.execvp("unshare", ["unshare", "--user", "--map-root-user", "--mount", sys.executable] + sys.argv)
    elif os.geteuid() == 0 and subprocess.run(["unshare", "--mount", "true"]).returncode == 0:
        os.environ[INSIDE] = "1"
        os.execvp("unshare", ["unshare", "--mount", sys.executable] + sys.argv)
    else:
        print("skipped: this machine allows neither user nor mount namespaces, so no small file system can be made")

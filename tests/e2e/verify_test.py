"""What a verify leaves behind: nothing, also when it is killed."""
import json
import os
import signal
import subprocess
import sys
import threading

import harness
from harness import ask, clean_environment, connect, one, sync

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "power"))
import fake_s3  # noqa: E402

URL = "s3://%s/x" % fake_s3.BUCKET


class KilledVerify(harness.TestCase):
    def setUp(self):
        super().setUp()
        self.store = fake_s3.FakeS3(self.path("down"))
        self.addCleanup(self.store.close)
        self.options = json.dumps({"endpoint": self.store.endpoint, "access_key_id": "a", "secret_access_key": "b"})
        # A name that means something in a URI.
        self.file = self.path("a ?b#%41.db")
        self.db = connect(self.file)
        self.addCleanup(self.db.close)
        self.db.execute("PRAGMA journal_mode=WAL")
        self.db.execute("CREATE TABLE t(a)")
        self.db.execute("INSERT INTO t VALUES(randomblob(3000000))")
        one(self.db, "SELECT replica_attach(?, ?)", URL, self.options)
        sync(self.db)
        self.db.execute("INSERT INTO t VALUES(randomblob(1000000))")
        sync(self.db)

    def left(self):
        known = {"control", "events", "events.1", "lock", "state", "state-redo", "spool", "journal"}
        return [name for name in os.listdir(self.file + "-replica")
                if name not in known and not name.startswith("journal")]

    def killed_in_the_middle(self):
        """Another process's verify, killed while it restores the log behind the snapshot."""
        reached = threading.Event()
        go_on = threading.Event()

        def answer(method, target):
            if method == "GET" and "/log/" in target and self.left():
                reached.set()
                go_on.wait(30)
        self.store.fail = answer
        code = ("import sys\nsys.path.insert(0, %r)\nfrom harness import connect, one\ndb = connect(%r)\n"
                "db.execute('SELECT count(*) FROM t').fetchone()\none(db, 'SELECT replica_attach(?, ?)', %r, %r)\n"
                "print(one(db, \"SELECT replica_verify('main', 'full')\"))\n") % (
                    os.path.dirname(os.path.abspath(__file__)), self.file, URL, self.options)
        other = subprocess.Popen([sys.executable, "-c", code], env=clean_environment(LIBREPLICA=harness.LIBRARY))
        self.assertTrue(reached.wait(30))
        self.assertEqual(len(self.left()), 1, "it is in the middle")
        self.store.fail = None
        report = ask(self.db, "SELECT replica_verify('main', 'full')")
        self.assertTrue(report["ok"], report)
        self.assertEqual(len(self.left()), 1, "the copy of a verify that works is left alone")
        other.send_signal(signal.SIGKILL)
        other.wait()
        go_on.set()

    def test_a_verify_leaves_nothing(self):
        self.assertTrue(ask(self.db, "SELECT replica_verify('main', 'full')")["ok"])
        self.assertEqual(self.left(), [])

    def test_regression_the_next_verify_removes_the_copy_of_a_killed_one(self):
        """It took the database's size until somebody looked."""
        self.killed_in_the_middle()
        self.assertTrue(ask(self.db, "SELECT replica_verify('main', 'full')")["ok"])
        self.assertEqual(self.left(), [])

    def test_so_does_the_next_leader(self):
        self.killed_in_the_middle()
        self.assertEqual(len(self.left()), 1)
        self.db.close()
        db = connect(self.file)
        one(db, "SELECT replica_attach(?, ?)", URL, self.options)
        sync(db)
        self.assertEqual(self.left(), [])
        db.close()

    def test_what_a_verify_reports(self):
        """integrity_check reads the copy without a WAL of its own."""
        report = ask(self.db, "SELECT replica_verify('main', 'full')")
        self.assertEqual(report["integrity_check"], "ok")
        self.assertEqual(report["pages"], one(self.db, "PRAGMA page_count"))


if __name__ == "__main__":
    harness.main()

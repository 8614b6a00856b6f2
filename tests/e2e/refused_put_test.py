"""Objects that are larger than the store, or a proxy before it, takes: replication goes on as soon as the rest fits."""
import glob
import json
import os
import shutil
import sqlite3
import sys
import threading

import harness
from harness import ask, check_file, clean_environment, connect, first_difference, image, one, restore, status, sync

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "power"))
import fake_s3  # noqa: E402

LIMIT = 2000000
URL = "s3://%s/x" % fake_s3.BUCKET


class RefusedPut(harness.TestCase):
    def setUp(self):
        super().setUp()
        self.store = fake_s3.FakeS3(self.path("down"))
        self.store.limit = LIMIT
        self.addCleanup(self.store.close)
        self.options = {"endpoint": self.store.endpoint, "access_key_id": "a", "secret_access_key": "b",
                        "sync_interval_ms": 0}
        self.environment = clean_environment(REPLICA_ENDPOINT=self.store.endpoint, REPLICA_ACCESS_KEY_ID="a",
                                             REPLICA_SECRET_ACCESS_KEY="b", REPLICA_CONFIG="off")
        self.acknowledged = set()
        before = os.environ.get("REPLICA_SHUTDOWN_TIMEOUT")
        os.environ["REPLICA_SHUTDOWN_TIMEOUT"] = "1s"  # closes that wait for what will never be taken
        self.addCleanup(lambda: os.environ.pop("REPLICA_SHUTDOWN_TIMEOUT") if before is None else
                        os.environ.update(REPLICA_SHUTDOWN_TIMEOUT=before))

    def make(self):
        db = connect(self.path("app.db"), check_same_thread=False)
        self.addCleanup(db.close)
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("CREATE TABLE t(a, b)")
        one(db, "SELECT replica_attach(?, ?)", URL, json.dumps(self.options))
        return db

    def watch(self):
        """Notes each TXID that status reports as acknowledged, until the function that it returns is called."""
        seen, stop = set(), threading.Event()
        db = connect(self.path("app.db"), check_same_thread=False)

        def run():
            while not stop.wait(0.002):
                seen.add(status(db).get("txid", {}).get("acknowledged"))
        thread = threading.Thread(target=run)
        thread.start()

        def end():
            stop.set()
            thread.join()
            db.close()
            return sorted(seen - {0, None})
        self.addCleanup(end)
        return end

    def error(self, db, pattern):
        """Waits until status has such an error; returns it."""
        import re
        return self.wait_for(lambda: (lambda e: e if e and re.search(pattern, e) else None)(status(db)["last_error"]))

    def ask_for_a_snapshot(self):
        """It cannot be stored, which the answer may say or not."""
        db = connect(self.path("app.db"))
        try:
            one(db, "SELECT replica_snapshot()")
        except sqlite3.OperationalError:
            pass
        finally:
            db.close()

    def messages(self, db):
        return "\n".join(message for message, in db.execute("SELECT message FROM replica_events"))

    def restored(self, target):
        out = self.path("out.db")
        restore(URL, out, target, self.environment)
        with open(out, "rb") as file:
            data = file.read()
        self.assertEqual(check_file(out), "ok")
        for name in glob.glob(out + "*"):
            shutil.rmtree(name) if os.path.isdir(name) else os.remove(name)
        return data

    def check_all_is_well(self, db, acknowledged):
        """What was acknowledged is restorable by its TXID, and the last state is the database."""
        # A sync does not wait while the state is `error`, which it is until the next try.
        self.wait_for(lambda: status(db)["state"] == "streaming", 60)
        acknowledged.append(sync(db, timeout_ms=20000))
        for txid in sorted(set(acknowledged)):
            self.restored(txid)
        self.assertEqual(first_difference(self.restored("latest"), image(db), 4096), "")
        report = ask(db, "SELECT replica_verify('main', 'full')")
        self.assertTrue(report["ok"], report)
        self.assertIsNone(status(db)["last_error"])
        self.assertEqual(status(db)["state"], "streaming")

    def test_a_commit_that_is_too_large_and_undone_since(self):
        """One refused PUT stopped replication for ever, also after a snapshot covered it."""
        db = self.make()
        sync(db)
        end = self.watch()
        db.execute("INSERT INTO t VALUES(1, randomblob(3000000))")
        db.execute("DELETE FROM t")
        db.execute("VACUUM")
        db.execute("INSERT INTO t VALUES('after', 'x')")
        self.wait_for(lambda: self.store.refused and status(db)["state"] == "streaming")
        acknowledged = end()
        key, size = self.store.refused[0]
        # The message says how large it was, which TXIDs are gone, and where the limit may be.
        self.assertRegex(self.messages(db),
                         r"takes no object as large: raise that limit.* \(%d bytes, TXIDs \d+ to \d+\)" % size)
        self.check_all_is_well(db, acknowledged)
        for i in range(3):
            db.execute("INSERT INTO t VALUES('and on', ?)", (i,))
        self.check_all_is_well(db, acknowledged)

    def test_as_amazon_says_it(self):
        self.store.too_large = (400, "EntityTooLarge")
        self.test_a_commit_that_is_too_large_and_undone_since()

    def test_a_difference_that_is_too_large_as_well(self):
        """It is tried again, not dropped for another as large; status says the size; nothing is acknowledged."""
        db = self.make()
        before = sync(db)
        end = self.watch()
        db.execute("INSERT INTO t VALUES(1, randomblob(3000000))")
        error = self.error(db, r"\(\d+ bytes, TXIDs %d to %d\)" % (before + 1, before + 1))
        self.assertIn("raise that limit", error)
        with self.assertRaisesRegex(sqlite3.OperationalError, "takes no object as large"):
            sync(db, timeout_ms=3000)
        self.assertEqual(status(db)["state"], "error", "it needs a person")
        self.assertEqual(end(), [before])
        self.assertLess(len(self.store.refused), 20, "each refusal is followed by a longer wait")
        # Commits go on. When the store takes them, so does replication.
        db.execute("INSERT INTO t VALUES('commits go on', 1)")
        self.store.limit = None
        self.check_all_is_well(db, [before])

    def test_a_difference_that_is_too_large_until_rows_are_deleted(self):
        db = self.make()
        before = sync(db)
        db.execute("INSERT INTO t VALUES(1, randomblob(3000000))")
        self.error(db, r"\(\d+ bytes, TXIDs %d to %d\)" % (before + 1, before + 1))
        db.execute("DELETE FROM t")
        db.execute("VACUUM")
        self.check_all_is_well(db, [before])

    def test_a_snapshot_that_is_too_large_holds_no_commit_up(self):
        db = self.make()
        sync(db)
        end = self.watch()
        for i in range(4):
            db.execute("INSERT INTO t VALUES(?, randomblob(1000000))", (i,))
            sync(db)
        asked = threading.Thread(target=self.ask_for_a_snapshot)
        asked.start()
        error = self.error(db, r"\(a snapshot of \d+ bytes\)")
        asked.join()
        self.assertIn("raise that limit", error)
        db.execute("INSERT INTO t VALUES('goes on', 1)")
        acknowledged = end() + [sync(db, timeout_ms=20000)]
        for txid in acknowledged:
            self.restored(txid)
        self.assertEqual(first_difference(self.restored("latest"), image(db), 4096), "")
        self.assertTrue(ask(db, "SELECT replica_verify('main', 'full')")["ok"])

    def test_a_first_snapshot_that_is_too_large(self):
        db = connect(self.path("app.db"), check_same_thread=False)
        self.addCleanup(db.close)
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("CREATE TABLE t(a, b)")
        db.execute("INSERT INTO t VALUES(1, randomblob(3000000))")
        one(db, "SELECT replica_attach(?, ?)", URL, json.dumps(self.options))
        error = self.error(db, r"\(a snapshot of \d+ bytes\)|\(\d+ bytes, TXIDs 1 to 1\)")
        self.assertIn("raise that limit", error)
        with self.assertRaises(sqlite3.OperationalError):
            sync(db, timeout_ms=2000)
        self.assertEqual(status(db)["state"], "error", "it needs a person")
        self.assertEqual(status(db)["txid"]["acknowledged"] or 0, 0)
        db.execute("DELETE FROM t")
        db.execute("VACUUM")
        self.check_all_is_well(db, [])


if __name__ == "__main__":
    harness.main()

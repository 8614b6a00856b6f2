"""Invariant_Consistent, Invariant_NoCommitLost: a mixed workload on both stores; restores to latest and to TXIDs at random
equal the database as it was at that commit, page by page."""
import json
import os
import random

import harness
from harness import connect, image, one, sync


class Recorder:
    """Keeps the image of the database after each commit, by TXID."""

    def __init__(self, connection, txid, schema="main"):
        self.connection = connection
        self.schema = schema
        self.txid = txid
        self.images = {txid: image(connection, schema)}

    def commit(self, sql=None, *arguments):
        if sql:
            self.connection.execute(sql, arguments)
        now = image(self.connection, self.schema)
        if now == self.images[self.txid]:
            return  # a commit that changes nothing is not numbered
        self.txid += 1
        self.images[self.txid] = now


class Workload(harness.TestCase):
    def run_workload(self, page_size, auto_vacuum, seed, steps=120, url=None, environment=None, **options):
        rng = random.Random(seed)
        path = self.path("app-%d-%d-%d.db" % (page_size, auto_vacuum, seed))
        url = url or self.url("replica-%d-%d-%d" % (page_size, auto_vacuum, seed))
        db = connect(path)
        db.execute("PRAGMA page_size=%d" % page_size)
        db.execute("PRAGMA auto_vacuum=%d" % auto_vacuum)
        db.execute("PRAGMA cache_size=-64")
        db.execute("PRAGMA wal_autocheckpoint=%d" % rng.choice([10, 100, 1000]))
        db.execute("PRAGMA synchronous=NORMAL")
        db.execute("VACUUM")
        one(db, "SELECT replica_attach(?, ?)", url, json.dumps({"sync_interval_ms": 20, **options}))
        base = sync(db)
        rec = Recorder(db, base)
        rec.commit("CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT, b BLOB)")
        rec.commit("CREATE INDEX t_a ON t(a)")
        for step in range(steps):
            kind = rng.randrange(16)
            if kind < 5:
                rec.commit("INSERT INTO t(a, b) VALUES (?, ?)", "k%d" % rng.randrange(10**9),
                           rng.randbytes(rng.randrange(600)))
            elif kind < 7:
                rec.commit("UPDATE t SET a = ? WHERE id % 7 = ?", "u%d" % rng.randrange(10**9), rng.randrange(7))
            elif kind < 8:
                rec.commit("DELETE FROM t WHERE id % 5 = ?", rng.randrange(5))
            elif kind == 8:
                db.execute("BEGIN")
                for _ in range(rng.randrange(1, 400)):
                    db.execute("INSERT INTO t(a, b) VALUES (?, randomblob(300))", ("m%d" % rng.randrange(10**9),))
                rec.commit("COMMIT")
            elif kind == 9:  # rolled back after it spilled: nothing of it may reach the replica
                db.execute("BEGIN")
                for _ in range(300):
                    db.execute("INSERT INTO t(a, b) VALUES ('ghost', randomblob(800))")
                rec.commit("ROLLBACK")
            elif kind == 10:
                db.execute("BEGIN")
                db.execute("INSERT INTO t(a) VALUES ('kept')")
                db.execute("SAVEPOINT s")
                db.execute("UPDATE t SET b = randomblob(2000) WHERE id % 3 = 0")
                db.execute("ROLLBACK TO s")
                db.execute("RELEASE s")
                rec.commit("COMMIT")
            elif kind == 11:
                db.execute("PRAGMA wal_checkpoint(%s)" % rng.choice(["PASSIVE", "FULL", "RESTART", "TRUNCATE"]))
            elif kind == 12:
                rec.commit("INSERT INTO t(a, b) VALUES ('big', randomblob(?))", rng.randrange(1000000, 1300000))
            elif kind == 13:
                if rng.random() < 0.3:
                    rec.commit("VACUUM")
                elif auto_vacuum == 2:
                    rec.commit("PRAGMA incremental_vacuum(%d)" % rng.randrange(1, 50))
            elif kind == 14:
                rec.commit("DELETE FROM t WHERE length(b) > 500000")
            else:
                name = "x%d" % step
                rec.commit("CREATE TABLE %s AS SELECT * FROM t LIMIT 50" % name)
                if rng.random() < 0.6:
                    rec.commit("DROP TABLE %s" % name)
        self.assertEqual(sync(db), rec.txid)
        report = harness.ask(db, "SELECT replica_verify('main', 'full')")
        self.assertTrue(report["ok"], report)
        report = harness.ask(db, "SELECT replica_verify('main', 'objects')")
        self.assertTrue(report["ok"], report)
        self.assert_restores(url, "latest", rec.images[rec.txid], page_size, environment)
        folded = set()
        for low, high in db.execute("SELECT min_txid, max_txid FROM replica_history "
                                    "WHERE restorable = 'last' AND kind = 'log'"):
            folded.update(range(low, high))
        candidates = [t for t in rec.images if t not in folded]
        for txid in rng.sample(candidates, min(6, len(candidates))):
            self.assert_restores(url, txid, rec.images[txid], page_size, environment)
        db.close()
        with open(path, "rb") as file:
            self.assertEqual(harness.first_difference(file.read(), rec.images[rec.txid], page_size), "")
        self.assert_restores(url, "latest", rec.images[rec.txid], page_size, environment)

    def test_Invariant_Consistent_page_sizes(self):
        for page_size in (512, 1024, 4096, 16384, 65536):
            with self.subTest(page_size=page_size):
                self.run_workload(page_size, 0, page_size)

    def test_Invariant_Consistent_auto_vacuum(self):
        for mode in (1, 2):
            with self.subTest(auto_vacuum=mode):
                self.run_workload(4096, mode, 100 + mode)

    def test_Invariant_Consistent_seeds(self):
        for seed in range(int(os.environ.get("REPLICA_TEST_SEEDS", "3"))):
            with self.subTest(seed=seed):
                self.run_workload(4096, seed % 3, 1000 + seed)

    def test_Invariant_Consistent_on_s3(self):
        harness.S3().make_bucket("workload")
        for page_size, auto_vacuum in ((512, 0), (1024, 1), (4096, 2), (16384, 0), (65536, 1)):
            with self.subTest(page_size=page_size):
                self.run_workload(page_size, auto_vacuum, 2000 + page_size, steps=60,
                                  url="s3://workload/%s/%d" % (os.path.basename(self.folder), page_size),
                                  environment=harness.s3_environment(), endpoint=harness.S3_ENDPOINT,
                                  access_key_id=harness.ACCESS_KEY, secret_access_key=harness.SECRET_KEY)

    def test_Invariant_Consistent_attached_databases(self):
        rng = random.Random(7)
        db = connect(self.path("app.db"))
        db.execute("ATTACH ? AS other", (self.path("other.db"),))
        urls = {}
        for schema in ("main", "other"):
            db.execute("PRAGMA %s.journal_mode=WAL" % schema)
            db.execute("CREATE TABLE %s.t_%s(a, b)" % (schema, schema))
            urls[schema] = self.url(schema)
            one(db, "SELECT replica_attach(?, ?)", urls[schema], json.dumps({"schema": schema, "sync_interval_ms": 20}))
        recorders = {schema: Recorder(db, sync(db, schema), schema) for schema in urls}
        for step in range(80):
            touched = rng.choice([("main",), ("other",), ("main", "other")])
            db.execute("BEGIN")
            for schema in touched:
                for _ in range(rng.choice([1, 3, 60])):
                    db.execute("INSERT INTO t_%s VALUES (?, randomblob(700))" % schema, (step,))
            if step % 5 == 4:
                db.execute("ROLLBACK")
            else:
                db.execute("COMMIT")
            if step % 9 == 0:
                db.execute("PRAGMA %s.wal_checkpoint(TRUNCATE)" % rng.choice(["main", "other"]))
            for recorder in recorders.values():
                recorder.commit()
        for schema, recorder in recorders.items():
            self.assertEqual(sync(db, schema), recorder.txid)
            self.assertTrue(harness.ask(db, "SELECT replica_verify(?, 'full')", schema)["ok"])
            for txid in ["latest"] + rng.sample(sorted(recorder.images), 6):
                expected = recorder.images[recorder.txid if txid == "latest" else txid]
                self.assert_restores(urls[schema], txid, expected, 4096)

    def test_Invariant_Consistent_down_to_one_page(self):
        db = connect(self.path("app.db"))
        db.execute("PRAGMA page_size=512")
        db.execute("VACUUM")
        one(db, "SELECT replica_attach(?, '{\"sync_interval_ms\": 0}')", self.url())
        rec = Recorder(db, sync(db))
        self.assertEqual(len(rec.images[rec.txid]), 512)
        for _ in range(4):
            rec.commit("CREATE TABLE t AS SELECT randomblob(20000) AS x")
            rec.commit("DROP TABLE t")
            rec.commit("VACUUM")
            self.assertEqual(len(rec.images[rec.txid]), 512)
        self.assertEqual(sync(db), rec.txid)
        for txid, expected in rec.images.items():
            self.assert_restores(self.url(), txid, expected, 512)


if __name__ == "__main__":
    harness.main()

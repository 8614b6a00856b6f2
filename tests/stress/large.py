#!/usr/bin/env python3
"""A database beyond SQLite's lock page (1 GiB), which holds no data: changes around it, restores of three states, each equal
byte for byte to a copy of the file taken at that commit. A few minutes and 6 GB of disk a page size.

    LIBREPLICA=$PWD/build/libreplica.so tests/stress/large.py [--page-size 4096] [--url s3://…]
"""
import argparse
import filecmp
import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time

LIBRARY = os.environ["LIBREPLICA"]
LOCK_BYTE = 1 << 30


def connect(path):
    db = sqlite3.connect(path, isolation_level=None, timeout=60)
    db.enable_load_extension(True)
    db.load_extension(LIBRARY)
    return db


def one(db, sql, *arguments):
    return db.execute(sql, arguments).fetchone()[0]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--page-size", type=int, default=4096)
    parser.add_argument("--url", help="default: a folder beside the database")
    arguments = parser.parse_args()
    rng = random.Random(arguments.page_size)
    folder = tempfile.mkdtemp(prefix="libreplica-large-")
    path = os.path.join(folder, "app.db")
    url = arguments.url or "file://" + folder + "/replica"
    db = connect(path)
    db.execute("PRAGMA page_size=%d" % arguments.page_size)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=OFF")
    db.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, x)")
    text = "".join(rng.choice("abcdefgh ") for _ in range(60000))

    def grow(to):
        while one(db, "PRAGMA page_count") * arguments.page_size < to:
            db.execute("BEGIN")
            for _ in range(500):
                db.execute("INSERT INTO t(x) VALUES (?)", (text[rng.randrange(20000):][:rng.randrange(2000, 40000)],))
            db.execute("COMMIT")

    grow(LOCK_BYTE - (20 << 20))
    started = time.monotonic()
    one(db, "SELECT replica_attach(?, '{\"sync_interval_ms\": 50}')", url)
    one(db, "SELECT replica_sync('main', 600000)")
    report = {"page_size": arguments.page_size, "first_snapshot_seconds": round(time.monotonic() - started, 1)}
    states = {}

    def keep():
        txid = one(db, "SELECT replica_sync('main', 600000)")
        assert db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
        states[txid] = shutil.copyfile(path, os.path.join(folder, "state-%d" % txid))

    grow(LOCK_BYTE + (30 << 20))  # across the lock page, commit by commit
    keep()
    largest = one(db, "SELECT max(id) FROM t")
    for _ in range(200):
        row = rng.randrange(largest - 4000, largest)
        db.execute("UPDATE t SET x = ? WHERE id = ?", (text[:rng.randrange(100, 30000)], row))
    keep()
    db.execute("DELETE FROM t WHERE id > ?", (largest - 3000,))
    db.execute("VACUUM")
    keep()
    verify = json.loads(one(db, "SELECT replica_verify('main', 'full')"))
    assert verify["ok"], verify
    events = open(path + "-replica/events").read()
    assert '"resync"' not in events, events
    for txid, state in states.items():
        out = os.path.join(folder, "restored")
        started = time.monotonic()
        done = subprocess.run(["sqlite3", ":memory:", "-cmd", ".load " + LIBRARY[:-3],
                               "SELECT replica_restore('%s', '%s', %d)" % (url, out, txid)],
                              capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        report["restore_seconds"] = round(time.monotonic() - started, 1)
        assert filecmp.cmp(out, state, shallow=False), "TXID %d differs from the database at that commit" % txid
        os.remove(out)
    assert one(sqlite3.connect(state), "PRAGMA integrity_check") == "ok"
    report["states"] = sorted(states)
    db.close()
    shutil.rmtree(folder)
    print(json.dumps(report))


if __name__ == "__main__":
    sys.exit(main())

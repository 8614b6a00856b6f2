#!/usr/bin/env python3
"""Python's sqlite3 with libreplica: writes, waits, proves, loses the database and has it restored by opening it.

    REPLICA_URL=s3://bucket/python-example app.py [FOLDER]      the replica lies at <REPLICA_URL>/notes.db

Loads LIBREPLICA, else the extension of the PyPI package libreplica. Exits non-zero on any difference.
"""
import glob
import json
import os
import shutil
import sqlite3
import sys
import tempfile


def load(connection):
    path = os.environ.get("LIBREPLICA")
    if not path:
        import libreplica
        path = libreplica.loadable_path()
    connection.enable_load_extension(True)
    connection.load_extension(path)
    connection.enable_load_extension(False)


def one(connection, sql, *arguments):
    return connection.execute(sql, arguments).fetchone()[0]


def main():
    if not os.environ.get("REPLICA_URL"):
        sys.exit("set REPLICA_URL")
    folder = sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp()
    path = os.path.join(folder, "notes.db")

    # Once a process, before the database is opened: only so REPLICA_RESTORE=auto can put a missing file back first.
    os.environ["REPLICA_RESTORE"] = "auto"
    load(sqlite3.connect(":memory:"))

    db = sqlite3.connect(path)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("CREATE TABLE notes(id INTEGER PRIMARY KEY, text TEXT)")
    first = one(db, "SELECT replica_sync()")                    # from here on each commit has a TXID of its own
    for i in range(300):
        with db:                                                # one commit each
            db.execute("INSERT INTO notes(text) VALUES(?)", ("note %d " % i * (i % 9 + 1),))
    last = one(db, "SELECT replica_sync()")
    print("acknowledged: TXID %d to %d" % (first, last))
    status = json.loads(one(db, "SELECT replica_status()"))
    print("status:", status["state"], status["lag"])
    proof = json.loads(one(db, "SELECT replica_verify('main', 'full')"))
    if (last - first, status["state"], status["lag"]["txids"], proof["ok"]) != (300, "streaming", 0, True):
        sys.exit("the replica is not in order: %s %s" % (status, proof))
    before = db.execute("SELECT * FROM notes").fetchall()
    db.close()

    for file in glob.glob(path + "*"):
        (shutil.rmtree if os.path.isdir(file) else os.remove)(file)
    print("lost:", os.listdir(folder))

    db = sqlite3.connect(path)                                  # restores
    after = db.execute("SELECT * FROM notes").fetchall()
    if after != before or one(db, "PRAGMA integrity_check") != "ok":
        sys.exit("%d rows before, %d after" % (len(before), len(after)))
    with db:
        db.execute("INSERT INTO notes(text) VALUES('written after the loss')")
    following = one(db, "SELECT replica_sync()")
    print("restored: %d rows; replicated on, TXID %d" % (len(after), following))
    if following != last + 1:
        sys.exit("expected TXID %d" % (last + 1))
    db.close()


if __name__ == "__main__":
    main()

"""A program that keeps its database by an SQLite, or a VFS, of others: for tests/e2e/hosts_test.py, which knows what is printed.

    host.py HOST write DATABASE LIBRARY LOADER   rows before and after the load, then it dies with the WAL in place
    host.py HOST read DATABASE                   without libreplica
    host.py HOST load DATABASE LIBRARY LOADER

HOST: sqlite3mc, sqlcipher, xor (a VFS that changes every byte), pass (one that changes none), cksumvfs.
LOADER, the connection that loads it: host (in memory, as the database's), database, unix (in memory, on SQLite's own VFS).
"""
import ctypes
import json
import os
import signal
import sys

HOST, COMMAND, DATABASE = sys.argv[1:4]
if HOST == "sqlcipher":
    from sqlcipher3 import _sqlite3, dbapi2

    def connect(path):
        return dbapi2.connect(path, isolation_level=None)
else:
    import apsw
    connect = apsw.Connection


def details():
    """Each VFS with the addresses of its methods."""
    if HOST != "sqlcipher":
        return apsw.vfs_details()
    find = ctypes.CDLL(_sqlite3.__file__).sqlite3_vfs_find
    find.restype = ctypes.c_void_p
    return [{"zName": "unix", "all": ctypes.string_at(find(None), 168)}]


def install_vfs():
    if HOST == "cksumvfs":
        from apsw import sqlite_extra
        sqlite_extra.load(apsw.Connection(":memory:"), "cksumvfs")
        return None
    if HOST not in ("xor", "pass"):
        return None

    class File(apsw.VFSFile):
        def __init__(self, name, flags):
            super().__init__("unix", name, flags)

        def xRead(self, amount, offset):
            return turn(super().xRead(amount, offset))

        def xWrite(self, data, offset):
            super().xWrite(turn(data), offset)

    class Vfs(apsw.VFS):
        def __init__(self):
            super().__init__(HOST, "unix", makedefault=True)

        def xOpen(self, name, flags):
            return File(name, flags)

    def turn(data):
        return bytes(byte ^ 0x5a for byte in data) if HOST == "xor" else data
    return Vfs()


def database():
    db = connect(DATABASE)
    if HOST in ("sqlite3mc", "sqlcipher"):
        db.execute("PRAGMA key = 'secret'")
    if HOST == "cksumvfs" and os.path.getsize(DATABASE) == 0:
        db.reserve_bytes(reserve=8)
    return db


def one(db, sql):
    return list(db.execute(sql))[0][0]


def load(db):
    db.enable_load_extension(True)
    db.load_extension(sys.argv[4])


def write(loader):
    db = database()
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("CREATE TABLE t(x)")
    db.execute("INSERT INTO t VALUES('plain text')")
    before = details()
    load(loader or db)
    hooked = [new["zName"] for old, new in zip(before, details()) if old != new]
    db.execute("INSERT INTO t VALUES('plain text')")
    second = database()
    second.execute("INSERT INTO t VALUES('plain text')")
    try:
        attached = one(second, "SELECT replica_attach('file://%s-attached')" % DATABASE)
    except Exception as error:
        attached = str(error)
    db.execute("INSERT INTO t VALUES('plain text')")
    report = json.loads(one(second, "SELECT replica_status()"))
    if report["state"] != "error":
        one(second, "SELECT replica_sync()")
    print(json.dumps({"hooked": hooked, "attached": attached, "status": report}), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


unix = connect(":memory:")
vfs = install_vfs()
if COMMAND == "read":
    db = database()
    print(json.dumps([one(db, "SELECT count(*) FROM t WHERE x = 'plain text'"), one(db, "PRAGMA integrity_check")]))
    db.close()
else:
    loader = {"host": lambda: connect(":memory:"), "unix": lambda: unix, "database": lambda: None}[sys.argv[5]]()
    if COMMAND == "write":
        write(loader)
    else:
        load(loader or database())
        database()

"""What an application does with its database before the power fails, with a note in the log of each state and promise.

Notes (recorder.mark): "commit" with the digest of the database after it, "ack" with generation, TXID and digest of a
state that libreplica called acknowledged. They are the oracle's knowledge.
"""
import json
import os
import random
import sqlite3
import subprocess
import time

from disk import digest
from fake_s3 import BUCKET
from harness import ACCESS_KEY, COMMAND, SECRET_KEY, load, one, status
from recorder import mark

# A store that was down is tried again after a pause that grows; the application does not wait for it.
SYNC_MS = 1500
SCHEMA = "CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, v BLOB)"


def environment(job):
    """The settings of libreplica for the whole process, before it is loaded."""
    os.environ.update(REPLICA_CONFIG="off", REPLICA_REQUIRED="false", REPLICA_SHUTDOWN_TIMEOUT="1s",
                      REPLICA_UPLOADER_COMMAND=COMMAND, REPLICA_ENDPOINT=job["s3"], REPLICA_ACCESS_KEY_ID=ACCESS_KEY,
                      REPLICA_SECRET_ACCESS_KEY=SECRET_KEY)
    if job.get("restore") == "auto":
        os.environ.update(REPLICA_URL=prefix(job), REPLICA_RESTORE="auto", REPLICA_UPLOADER=job["uploader"],
                          REPLICA_SYNC_INTERVAL="0")


def prefix(job):
    if job["destination"] == "s3":
        return "s3://%s/backup" % BUCKET
    return "file://" + os.path.join(job["settings"]["POWER_ROOT"], "rep", "backup")


def url(job):
    return prefix(job) + "/" + os.path.basename(job["database"])


class Application:
    def __init__(self, job):
        self.job = job
        self.rng = random.Random(job["seed"])
        self.path = job["database"]
        environment(job)
        # Keeps the extension loaded whatever connections come and go.
        self.keeper = load(sqlite3.connect(":memory:", isolation_level=None))
        self.db = None
        self.found = None  # digest of the database as it was opened

    def open(self, checkpoint=1000, cache=100):
        self.db = sqlite3.connect(self.path, isolation_level=None, timeout=30)
        self.db.execute("PRAGMA synchronous=" + self.job["synchronous"])
        self.db.execute("PRAGMA journal_mode=WAL")
        self.db.execute("PRAGMA wal_autocheckpoint=%d" % checkpoint)
        self.db.execute("PRAGMA cache_size=%d" % cache)
        self.found = self.note_commit()
        self.db.execute(SCHEMA)
        self.note_commit()

    def attach(self, **options):
        options.setdefault("uploader", self.job["uploader"])
        one(self.db, "SELECT replica_attach(?, ?)", url(self.job), json.dumps(options))

    def digest(self):
        return digest(self.db.serialize())

    def note_commit(self):
        value = self.digest()
        mark("commit", digest=value)
        return value

    def transaction(self, most=12, rolls_back=0.06):
        """Changes up to so many rows and commits; now and then it rolls back instead."""
        rng, db = self.rng, self.db
        mark("begin")
        db.execute("BEGIN IMMEDIATE")
        for _ in range(rng.randint(1, most)):
            kind = rng.random()
            if kind < 0.6:
                db.execute("INSERT INTO t(v) VALUES(?)", (rng.randbytes(rng.choice((20, 200, 1500, 3000))),))
            elif kind < 0.85:
                db.execute("UPDATE t SET v=? WHERE id=(SELECT id FROM t ORDER BY id LIMIT 1 OFFSET ?)",
                           (rng.randbytes(rng.choice((20, 700, 2500))), rng.randint(0, 40)))
            else:
                db.execute("DELETE FROM t WHERE id IN (SELECT id FROM t ORDER BY id LIMIT ?)", (rng.randint(1, 4),))
        db.execute("ROLLBACK" if rng.random() < rolls_back else "COMMIT")
        self.note_commit()

    def acknowledged(self, sql, *arguments):
        """Asks for an acknowledgement and notes it. False when there is none."""
        try:
            txid = one(self.db, sql, *arguments)
        except sqlite3.OperationalError as error:
            mark("no-ack", error=str(error))
            return False
        mark("ack", generation=status(self.db)["generation"], txid=txid, digest=self.digest())
        return True

    def sync(self, milliseconds=SYNC_MS):
        return self.acknowledged("SELECT replica_sync('main', ?)", milliseconds)

    def snapshot(self):
        return self.acknowledged("SELECT replica_snapshot()")

    def until(self, what, seconds):
        """Waits for a condition, at most so long; returns its value."""
        end = time.monotonic() + seconds
        while True:
            value = what()
            if value or time.monotonic() > end:
                return value
            time.sleep(0.002)

    def captured(self):
        txid = status(self.db).get("txid")
        return txid is not None and txid["captured"] == txid["committed"]

    def journals(self):
        """The sizes of the journals that hold frames copied out of the WAL."""
        folder = self.path + "-replica/spool"
        try:
            return [entry.stat().st_size for entry in os.scandir(folder) if entry.name.startswith("journal-")]
        except FileNotFoundError:
            return []  # one was removed just now

    def store_down(self, yes):
        """The store refuses everything, or works again."""
        if yes:
            open(self.job["down"], "w").close()
        elif os.path.exists(self.job["down"]):
            os.remove(self.job["down"])
        mark("store", down=yes)


def live(job):
    """One process: it opens the database a few times, works, and closes it or dies."""
    app = Application(job)
    rng = app.rng
    mark("process", synchronous=job["synchronous"], seed=job["seed"])
    down = os.path.exists(job["down"])  # an earlier process may have ended so
    for _ in range(rng.randint(1, 3)):
        app.open(rng.choice((0, 5, 20, 60, 1000)), rng.choice((5, 100)))
        app.attach(sync_interval_ms=rng.choice((0, 100, 1000, 30000)), guard=rng.random() < 0.25)
        for _ in range(job["steps"]):
            down = step(app, down)
        if down and rng.random() < 0.7:
            down = False
            app.store_down(False)
        if job["dies"] and rng.random() < 0.5:
            break
        mark("close")
        app.db.close()
        mark("closed")
    return {}


def step(app, down):
    """One thing that the application does. Returns whether the store is down after it."""
    rng = app.rng
    kind = rng.random()
    if kind < 0.60:
        app.transaction(rng.choice((2, 6, 12, 40)))
    elif kind < 0.65:
        for _ in range(rng.choice((5, 20, 40))):
            app.transaction()
    elif kind < 0.76:
        app.sync(100 if down else SYNC_MS)
    elif kind < 0.86:
        mode = rng.choice(("PASSIVE", "FULL", "RESTART", "TRUNCATE"))
        app.db.execute("PRAGMA wal_checkpoint(%s)" % mode).fetchall()
        mark("checkpoint", mode=mode)
    elif kind < 0.88:
        app.db.execute("VACUUM")
        app.note_commit()
    elif kind < 0.91 and not down:
        # It cannot be told how long to wait: only where the store answers.
        if app.sync():
            app.snapshot()
    elif kind < 0.95:
        app.store_down(not down)
        return not down
    else:
        # Lets the leader work: it would hardly have its turn between these short steps.
        app.until(app.captured, rng.choice((0.02, 0.1, 0.3)))
    return down


def restore(job):
    """A new machine: the database is restored by function, command or REPLICA_RESTORE=auto, and then perhaps used."""
    app = Application(job)
    if job["restore"] == "function":
        one(app.keeper, "SELECT replica_restore(?, ?)", url(job), app.path)
    elif job["restore"] == "command":
        restore_by_command(job)
    mark("restored")
    if app.rng.random() < 0.3:
        return {}
    app.open()
    if job["restore"] != "auto":
        app.attach(sync_interval_ms=app.rng.choice((0, 1000)))
    down = False
    for _ in range(job["steps"]):
        down = step(app, down)
    return {}


def restore_by_command(job):
    done = subprocess.run([COMMAND, "restore", url(job), "--output", job["database"]], capture_output=True, text=True,
                          timeout=60)
    if done.returncode != 0:
        raise RuntimeError("replica restore: " + done.stderr[-1000:])

"""What the processes of the stress tool do with the database: short visits, long work, reading. Started by stress.py.

Each transaction adds one to clock.n. The number and a digest of the database as the transaction leaves it are appended
to the file `commits` before COMMIT, with SQLite's write lock held: so the last line of a number is the state that the
database had with this number, whoever was killed when.

Only the standard library, and little of it: most of these processes live for milliseconds.
"""
import ctypes
import hashlib
import os
import random
import signal
import sqlite3
import sys
import threading
import time

MODES = ("PASSIVE", "FULL", "RESTART", "TRUNCATE")
SYNC_TIMEOUT = 30  # seconds


def digest(image):
    """Of a database image, without what COMMIT itself writes: change counter, its copy, and the version beside it."""
    image = bytearray(image)
    image[24:28] = bytes(4)
    image[92:100] = bytes(8)
    return hashlib.sha256(image).hexdigest()[:32]


class Run:
    """The files of a run, as every process sees them."""

    def __init__(self, folder):
        self.folder = folder
        self.path = os.path.join(folder, "app.db")
        self.files = {}

    def append(self, name, text):
        """One line, whole: O_APPEND and a single write."""
        if name not in self.files:
            self.files[name] = os.open(os.path.join(self.folder, name), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(self.files[name], ("%s %d %d\n" % (text, os.getpid(), time.monotonic_ns())).encode())

    def note(self, text):
        self.append("notes", text.replace("\n", " "))

    def base(self):
        """The TXID and the number of the state that the run began with; None: the history may not have begun yet."""
        try:
            with open(os.path.join(self.folder, "base")) as file:
                return tuple(int(word) for word in file.read().split())
        except FileNotFoundError:
            return None


def one(db, sql, *arguments):
    return db.execute(sql, arguments).fetchone()[0]


def change(db, rng):
    """Some changes inside a transaction. The database stays small: each commit hashes all of it."""
    kind = rng.randrange(12)
    if kind < 5:
        db.execute("INSERT INTO t(a, b) VALUES (?, ?)",
                   ("k%d" % rng.randrange(10**9), rng.randbytes(rng.randrange(1500))))
    elif kind < 7:
        db.execute("UPDATE t SET a = substr(a || 'x', -40) WHERE id % 11 = ?", (rng.randrange(11),))
    elif kind == 7:
        db.execute("DELETE FROM t WHERE id % 13 = ?", (rng.randrange(13),))
    elif kind == 8:
        for _ in range(rng.randrange(1, 60)):
            db.execute("INSERT INTO t(a, b) VALUES ('m', ?)", (rng.randbytes(rng.randrange(700)),))
    elif kind == 9:
        db.execute("INSERT INTO t(a, b) VALUES ('big', ?)", (rng.randbytes(rng.randrange(30000)),))
    elif kind == 10:
        # Not where the cache is small and pages are spilled: rolled back so, SQLite 3.40 (not 3.54) leaves a frame without
        # its checksum, and the next recovery of the WAL loses that commit and all after it, also without libreplica.
        if one(db, "PRAGMA cache_size") == -2000:
            db.execute("SAVEPOINT s")
            db.execute("INSERT INTO t(a, b) SELECT a, b FROM t WHERE length(b) < 300 LIMIT 5")
            db.execute("ROLLBACK TO s")
            db.execute("RELEASE s")
    elif (one(db, "SELECT sum(length(b)) FROM t") or 0) > 150000:
        db.execute("DELETE FROM t WHERE id % 2 = 0")
        db.execute("PRAGMA incremental_vacuum(%d)" % rng.randrange(1, 60)).fetchall()
    if (one(db, "SELECT sum(length(b)) FROM t") or 0) > 300000:
        db.execute("DELETE FROM t WHERE id % 3 != 0")


def commit(run, db, rng):
    """One transaction; returns its number, or None after a rollback."""
    db.execute("BEGIN IMMEDIATE")
    number = one(db, "UPDATE clock SET n = n + 1 RETURNING n")
    change(db, rng)
    if rng.random() < 0.05:
        db.execute("ROLLBACK")
        return None
    run.append("commits", "%d %s" % (number, digest(db.serialize())))
    try:
        db.execute("COMMIT")
    except sqlite3.OperationalError as error:
        # sync=commit: the wait for the store was given up, and the commit stands.
        run.note("problem sync=commit gave up: commit %d: %s" % (number, error))
        return number
    if os.environ.get("REPLICA_SYNC") == "commit":
        acknowledged(run, number, number)
    return number


def acknowledged(run, number, at_least, txid=None):
    """The store has acknowledged the state `number`; what was committed before the request is at_least `at_least`."""
    run.append("acknowledged", "%d" % number)
    if number < at_least:
        run.note("problem replica_sync answered TXID %d, which is commit %d, after commit %d" % (
            txid, number, at_least))


def sync(run, db, number):
    """Waits for all that was committed, of which `number` is known to be part."""
    try:
        txid = one(db, "SELECT replica_sync('main', ?)", SYNC_TIMEOUT * 1000)
    except sqlite3.OperationalError as error:
        run.note("problem replica_sync failed: %s" % error)
        return
    base = run.base()
    acknowledged(run, number if base is None else txid - base[0] + base[1], number, txid)


def settings(db, rng):
    if rng.random() < 0.3:
        db.execute("PRAGMA wal_autocheckpoint=%d" % rng.choice([1, 5, 50]))
    db.execute("PRAGMA synchronous=%s" % rng.choice(["OFF", "NORMAL", "NORMAL", "FULL"]))
    if rng.random() < 0.3:
        db.execute("PRAGMA cache_size=%d" % rng.choice([5, 20, -64]))


def checkpoint(run, db, rng):
    try:
        db.execute("PRAGMA wal_checkpoint(%s)" % rng.choice(MODES)).fetchall()
    except sqlite3.OperationalError as error:
        if "locked" not in str(error):
            run.note("problem checkpoint: %s" % error)


def connect(path):
    return sqlite3.connect(path, isolation_level=None, timeout=60, check_same_thread=False)


def load(db):
    db.enable_load_extension(True)
    db.load_extension(os.environ["LIBREPLICA"])
    return db


def visit(run, rng, kind, may_leave=False, loaded=True):
    """Opens, makes some commits in a few milliseconds, closes. `may_leave`: may return with the connection open, for a
    process that ends now. `loaded`: this process has the extension."""
    commits = rng.choice([0, 0, 0, 1, 1, 1, 1, 2, 2, 3, 4, rng.randrange(1, 15)])
    run.note("visit %s %d commits" % (kind, commits))
    db = connect(run.path) if loaded else load(connect(run.path))
    if commits or rng.random() < 0.3:
        settings(db, rng)
    number = 0
    if commits == 0 and rng.random() < 0.85:
        number = one(db, "SELECT n FROM clock")
    for _ in range(commits):
        number = commit(run, db, rng) or number
        if rng.random() < 0.05:
            time.sleep(rng.random() * 0.02)
    if rng.random() < 0.08:
        checkpoint(run, db, rng)
    if number and rng.random() < 0.12:
        sync(run, db, number)
    if may_leave and rng.random() < 0.3:
        return db
    begun = time.monotonic()
    db.close()
    if time.monotonic() - begun > 0.5:
        run.note("slow close took %d ms" % ((time.monotonic() - begun) * 1000))
    return None


def end(rng, left, forked):
    """The process's end after its last visit. In a forked child nobody may close what the parent has open."""
    if forked or rng.random() < 0.25:
        os._exit(0)
    del left  # closed by Python, or not at all, at its own exit


def fresh(run, rng):
    """A process of its own for a visit or a few."""
    early = rng.random() < 0.7
    keep = load(connect(":memory:")) if early else None
    for _ in range(rng.choice([1, 1, 3, 6, 10])):
        left = visit(run, rng, "fresh", True, early)
        if left is not None:
            break
    end(rng, left, False)
    del keep


def template(run, rng, number, seconds, kills):
    """Forks a child for each visit, some of which are killed. Makes visits of its own in between."""
    keep = load(connect(":memory:"))
    schedule = ctypes.CDLL(None)
    renumber = getattr(schedule, "schedule_process", None)
    deadline = time.monotonic() + seconds
    count = 0
    while time.monotonic() < deadline:
        count += 1
        if rng.random() < 0.1:
            visit(run, rng, "template")
        child_seed = rng.getrandbits(62)
        kill = rng.random() < kills
        at_point = rng.random() < 0.7
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                if renumber is not None:
                    within = rng.choice([60, 200, 600]) if kill and at_point else 0
                    renumber(ctypes.c_uint64(number * 100000 + count), ctypes.c_uint64(within))
                own = random.Random(child_seed)
                for _ in range(own.choice([1, 1, 1, 2, 4])):
                    if visit(run, own, "forked", True) is not None:
                        break
                code = 0
            except BaseException as error:  # reported, as nobody reads a forked child's stderr
                run.note("problem forked child: %s: %s" % (type(error).__name__, error))
            finally:
                os._exit(code)
        if kill and not at_point:
            time.sleep(rng.random() ** 2 * 0.05)
            os.kill(pid, signal.SIGKILL)
        # A child that nobody waited for is still there, so the number is its own.
        _, status = os.waitpid(pid, 0)
        if os.WIFSIGNALED(status):
            run.note("killed forked" if os.WTERMSIG(status) == signal.SIGKILL else
                     "problem forked child ended by signal %d" % os.WTERMSIG(status))
    keep.close()


def persistent(run, rng, seconds, threads):
    """Threads of one process that open and close connections again and again."""
    keep = load(connect(":memory:"))
    deadline = time.monotonic() + seconds

    def loop(own):
        try:
            while time.monotonic() < deadline:
                visit(run, own, "thread")
                if own.random() < 0.2:
                    time.sleep(own.random() * 0.05)
        except Exception as error:
            run.note("problem visiting thread: %s: %s" % (type(error).__name__, error))

    others = [threading.Thread(target=loop, args=(random.Random(rng.getrandbits(62)),)) for _ in range(threads)]
    for other in others:
        other.start()
    for other in others:
        other.join()
    keep.close()


def worker(run, rng, seconds):
    """One connection that stays open for long: commits, checkpoints, pauses."""
    db = load(connect(run.path))
    settings(db, rng)
    deadline = time.monotonic() + seconds
    number = one(db, "SELECT n FROM clock")
    while time.monotonic() < deadline:
        for _ in range(rng.choice([1, 1, 3, 20])):
            number = commit(run, db, rng) or number
        if rng.random() < 0.15:
            checkpoint(run, db, rng)
        if rng.random() < 0.03:
            sync(run, db, number)
        time.sleep(rng.random() ** 3 * 0.3)
    db.close()


def reader(run, rng, seconds):
    """Read transactions that last, so that checkpoints and restarts of the WAL have to wait."""
    db = load(connect(run.path))
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        db.execute("BEGIN")
        number = one(db, "SELECT n FROM clock")
        time.sleep(rng.random() ** 3 * 0.4)
        if one(db, "SELECT n FROM clock") != number:
            run.note("problem a read transaction saw two states")
        db.execute("COMMIT")
        time.sleep(rng.random() * 0.05)
    db.close()


def main():
    folder, kind, seed, number, seconds, extra = sys.argv[1:]
    run = Run(folder)
    rng = random.Random(int(seed))
    if kind == "fresh":
        fresh(run, rng)
    elif kind == "template":
        template(run, rng, int(number), float(seconds), float(extra))
    elif kind == "persistent":
        persistent(run, rng, float(seconds), int(extra))
    elif kind == "worker":
        worker(run, rng, float(seconds))
    else:
        reader(run, rng, float(seconds))


if __name__ == "__main__":
    main()

#!/usr/bin/python3
"""Stress with an oracle: seeded random changes by several processes and connections, killed at random if asked; the image
of the database after each commit is remembered as a checksum, and restores are compared with it.

  LIBREPLICA=build/libreplica.so tests/stress/stress.py --seed 1 --commits 500 --processes 3 --kills 20 [--url s3://…]

Each commit is made under a lock of the test's own together with its record (TXID order is commit order), so that the
oracle is exact. Prints one line of JSON; exit code 1 when anything differs.
"""
import argparse
import fcntl
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))
from harness import ask, check_file, connect, digest, image, one, restore, status, sync


def worker(path, record, lock_path, seed, until):
    """Makes commits until the record holds `until` of them, or for ever when killed."""
    rng = random.Random(seed)
    lock = open(lock_path, "a+")
    db = connect(path)
    db.execute("PRAGMA wal_autocheckpoint=%d" % rng.choice([5, 50, 1000]))
    db.execute("PRAGMA synchronous=%s" % rng.choice(["NORMAL", "FULL"]))
    if rng.random() < 0.5:
        db.execute("PRAGMA cache_size=-64")
    while True:
        kind = rng.randrange(12)
        fcntl.flock(lock, fcntl.LOCK_EX)
        with open(record) as file:
            lines = file.read().split("\n")
        done = len(lines) - 1
        if done >= until:
            break
        if kind < 5:
            db.execute("INSERT INTO t(a, b) VALUES (?, ?)", ("k%d" % rng.randrange(10**9), rng.randbytes(rng.randrange(2000))))
        elif kind < 7:
            db.execute("UPDATE t SET a = a || 'x' WHERE id % 11 = ?", (rng.randrange(11),))
        elif kind == 7:
            db.execute("DELETE FROM t WHERE id % 13 = ?", (rng.randrange(13),))
        elif kind == 8:
            db.execute("BEGIN")
            for _ in range(rng.randrange(1, 200)):
                db.execute("INSERT INTO t(a, b) VALUES ('m', randomblob(700))")
            db.execute(rng.choice(["COMMIT", "ROLLBACK"]))
        elif kind == 9:
            db.execute("PRAGMA wal_checkpoint(%s)" % rng.choice(["PASSIVE", "FULL", "RESTART", "TRUNCATE"])).fetchall()
        elif kind == 10 and rng.random() < 0.2:
            db.execute("DELETE FROM t WHERE id % 2 = 0")
            db.execute("SELECT 1")
        else:
            db.execute("INSERT INTO t(a, b) VALUES ('big', randomblob(?))", (rng.randrange(100000),))
        # Several statements above may be one commit or none: the record holds each state that the database came to. A process
        # killed between its commit and this line leaves a state that nobody wrote down; the next one notes it as unknown.
        state = "%s %d" % (digest(image(db)), one(db, "PRAGMA page_count"))
        if done == 0 or lines[done - 1].split(" ", 1)[1] != state:
            with open(record, "a") as file:
                file.write("%d %s\n" % (os.getpid(), state))
        fcntl.flock(lock, fcntl.LOCK_UN)
    fcntl.flock(lock, fcntl.LOCK_UN)
    sync(db)
    db.close()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--commits", type=int, default=300)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--restores", type=int, default=10)
    parser.add_argument("--page-size", type=int, default=4096)
    parser.add_argument("--url", default="")
    parser.add_argument("--worker", nargs=5)
    parser.add_argument("--uploader", choices=["thread", "process"], default="thread")
    parser.add_argument("--keep", action="store_true")
    arguments = parser.parse_args()
    if arguments.worker:
        path, record, lock, seed, until = arguments.worker
        worker(path, record, lock, int(seed), int(until))
        return 0
    rng = random.Random(arguments.seed)
    folder = tempfile.mkdtemp(prefix="libreplica-stress-")
    path, record, lock = (os.path.join(folder, name) for name in ("app.db", "record", "lock"))
    prefix = arguments.url or "file://" + os.path.join(folder, "replica")
    environment = dict(os.environ, REPLICA_URL=prefix, REPLICA_SYNC_INTERVAL=rng.choice(["0", "20ms", "200ms", "1s"]),
                       REPLICA_UPLOADER=arguments.uploader)
    os.environ.update(environment)
    url = prefix + "/app.db"
    db = connect(path)
    db.execute("PRAGMA page_size=%d" % arguments.page_size)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT, b BLOB)")
    db.execute("CREATE INDEX t_a ON t(a)")
    base = sync(db)
    with open(record, "w") as file:
        file.write("0 %s %d\n" % (digest(image(db)), one(db, "PRAGMA page_count")))
    db.close()

    def start(n):
        return subprocess.Popen([sys.executable, os.path.abspath(__file__), "--worker", path, record, lock, str(n),
                                 str(arguments.commits)])
    count = arguments.processes
    workers = [start(arguments.seed * 1000 + i) for i in range(count)]
    killed = killed_uploaders = 0
    problems = []
    acknowledged = []
    observer = connect(path)
    one(observer, "SELECT count(*) FROM sqlite_schema")
    next_kill = time.monotonic() + rng.uniform(0.05, 0.4)
    while any(w.poll() is None for w in workers):
        time.sleep(0.01)
        if killed < arguments.kills and time.monotonic() > next_kill:
            # What is acknowledged now must be restorable whatever happens; the observer never uploads while others do.
            acknowledged.append(status(observer)["txid"]["acknowledged"])
            victim = rng.choice(workers)
            seen = status(observer)
            leader = seen["leader_pid"]
            if rng.random() < 0.5 and seen["uploader"] == "process" and leader not in (None, os.getpid()):
                try:
                    os.kill(leader, signal.SIGKILL)
                    killed_uploaders += 1
                except ProcessLookupError:
                    pass
                next_kill = time.monotonic() + rng.uniform(0.02, 0.4)
                continue
            if rng.random() < 0.5:
                victim = next((w for w in workers if w.pid == leader), victim)
            victim.send_signal(signal.SIGKILL)
            victim.wait()
            killed += 1
            workers.remove(victim)
            workers.append(start(arguments.seed * 1000 + count))
            count += 1
            next_kill = time.monotonic() + rng.uniform(0.02, 0.4)
    for w in workers:
        if w.returncode != 0:
            problems.append("a worker ended with %d" % w.returncode)
    last = sync(observer)
    states = {}
    with open(record) as file:
        for line in file.read().split("\n")[:-1]:
            pid, checksum, pages = line.split()
            states[checksum] = int(pages)
    events = observer.execute("SELECT kind, message FROM replica_events").fetchall()
    final = image(observer)
    report = ask(observer, "SELECT replica_verify('main', 'full')")
    if not report["ok"]:
        problems.append(str(report["errors"]))
    folded = set()
    for low, high in observer.execute("SELECT min_txid, max_txid FROM replica_history WHERE restorable = 'last' AND kind = 'log'"):
        folded.update(range(low, high))
    candidates = [t for t in range(base, last + 1) if t not in folded]
    chosen = set(rng.sample(candidates, min(arguments.restores, len(candidates)))) | {t for t in acknowledged if t in candidates}
    if len(chosen) > arguments.restores * 3:
        chosen = set(rng.sample(sorted(chosen), arguments.restores * 3))
    unknown = 0
    for target in sorted(chosen) + ["latest"]:
        out = os.path.join(folder, "out.db")
        restore(url, out, target, environment)
        with open(out, "rb") as file:
            restored = file.read()
        if target == "latest" and restored != final:
            problems.append("latest differs from the database")
        if digest(restored) not in states:
            unknown += 1
        if check_file(out) != "ok":
            problems.append("integrity_check of %s" % target)
        for suffix in ("", "-wal", "-shm"):
            if os.path.exists(out + suffix):
                os.remove(out + suffix)
        shutil.rmtree(out + "-replica", True)
    # Only a process killed between its commit and the record of it leaves a state that the oracle does not know.
    if unknown > killed:
        problems.append("%d restores give states that the database never had" % unknown)
    observer.close()
    print(json.dumps({"ok": not problems, "seed": arguments.seed, "commits": len(states), "txid": last, "killed": killed, "killed_uploaders": killed_uploaders,
                      "restores": len(chosen) + 1, "unknown_states": unknown, "folded_txids": len(folded),
                      "resyncs": sum("pages differ" in m for k, m in events), "problems": problems,
                      "folder": folder if problems or arguments.keep else None}))
    if not problems and not arguments.keep:
        shutil.rmtree(folder, True)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())

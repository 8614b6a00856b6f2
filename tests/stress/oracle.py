"""What a stress run must have kept: the states that the database had, and what the replica says they are."""
import json
import os
import random
import re
import shutil
import sqlite3
import subprocess
import sys

from visits import SYNC_TIMEOUT, Run, connect, digest, load, one

# Events that must not come about while nobody writes without libreplica and no machine loses its power.
FAILURES = {"resync": "resync", "dropped": "spool dropped", "fenced": "fenced", "replica": "replica gone"}


class Oracle:
    """One database of a run: reads its records and events as they grow, restores its replica and compares. `base`: a
    TXID and the number of the state that it is. One thread."""

    def __init__(self, run, url, command, environment, base=None):
        self.run = run
        self.url = url
        self.command = command
        self.environment = environment
        self.base_txid, self.base_number = base or run.base()
        self.states = {}  # number → digest: the last one written counts
        self.acknowledged = []  # numbers of states
        self.offsets = {}
        self.events_inode = 0
        self.events_offset = 0

    # --- what the processes have written down

    def lines(self, name):
        """Whole lines that were appended since the last call."""
        path = os.path.join(self.run.folder, name)
        if not os.path.exists(path):
            return []
        data, self.offsets[name] = whole_lines(path, self.offsets.get(name, 0))
        return data

    def update(self):
        for line in self.lines("commits"):
            number, state = line.split()[:2]
            self.states[int(number)] = state
        self.acknowledged += [int(line.split()[0]) for line in self.lines("acknowledged")]

    def events(self):
        """(kind, message) of each event since the last call. The file begins anew when it is long."""
        path = self.run.path + "-replica/events"
        out = []
        try:
            inode = os.stat(path).st_ino
            if inode != self.events_inode and self.events_inode:
                out, _ = whole_lines(path + ".1", self.events_offset)
                self.events_offset = 0
            self.events_inode = inode
            new, self.events_offset = whole_lines(path, self.events_offset)
        except FileNotFoundError:
            new = []
        return [(event.get("kind", ""), event.get("message", "")) for event in map(parse, out + new) if event]

    # --- what the replica holds

    def number_of(self, txid):
        return txid - self.base_txid + self.base_number

    def txid_of(self, number):
        return number - self.base_number + self.base_txid

    def check(self, target):
        """Restores a state, by its number, or "latest", and compares. An error, or an empty text."""
        out = os.path.join(self.run.folder, "restored")
        self.update()
        least = max(self.acknowledged, default=0)
        txid = target if target == "latest" else self.txid_of(target)
        error = self.restore(out, txid)
        if not error:
            error = self.compare(out, None if target == "latest" else target, least)
        if not error:
            remove(out)
        return error and "restore of %s: %s" % (target if target == "latest" else "TXID %d" % txid, error)

    def restore(self, out, target):
        remove(out)
        done = subprocess.run([self.command, "restore", self.url, "-o", out, "--to", str(target)], capture_output=True,
                              text=True, env=self.environment, timeout=300)
        if done.returncode == 0:
            return ""
        return (done.stderr or done.stdout).strip() or "exit code %d" % done.returncode

    def compare(self, path, number, least):
        """A restored file with state `number`; None: with any that is not older than `least`."""
        with open(path, "rb") as file:
            image = file.read()
        db = sqlite3.connect("file:%s?immutable=1" % path, uri=True)
        try:
            found = one(db, "SELECT n FROM clock")
            check = one(db, "PRAGMA integrity_check")
        except sqlite3.DatabaseError as error:
            return "it cannot be read: %s" % error
        finally:
            db.close()
        if number is not None and found != number:
            return "it is commit %d, not %d" % (found, number)
        if number is None and found < least:
            return "it is commit %d, though %d was acknowledged" % (found, least)
        self.update()
        if self.states.get(found) != digest(image):
            return "its pages are not those of commit %d" % found
        return "" if check == "ok" else "integrity_check: %s" % check

    def check_end(self, final, rng, count):
        """What finish() reported, `count` random states, and the latest one byte for byte: yields errors."""
        self.update()
        if not final or "error" in final:
            yield "at the end: %s" % final.get("error", "no answer")
            return
        number = final["number"]
        if final["integrity"] != "ok":
            yield "the database itself is damaged: %s" % final["integrity"]
        if number in self.states and self.states[number] != final["digest"]:
            yield "the database is not as commit %d left it" % number
        if self.number_of(final["txid"]) != number:
            yield "replica_sync answered TXID %d, which is commit %d, at the end, after commit %d" % (
                final["txid"], self.number_of(final["txid"]), number)
        if not final["verify"]["ok"]:
            yield "verify: %s" % final["verify"]["errors"]
        # Nothing is promised for TXIDs of before the first snapshot.
        known = [n for n in range(self.number_of(max(final["oldest"], 1)), number + 1) if n in self.states]
        for target in rng.sample(known, min(len(known), count)) + known[:1]:
            error = self.check(target)
            if error:
                yield error
        out = os.path.join(self.run.folder, "latest")
        error = self.restore(out, "latest")
        if not error:
            with open(out, "rb") as restored, open(os.path.join(self.run.folder, "final"), "rb") as live:
                error = "" if restored.read() == live.read() else "it differs from the database"
        if error:
            yield "restore of latest at the end: %s" % error


def whole_lines(path, offset):
    """Lines behind an offset, and the offset behind them."""
    with open(path, "rb") as file:
        file.seek(offset)
        data = file.read()
    data = data[:data.rfind(b"\n") + 1]
    return data.decode("utf-8", "replace").splitlines(), offset + len(data)


def parse(line):
    try:
        return json.loads(line)
    except ValueError:
        return None  # a line that a killed process cut short


def generic(problem):
    """A problem without its numbers and paths, so that those of one kind can be counted together."""
    problem = re.sub(r"\b[0-9a-f]{8,}(/\d+)?\b", "HEX", problem)
    problem = re.sub(r"(file:/|s3:/)?/[^\s:;,)]+", "PATH", problem)
    return re.sub(r"\d+", "N", problem)


def remove(path):
    for suffix in ("", "-wal", "-shm"):
        if os.path.exists(path + suffix):
            os.remove(path + suffix)
    shutil.rmtree(path + "-replica", True)


# --- the beginning and the end of a database: in processes of their own, so that the stress tool has no connection


def create(run, rng, page_size, db):
    """The tables, and state 0."""
    db.execute("PRAGMA page_size=%d" % page_size)
    db.execute("PRAGMA auto_vacuum=%s" % rng.choice(["NONE", "INCREMENTAL"]))
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("CREATE TABLE clock(n INTEGER)")
    db.execute("INSERT INTO clock VALUES (0)")
    db.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT, b BLOB)")
    db.execute("CREATE INDEX t_a ON t(a)")
    db.execute("INSERT INTO t(a, b) VALUES ('first', randomblob(%d))" % rng.choice([50, 5000]))
    run.append("commits", "0 %s" % digest(db.serialize()))


def begin(run, rng, page_size):
    """Makes the database and its first snapshot: the state from which TXIDs are counted. Either with libreplica from the
    first commit on, or it was made and closed without: then the history begins while the WAL is empty."""
    if rng.random() < 0.5:
        db = load(connect(run.path))
        create(run, rng, page_size, db)
    else:
        db = connect(run.path)
        create(run, rng, page_size, db)
        db.close()
        db = load(connect(run.path))
    txid = one(db, "SELECT replica_sync('main', ?)", SYNC_TIMEOUT * 1000)
    with open(os.path.join(run.folder, "base"), "w") as file:
        file.write("%d 0" % txid)
    db.close()


def finish(run):
    """The database at the end of a run, with everything sent: a report."""
    db = load(connect(run.path))
    report = {"number": one(db, "SELECT n FROM clock"), "digest": digest(db.serialize()),
              "integrity": one(db, "PRAGMA integrity_check")}
    try:
        report["txid"] = one(db, "SELECT replica_sync('main', ?)", SYNC_TIMEOUT * 1000)
        report["oldest"] = one(db, "SELECT min(max_txid) FROM replica_history WHERE kind = 'snapshot'")
        report["verify"] = json.loads(one(db, "SELECT replica_verify('main', 'full')"))
    except sqlite3.OperationalError as error:
        report["error"] = str(error)
    with open(os.path.join(run.folder, "final"), "wb") as file:
        file.write(db.serialize())
    db.close()
    return report


def main():
    folder, what, seed, page_size = sys.argv[1:]
    run = Run(folder)
    if what == "begin":
        begin(run, random.Random(int(seed)), int(page_size))
    elif what == "create":
        db = connect(run.path)
        create(run, random.Random(int(seed)), int(page_size), db)
        db.close()
    else:
        print(json.dumps(finish(run)))


if __name__ == "__main__":
    main()

"""Looks at what a test left in variants B and WB: restores each replica and compares it with its database."""
import os
import re
import shutil
import sqlite3
import stat
import subprocess
import tempfile

from suite import VARIANTS

CLOCK_STEP = 0.01         # s: file systems have some of their times from a coarse clock
MOST_BYTES = 100_000_000  # of a database that is compared: walbig.test has a sparse file of gigabytes
WAL_VERSION = 2           # https://sqlite.org/fileformat.html, "File format version numbers"
GENERATION = re.compile(r"[0-9a-f]{32}")


class Check:
    """After a run in `folder` with replicas in `store`.

    replicated  replicas in the store, of all databases that the test made under one name
    compared    those that were restored and compared with the database, which was in WAL mode at the end
    wrong       what is wrong with which replica, as names of differences:
      replica:<database>:none     a database in WAL mode has no replica
      replica:<database>:restore  a replica cannot be restored
      replica:<database>:unseen   it differs, but is right after the next visit; the file was made anew after libreplica
                                  last wrote to the replica folder, so no connection in WAL mode has used it yet
      replica:<database>:later    as above, but libreplica was there after the file was made
      replica:<database>:lost     it differs after the next visit too
    """

    def __init__(self, suite, folder, store, config, report):
        self.suite = suite
        self.folder = folder
        self.store = store
        self.config = config
        self.report = report
        self.compared = 0
        self.wrong = []
        stores = {os.path.relpath(root, store) for root, folders, _ in os.walk(store)
                  if any(map(GENERATION.fullmatch, folders))}
        self.replicated = len(stores)
        live = {}
        for root, folders, names in os.walk(folder):
            folders[:] = [name for name in folders if not name.endswith("-replica")]
            for name in names:
                path = os.path.join(root, name)
                if is_wal_database(path):
                    live[os.path.relpath(path, folder)] = path
        for name in sorted(stores | set(live)):
            what = self.check(name, live.get(name), name in stores)
            if what:
                self.wrong.append("replica:%s:%s" % (re.sub(r"\s", "_", name), what))

    def check(self, name, path, has_replica):
        content = image(path) if path is not None else None
        if not has_replica:
            # One page is an empty database: nothing was committed to it in WAL mode.
            return "none" if content is not None and len(content) > page_size(content) else None
        self.write("%s\n" % name)
        restored = self.restore(name)
        if path is None:  # deleted, or not in WAL mode any more
            return None if restored is not None else "restore"
        if content is None:  # the test damaged it
            return None
        self.compared += 1
        if is_copy(restored, content):
            return None
        if restored is not None:
            self.write("  " + first_difference(content, restored))
        unseen = born(path) > last_change(path + "-replica") - CLOCK_STEP
        self.visit(path)
        after = self.restore(name)
        if is_copy(after, image(path)):
            return "unseen" if unseen else "later"
        return "restore" if after is None else "lost"

    def write(self, text):
        self.report.write(text.rstrip("\n") + "\n")

    def restore(self, name):
        """The bytes, or None."""
        with tempfile.TemporaryDirectory(prefix="libreplica-") as folder:
            path = os.path.join(folder, "restored.db")
            code, out = self.command("restore", "file://" + os.path.join(self.store, name), "-o", path)
            if code != 0:
                self.write("  restore: " + out)
                return None
            with open(path, "rb") as file:
                return file.read()

    def visit(self, path):
        """By the command, as by any program that loads libreplica."""
        # Tests of permissions leave files that nobody can write to.
        for name in (path, path + "-wal", path + "-shm"):
            if os.path.exists(name):
                os.chmod(name, os.stat(name).st_mode | stat.S_IWUSR)
        user = self.suite.as_user()
        self.write("  sync: " + self.command("sync", "--timeout", "30", path, config=self.config, **user)[1])
        try:
            with open(path + "-replica/events", errors="replace") as events:
                self.write("".join("  " + line for line in events.readlines()[-8:]))
        except FileNotFoundError:
            pass

    def command(self, *arguments, config="off", **user):
        """(exit code, what it printed)."""
        try:
            done = subprocess.run([self.suite.command(), *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                  env=self.suite.environment(VARIANTS["B"], config), text=True, errors="replace",
                                  timeout=120, **user)
            return done.returncode, done.stdout.strip().replace("\n", " | ")
        except subprocess.TimeoutExpired:
            return None, "did not end"


def is_wal_database(path):
    if not os.path.isfile(path) or os.path.islink(path) or os.path.getsize(path) > MOST_BYTES:
        return False
    with open(path, "rb") as file:
        header = file.read(100)
    return len(header) == 100 and header.startswith(b"SQLite format 3\0") and header[18] == WAL_VERSION


def is_copy(restored, content):
    """Behind the last page a file may have zeros, which are no part of the database (SQLITE_FCNTL_CHUNK_SIZE)."""
    if restored is None or content is None:
        return False
    return restored.startswith(content) and not any(restored[len(content):])


def image(path):
    """The pages of the database, with what its WAL holds; the file itself is not touched. None when it cannot be
    read."""
    with tempfile.TemporaryDirectory(prefix="libreplica-") as folder:
        copy = os.path.join(folder, "copy.db")
        shutil.copyfile(path, copy)
        if os.path.exists(path + "-wal"):
            shutil.copyfile(path + "-wal", copy + "-wal")
        connection = sqlite3.connect(copy)
        try:
            pages = connection.execute("PRAGMA page_count").fetchone()[0]
            size = connection.execute("PRAGMA page_size").fetchone()[0]
        except sqlite3.DatabaseError:
            return None
        finally:
            connection.close()
        with open(copy, "rb") as file:
            return file.read(pages * size)


def page_size(content):
    size = int.from_bytes(content[16:18], "big")
    return 65536 if size == 1 else size


def first_difference(a, b):
    size = page_size(a)
    pages = [at // size + 1 for at in range(0, max(len(a), len(b)), size) if a[at:at + size] != b[at:at + size]]
    return "%d and %d bytes, pages %s differ" % (len(a), len(b), ", ".join(map(str, pages[:10])))


def born(path):
    """When a file was made, in seconds; 0 where the file system does not keep it."""
    done = subprocess.run(["stat", "-c", "%.9W", path], capture_output=True, text=True, check=True)
    return float(done.stdout.replace("-", "0"))


def last_change(folder):
    """0 when there is none: the test deleted it."""
    if not os.path.isdir(folder):
        return 0
    return max(os.stat(os.path.join(folder, name)).st_mtime for name in [".", *os.listdir(folder)])

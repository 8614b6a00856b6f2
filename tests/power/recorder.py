"""The recorder (rec.c) from Python: its environment, its log, and the wait until nobody uses it any more."""
import ctypes
import fcntl
import json
import os
import signal
import struct
import time
from typing import NamedTuple

(CREATE, WRITE, RESIZE, RENAME, LINK, UNLINK, MAKE_FOLDER, REMOVE_FOLDER, SYNC, DATA_SYNC, FOLDER_SYNC, SYNC_ALL,
 MARK) = range(1, 14)
# Of the fake S3 server (fake_s3.py), in the same log: what the store holds, and requests that it has read but not
# answered.
PUT, PUT_BEGINS, DELETE = range(20, 23)

NAMES = {CREATE: "create", WRITE: "write", RESIZE: "resize", RENAME: "rename", LINK: "link", UNLINK: "unlink",
         MAKE_FOLDER: "mkdir", REMOVE_FOLDER: "rmdir", SYNC: "fsync", DATA_SYNC: "fdatasync",
         FOLDER_SYNC: "fsync-folder", SYNC_ALL: "sync-all", MARK: "mark", PUT: "put", PUT_BEGINS: "put-begins",
         DELETE: "delete"}

_HEAD = struct.Struct("<IIQqIIIIqq")
_MAGIC = 0x31434552


class Record(NamedTuple):
    """One change. Paths are relative to the recorded folder."""
    operation: int
    inode: int
    offset: int  # of a write; the new size of a resize
    data: bytes
    path: str
    other: str  # the new name of a rename or link
    pid: int
    modified: int  # times of the inode after it, in ns
    changed: int

    def __str__(self):
        what = self.other or self.path
        detail = " %d+%d" % (self.offset, len(self.data)) if self.operation == WRITE else \
            " %d" % self.offset if self.operation == RESIZE else ""
        return "%s inode %d %s%s" % (NAMES[self.operation], self.inode, what, detail)


def parse(data):
    """The records of a log."""
    records = []
    at = 0
    while at + _HEAD.size <= len(data):
        (magic, operation, inode, offset, size, path_size, other_size, pid, modified,
         changed) = _HEAD.unpack_from(data, at)
        if magic != _MAGIC:
            raise ValueError("the log is damaged at byte %d" % at)
        at += _HEAD.size
        path = data[at:at + path_size].decode()
        at += path_size
        other = data[at:at + other_size].decode()
        at += other_size
        records.append(Record(operation, inode, offset, data[at:at + size], path, other, pid, modified, changed))
        at += size
    return records


class Log:
    """Appends to the log from outside of the recorder, in the order that all keep."""

    def __init__(self, path):
        self.path = path
        self.fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def __enter__(self):
        """Nobody else appends meanwhile."""
        fcntl.flock(self.fd, fcntl.LOCK_EX)
        return self

    def __exit__(self, *_):
        fcntl.flock(self.fd, fcntl.LOCK_UN)

    def append(self, operation, inode=0, offset=0, data=b"", path="", other="", modified=0, changed=0):
        path, other = path.encode(), other.encode()
        head = _HEAD.pack(_MAGIC, operation, inode, offset, len(data), len(path), len(other), os.getpid(), modified,
                          changed)
        os.write(self.fd, head + path + other + data)

    def close(self):
        os.close(self.fd)


def configure(settings):
    """In a process that has the recorder preloaded: begins to record as the environment says from now on."""
    for name in ("ROOT", "LOG", "LIVE", "STORE", "DOWN", "FORGE", "EPOCH", "BOOT"):
        os.environ.pop("POWER_" + name, None)
    os.environ.update(settings)
    ctypes.CDLL(None).power_configure()


def mark(kind, **values):
    """Puts a note of the test into the log."""
    ctypes.CDLL(None).power_mark(json.dumps(dict(values, kind=kind)).encode())


class Processes:
    """Who has the recorder loaded with this POWER_LIVE: each holds a lock on the file and has written its pid there.
    All of them descend from the launcher, which has the path in its environment as POWER_SLOT."""

    def __init__(self, path):
        self.path = path
        open(path, "w").close()

    def all_gone(self):
        with open(self.path, "r+") as file:
            # Python's struct flock: type, whence, start, length, pid.
            lock = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 1, 0)
            try:
                fcntl.fcntl(file, fcntl.F_OFD_SETLK, lock)
                return True
            except (BlockingIOError, PermissionError):
                return False

    def wait(self, seconds):
        """True when all have ended by themselves within the time."""
        end = time.monotonic() + seconds
        while not self.all_gone():
            if time.monotonic() > end:
                return False
            time.sleep(0.002)
        return True

    def kill(self):
        """Ends those that are left, and forgets them all."""
        with open(self.path) as file:
            pids = {int(line) for line in file if line.strip()}
        for pid in pids:
            try:
                with open("/proc/%d/environ" % pid, "rb") as file:
                    ours = b"POWER_SLOT=" + self.path.encode() in file.read().split(b"\0")
                if ours:
                    os.kill(pid, signal.SIGKILL)
            except OSError:
                continue  # it has ended
        if not self.wait(10):
            raise RuntimeError("the processes in %s do not end" % self.path)
        open(self.path, "w").close()

#!/usr/bin/python3
"""Prints what the processes of a stress run did, in order of time: the points of schedule.c and the run's own records.

  tests/stress/traces.py FOLDER [--last SECONDS] [--delays] [--process PID] [--grep TEXT]
"""
import argparse
import datetime
import glob
import json
import os
import re
import struct
import sys

# enum Point of schedule.c.
POINTS = ("thread-start", "fork", "mutex-lock", "mutex-unlock", "cond-wait", "cond-signal", "futex-wait", "futex-wake",
          "lock", "unlock", "open", "close", "unlink", "rename", "link", "truncate", "write", "read", "sync", "stat",
          "KILLED", "started")
FROM = {1: "host", 2: "sqlite", 3: "replica"}
HEAD = struct.Struct("<QIIQQIIQQ24s24sI20x")
ENTRY = struct.Struct("<QIHBBIIq32s")
MAGIC = int.from_bytes(b"SCHEDULE", "little")
# Bytes of SQLite's files that it locks (sqlite3's os_unix.c and wal.c), and of <database>-replica/lock.
SQLITE_LOCKS = {120: "WRITE", 121: "CKPT", 122: "RECOVER", 123: "READ0", 124: "READ1", 125: "READ2", 126: "READ3",
                127: "READ4", 128: "DMS", 0x40000000: "PENDING", 0x40000001: "RESERVED", 0x40000002: "SHARED"}
REPLICA_LOCKS = {0: "leader", 1: "gate", 2: "creation", 3: "users", 4: "dedicated"}
LOCK_TYPES = {0: "shared", 1: "exclusive", 2: ""}  # F_RDLCK, F_WRLCK, F_UNLCK


class Ring:
    """One process's file."""

    def __init__(self, path):
        with open(path, "rb") as file:
            self.bytes = file.read()
        (magic, version, self.pid, self.seed, self.process, self.size, self.killed, self.next, self.slept, profile,
         command, self.parent) = HEAD.unpack_from(self.bytes)
        if magic != MAGIC or version != 1:
            raise ValueError("%s is no trace" % path)
        self.profile, self.command = (text.rstrip(b"\0").decode() for text in (profile, command))

    def entry(self, i):
        return ENTRY.unpack_from(self.bytes, HEAD.size + i % self.size * ENTRY.size)

    def entries(self, since):
        """What came after `since` (nanoseconds), in the order of the ring."""
        if self.next == 0 or 0 < self.entry(self.next - 1)[0] < since:
            return
        for i in range(max(0, self.next - self.size), self.next):
            entry = self.entry(i)
            if entry[0] > since:
                yield entry


def rings(folder):
    for path in sorted(glob.glob(os.path.join(folder, "trace", "*.ring"))):
        try:
            yield Ring(path)
        except (ValueError, struct.error, OSError):
            continue  # cut short: its process was killed as it began


def describe(point, origin, sort, at, text):
    if POINTS[point] in ("lock", "unlock"):
        names = SQLITE_LOCKS if origin == 2 else REPLICA_LOCKS
        words = [names.get(at, str(at)), LOCK_TYPES.get(sort & 255, ""), "waits" if sort & 256 else "", text]
        return " ".join(word for word in words if word)
    if POINTS[point] in ("write", "read", "truncate"):
        return "%d at %d" % (sort, at)
    if POINTS[point] == "KILLED":
        return "itself, at %s" % POINTS[at]
    return text


def lines_of(folder, since=0, delays=False):
    """(nanoseconds, pid, text) of everything after `since`, in order of time."""
    lines = []
    for ring in rings(folder):
        for nanos, thread, point, after, origin, delay, sort, at, text in ring.entries(since):
            if delays and delay == 0 and POINTS[point] != "KILLED":
                continue
            what = describe(point, origin, sort, at, text.split(b"\0")[0].decode("utf-8", "replace"))
            lines.append((nanos, ring.pid, "%-8s %7d %s %-7s %-12s %s%s" % (
                ring.command[:8], thread, "after " if after else "before", FROM.get(origin, ""), POINTS[point], what,
                "   +%d us" % delay if delay else "")))
    # The run's own database, and those that have just begun, in folders of their own.
    for own in [folder] + sorted(glob.glob(os.path.join(folder, "young-*"))):
        mark = "==" if own == folder else "== " + os.path.basename(own)
        lines += [(nanos, pid, mark + " " + text) for nanos, pid, text in records_of(own) + events_of(own, folder)]
    return sorted(line for line in lines if line[0] > since)


def records_of(folder):
    lines = []
    for name in ("commits", "acknowledged", "notes"):
        if not os.path.exists(os.path.join(folder, name)):
            continue
        with open(os.path.join(folder, name)) as file:
            for line in file:
                found = re.match(r"(.*) (\d+) (\d+)\n", line)
                if found:
                    lines.append((int(found[3]), int(found[2]), "%s: %s" % (name, found[1])))
    return lines


def events_of(folder, run):
    """The database's events. Their times are of the wall clock; the run's file `clock` has the difference."""
    lines = []
    try:
        with open(os.path.join(run, "clock")) as file:
            offset = int(file.read())
    except OSError:
        return lines
    for path in glob.glob(os.path.join(folder, "*-replica", "events*")):
        with open(path, errors="replace") as file:
            for line in file:
                try:
                    event = json.loads(line)
                    moment = datetime.datetime.fromisoformat(event["time"].replace("Z", "+00:00"))
                except ValueError:
                    continue  # a line that a killed process cut short
                nanos = int(moment.timestamp() * 1e6) * 1000 - offset
                lines.append((nanos, 0, "event: %s: %s" % (event["kind"], event["message"])))
    return lines


def write(lines, out):
    begin = lines[0][0] if lines else 0
    for nanos, pid, text in lines:
        out.write("%11.6f %7d %s\n" % ((nanos - begin) / 1e9, pid, text))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder")
    parser.add_argument("--last", type=float, default=1e9, metavar="SECONDS", help="only the end")
    parser.add_argument("--delays", action="store_true", help="only points at which a thread was delayed")
    parser.add_argument("--process", type=int, help="only this one")
    parser.add_argument("--grep", default="", help="only lines that match")
    arguments = parser.parse_args()
    lines = lines_of(arguments.folder, delays=arguments.delays)
    lines = [line for line in lines if line[0] > lines[-1][0] - arguments.last * 1e9 and
             arguments.process in (None, line[1]) and re.search(arguments.grep, line[2])]
    try:
        write(lines, sys.stdout)
    except BrokenPipeError:
        os._exit(0)


if __name__ == "__main__":
    main()

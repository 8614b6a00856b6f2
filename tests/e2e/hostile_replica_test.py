"""Crafted replicas, with right checksums, against all that reads one: each ends in words, soon, in little memory."""
import os
import resource
import shutil
import struct
import subprocess
import tempfile
import threading
import unittest

import harness
import segments
from harness import COMMAND, clean_environment, connect, one, sync
from segments import FOLDED, MAX64, Segment, hash64, pack, padding, varint, zigzag

MOST_SECONDS = 10
MOST_MEMORY = 512 << 20

CASES = {}


def refused(function):
    """The latest state cannot be restored from what it makes."""
    CASES[function.__name__] = (function, False)
    return function


def harmless(function):
    """The latest state can."""
    CASES[function.__name__] = (function, True)
    return function


def either(function):
    CASES[function.__name__] = (function, None)
    return function


class Replica:
    """One generation in a folder: a snapshot at TXID 1, and log segments 1 to 4 (one of two commits at least)."""

    def __init__(self, folder):
        self.folder = folder
        self.generation = next(name for name in os.listdir(folder) if len(name) == 32)
        self.snapshot_path = self.path("snapshot/0000000000000001")

    def path(self, name):
        return os.path.join(self.folder, self.generation, name)

    def log_path(self, number):
        return self.path("log/%016x" % number)

    def log(self, number):
        return self.read(self.log_path(number))

    def snapshot(self):
        return self.read(self.snapshot_path)

    @staticmethod
    def read(path):
        with open(path, "rb") as file:
            return Segment(file.read())

    @staticmethod
    def write(path, data):
        with open(path, "wb") as file:
            file.write(data)

    def store(self, number, segment, **lies):
        self.write(self.log_path(number), segment.bytes(**lies))

    def store_snapshot(self, segment, **lies):
        self.write(self.snapshot_path, segment.bytes(**lies))


NOTHING = {"commit_count": 0, "block_count": 0, "version_count": 0}


@harmless
def untouched(r):
    """Put together again by segments.py: what fails below fails for its lie."""
    for number in range(1, 5):
        r.store(number, r.log(number))
    r.store_snapshot(r.snapshot())


# --- numbers at their ends

@refused
def txids_wrap_in_the_middle(r):
    segment = r.log(2)
    segment.blocks = b""
    r.store(2, segment, raw=b"", min_txid=0, max_txid=MAX64, **NOTHING)


@refused
def txids_wrap_at_the_beginning(r):
    segment = r.log(1)
    segment.blocks = b""
    r.store(1, segment, raw=b"", min_txid=0, max_txid=MAX64, **NOTHING)


@refused
def txid_of_the_snapshot_is_the_largest(r):
    segment = r.snapshot()
    os.remove(r.snapshot_path)
    r.write(r.path("snapshot/ffffffffffffffff"), segment.bytes(min_txid=MAX64, max_txid=MAX64))


@refused
def commits_without_number(r):
    segment = r.log(1)
    r.store(1, segment, max_txid=segment.fields["min_txid"] + (1 << 40), commit_count=(1 << 40) + 1)


@refused
def versions_without_number(r):
    r.store(1, r.log(1), version_count=1 << 60)


@refused
def blocks_without_number(r):
    r.store(1, r.log(1), block_count=0xffffffff)


@refused
def sequence_lies(r):
    r.store(2, r.log(2), sequence=9)


@either
def sequence_of_the_snapshot_is_the_largest(r):
    r.store_snapshot(r.snapshot(), sequence=MAX64)


@refused
def page_0(r):
    segment = r.log(2)
    segment.index.versions[0] &= 1
    r.store(2, segment)


@refused
def page_of_the_largest_number(r):
    segment = r.log(2)
    segment.index.versions[0] = 0xffffffff << 1
    r.store(2, segment)


@refused
def database_of_the_largest_size(r):
    segment = r.log(2)
    segment.index.commits[0][1] = zigzag(0xfffffffe - segment.fields["pages_before"])
    segment.index.versions[0] = 0xfffffffe << 1
    r.store(2, segment, pages_after=0xfffffffe)


@refused
def snapshot_of_the_largest_size(r):
    segment = r.snapshot()
    segment.index.commits[0][1] = zigzag(0xfffffffe - segment.fields["pages_before"])
    r.store_snapshot(segment, pages_after=0xfffffffe)


@refused
def sizes_wrap(r):
    segment = r.log(2)
    segment.index.commits[0][1] = MAX64
    r.store(2, segment)


def at_time(r, created, difference=0):
    segment = r.log(4)
    for commit in segment.index.commits:
        commit[0] = zigzag(difference)
    r.store(4, segment, created=created)


@refused
def time_is_the_latest(r):
    at_time(r, (1 << 63) - 1)


@refused
def time_is_the_earliest(r):
    at_time(r, -(1 << 63))


@either
def time_wraps(r):
    at_time(r, (1 << 63) - 1, (1 << 63) - 1)


@refused
def pages_before_lie(r):
    segment = r.log(2)
    segment.index.commits[0][1] = zigzag(segment.fields["pages_after"] - 7)
    r.store(2, segment, pages_before=7)


@refused
def checksum_before_lies(r):
    segment = r.log(2)
    r.store(2, segment, checksum_before=segment.fields["checksum_before"] ^ 1)


for _name, _size in (("another_page_size", 512), ("page_size_0", 0), ("odd_page_size", 4097)):
    def _page_size(r, size=_size):
        r.store(2, r.log(2), page_size=size)
    _page_size.__name__ = _name
    refused(_page_size)


@refused
def another_page_size_of_the_snapshot(r):
    r.store_snapshot(r.snapshot(), page_size=65536)


@refused
def page_size_0_of_the_snapshot(r):
    r.store_snapshot(r.snapshot(), page_size=0)


# --- where the index is, and what it says

@refused
def index_as_large_as_allowed(r):
    segment = r.snapshot()
    r.store_snapshot(segment, index_raw=(1 << 20) + len(pack(segment.index.raw())) * 256)


@refused
def index_of_the_largest_size(r):
    r.store_snapshot(r.snapshot(), index_raw=MAX64)


@refused
def index_beyond_the_object(r):
    r.store_snapshot(r.snapshot(), index_offset=1 << 50)


@refused
def index_offset_wraps(r):
    r.store_snapshot(r.snapshot(), index_offset=MAX64 - 200)


@refused
def index_with_something_behind(r):
    segment = r.log(2)
    raw = segment.index.raw()
    r.store(2, segment, raw=raw, stored=pack(raw) + padding(10))


@refused
def a_page_twice_in_a_snapshot(r):
    segment = r.snapshot()
    segment.index.versions[1] = 0
    r.store_snapshot(segment)


@refused
def a_page_twice_in_a_commit(r):
    segment = r.log(1)
    segment.index.versions[1] = segment.index.txids[1] = 0
    r.store(1, segment)


@refused
def pages_that_wrap(r):
    segment = r.log(1)
    segment.index.versions[1] = MAX64
    r.store(1, segment)


@refused
def a_version_of_no_commit(r):
    segment = r.log(1)
    segment.index.txids[0] = 5
    r.store(1, segment)


@refused
def a_base_in_a_snapshot(r):
    segment = r.snapshot()
    segment.index.versions[0] |= 1
    r.store_snapshot(segment)


@refused
def a_base_that_is_not_there(r):
    segment = r.log(1)
    segment.index.versions[-1] |= 1
    r.store(1, segment)


@refused
def a_page_is_missing_in_the_snapshot(r):
    segment = r.snapshot()
    r.store_snapshot(segment, pages_after=segment.fields["pages_after"] + 1)


# --- little that unpacks to much

@refused
def a_block_that_lies_about_its_size(r):
    segment = r.snapshot()
    segment.index.blocks[0][1] *= 2
    segment.index.blocks[0][2] *= 2
    r.store_snapshot(segment)


def with_block(r, frame):
    segment = r.snapshot()
    block = segment.index.blocks[0]
    segment.index.blocks = [[len(frame), block[1], block[2], hash64(frame)]]
    segment.blocks = frame
    r.store_snapshot(segment, block_count=1)


@refused
def a_block_of_a_gibibyte(r):
    with_block(r, pack((b"\0", 1 << 30)))


@refused
def a_block_with_a_window_of_two_gibibytes(r):
    with_block(r, pack((b"\0", 8192), window=21 << 3))


def bomb(r, mebibytes):
    """One byte of index a page version, which takes 24 in memory; padded so that the stored size justifies it."""
    segment = r.log(2)
    per_block = (2 << 20) // segment.fields["page_size"]
    versions = (mebibytes << 20) - 64 * 1024
    block = bytes(9)
    sizes = [per_block] * (versions // per_block) + ([versions % per_block] if versions % per_block else [])
    head = varint(zigzag(0)) + varint(zigzag(0)) + struct.pack("<Q", 0) + b"".join(
        varint(9) + varint(count * segment.fields["page_size"]) + varint(count) + struct.pack("<Q", hash64(block))
        for count in sizes)
    stored = pack(head, (b"\2", versions))
    stored += padding(max(0, (len(head) + versions - (1 << 20) + 255) // 256 - len(stored)))
    segment.blocks = block * len(sizes)
    r.write(r.log_path(2), segment.bytes(raw=b"", stored=stored, index_raw=len(head) + versions, flags=FOLDED,
                                         block_count=len(sizes), version_count=versions, commit_count=1,
                                         pages_before=0xfffffffe, pages_after=0xfffffffe, checksum_after=0))


@refused
def an_index_of_64_mebibytes(r):
    bomb(r, 64)


@refused
def an_index_of_256_mebibytes(r):
    bomb(r, 256)


def sparse(path, segment, size):
    """A file that takes no disk and says that nearly all of it is index."""
    with open(path, "wb") as file:
        file.write(segment.header())
        file.seek(size - 200)
        file.write(segment.trailer(None, index_offset=96, index_stored=size - 296, index_raw=1 << 20))


@refused
def a_sparse_index_of_a_gibibyte(r):
    sparse(r.log_path(2), r.log(2), 1 << 30)


@refused
def a_sparse_index_of_512_gibibytes(r):
    sparse(r.log_path(2), r.log(2), 1 << 39)


@refused
def a_sparse_index_of_512_gibibytes_in_the_snapshot(r):
    sparse(r.snapshot_path, r.snapshot(), 1 << 39)


@refused
def a_sparse_object_of_a_tebibyte(r):
    with open(r.log_path(2), "wb") as file:
        file.truncate(1 << 40)


@harmless
def many_pages_of_zeros(r):
    """As good a database as any, of 64 MB in some thousand bytes: a dry run tells its size beforehand."""
    segment = r.snapshot()
    size, pages = 65536, 1024
    per_block = (2 << 20) // size
    block = pack((b"\0", size * per_block))
    checksum = 0
    for page in range(1, pages + 1):
        checksum ^= hash64(bytes(size), page)
    blocks = pages // per_block
    entry = varint(len(block)) + varint(size * per_block) + varint(per_block) + struct.pack("<Q", hash64(block))
    raw = varint(zigzag(0)) * 2 + struct.pack("<Q", checksum) + entry * blocks + b"\2" * pages
    segment.blocks = block * blocks
    shutil.rmtree(r.path("log"))
    r.store_snapshot(segment, raw=raw, page_size=size, flags=FOLDED, block_count=blocks, version_count=pages,
                     commit_count=1, pages_before=pages, pages_after=pages, checksum_after=checksum, sequence=0)


# --- the wrong thing in its place

for _name, _fields in (("a_snapshot_in_the_log", {"kind": 3, "flags": 1}),
                       ("an_increment_in_the_log", {"kind": 2, "flags": 1}),
                       ("an_end_with_contents", {"kind": 4}), ("an_unknown_kind", {"kind": 9}),
                       ("all_flags", {"flags": 255}),
                       ("another_version", {"version": 2}), ("another_magic", {"magic": b"LRSEG\r\n\x1b"}),
                       ("another_generation_in_the_log", {"generation": b"y" * 16}),
                       ("another_database_in_the_log", {"database": b"y" * 16})):
    def _field(r, fields=_fields):
        r.store(2, r.log(2), **fields)
    _field.__name__ = _name
    refused(_field)


@refused
def another_database_in_the_snapshot(r):
    r.store_snapshot(r.snapshot(), database=b"x" * 16)


@refused
def another_generation_in_the_snapshot(r):
    r.store_snapshot(r.snapshot(), generation=b"x" * 16)


@refused
def a_hole(r):
    os.remove(r.log_path(2))


@refused
def an_empty_object(r):
    r.write(r.log_path(2), b"")


@refused
def a_trailer_alone(r):
    with open(r.log_path(2), "rb") as file:
        data = file.read()
    r.write(r.log_path(2), data[-296:])


@refused
def a_folder_as_an_object(r):
    os.remove(r.log_path(2))
    os.mkdir(r.log_path(2))


@refused
def a_pipe_as_an_object(r):
    os.remove(r.log_path(2))
    os.mkfifo(r.log_path(2))


@refused
def a_pipe_as_the_snapshot(r):
    os.remove(r.snapshot_path)
    os.mkfifo(r.snapshot_path)


@harmless
def a_pipe_as_the_claim(r):
    os.remove(os.path.join(r.folder, "claim"))
    os.mkfifo(os.path.join(r.folder, "claim"))


@refused
def a_link_to_another_file(r):
    os.remove(r.log_path(2))
    os.symlink("/etc/passwd", r.log_path(2))


@refused
def a_link_to_endless_zeros(r):
    os.remove(r.log_path(2))
    os.symlink("/dev/zero", r.log_path(2))


@harmless
def a_link_that_leads_in_a_circle(r):
    os.symlink("..", r.path("log/loop"))


@either
def a_name_in_upper_case(r):
    os.rename(r.log_path(4), r.path("log/000000000000000A"))


@either
def folders_with_names_of_objects(r):
    os.makedirs(r.log_path(5) + "/..deep/x")
    os.makedirs(os.path.join(r.folder, r.generation.upper(), "log"))


@either
def a_generation_of_the_largest_id(r):
    os.makedirs(os.path.join(r.folder, "f" * 32, "snapshot"))


class HostileReplica(harness.TestCase):
    @classmethod
    def setUpClass(cls):
        """A database and its replica, and a copy of both that each case starts from."""
        cls.base = tempfile.mkdtemp(prefix="libreplica-")
        cls.addClassCleanup(shutil.rmtree, cls.base, True)
        cls.database = os.path.join(cls.base, "app.db")
        cls.replica_folder = os.path.join(cls.base, "replica")
        cls.url = "file://" + cls.replica_folder
        db = connect(cls.database)
        one(db, "SELECT replica_attach(?, '{\"sync_interval_ms\": 0}')", cls.url)
        db.execute("CREATE TABLE t(x, y)")
        db.execute("INSERT INTO t VALUES(1, 'one'), (2, hex(randomblob(2000)))")
        sync(db)
        db.execute("INSERT INTO t SELECT value, hex(randomblob(100)) FROM json_each('[%s]')" %
                   ",".join(map(str, range(200))))
        sync(db)
        db.execute("UPDATE t SET y = 'changed' WHERE x = 5")
        sync(db)
        db.execute("DELETE FROM t WHERE x % 3 = 0")
        db.execute("UPDATE t SET y = 'z' WHERE x = 7")
        sync(db)
        db.close()
        cls.folders = (cls.replica_folder, cls.database + "-replica")
        for folder in cls.folders:
            shutil.copytree(folder, folder + ".kept")

    def put_back(self):
        """The contents of both folders as they were. The folders stay: a copy of one is another database's."""
        for folder in self.folders:
            for name in os.listdir(folder):
                path = os.path.join(folder, name)
                shutil.rmtree(path) if os.path.isdir(path) and not os.path.islink(path) else os.remove(path)
            shutil.copytree(folder + ".kept", folder, dirs_exist_ok=True)

    def read(self, *arguments):
        """Runs the command; returns exit code, output, seconds and most memory."""
        output = self.path("output")
        with open(output, "wb") as file:
            process = subprocess.Popen([COMMAND, *arguments], stdout=file, stderr=subprocess.STDOUT, cwd=self.folder,
                                       env=clean_environment(
                                           REPLICA_CONFIG=self.path("replica.yml"), REPLICA_URL=self.url,
                                           REPLICA_SHUTDOWN_TIMEOUT="1s"),
                                       preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CORE, (0, 0)))
            late = threading.Timer(MOST_SECONDS, process.kill)
            late.start()
            _, code, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(code)
            in_time = late.is_alive()
            late.cancel()
        with open(output, errors="replace") as file:
            return process.returncode, file.read(), in_time, used.ru_maxrss * 1024

    def check(self, name, make, expected):
        self.put_back()
        make(Replica(self.replica_folder))
        out = self.path("out.db")
        bad = []
        for reader, arguments in (("restore", ("restore", self.url, "-o", out)),
                                  ("restore to 4", ("restore", self.url, "-o", out, "--to", "4")),
                                  ("dry run", ("restore", self.url, "-o", out, "--dry-run")),
                                  ("dry run to 4", ("restore", self.url, "-o", out, "--dry-run", "--to", "4")),
                                  ("history", ("history", self.url, "--most", "0")), ("check", ("check", self.url)),
                                  ("verify objects", ("verify", "--depth", "objects", self.database)),
                                  ("verify full", ("verify", "--depth", "full", self.database))):
            code, said, in_time, memory = self.read(*arguments)
            last = said.strip().splitlines()[-1][:300] if said.strip() else ""
            wrong = []
            if not in_time:
                wrong.append("takes longer than %d s" % MOST_SECONDS)
            elif code not in (0, 1, 2, 3):
                wrong.append("ends with %d" % code)
            if memory > MOST_MEMORY:
                wrong.append("takes %d MiB" % (memory >> 20))
            if not last or "unexpected" in said or "terminate" in said or "bad_alloc" in said:
                wrong.append("does not say what is wrong")
            if reader == "restore" and expected is not None and (code == 0) != expected:
                wrong.append("%s, which is wrong" % ("succeeds" if code == 0 else "is refused"))
            left = [entry for entry in os.listdir(self.folder) if ".restore-" in entry]
            if left:
                wrong.append("leaves %s behind" % left)
            if wrong:
                bad.append("%s: %s: %s: %s" % (name, reader, ", ".join(wrong), last))
            for entry in os.listdir(self.folder):
                if entry != "replica.yml":
                    path = self.path(entry)
                    shutil.rmtree(path) if os.path.isdir(path) else os.remove(path)
        return bad

    @unittest.skipIf(os.environ.get("REPLICA_TEST_SANITIZED"), "a sanitizer takes more memory than the test allows")
    def test_Invariant_LetsNoOneIn_crafted_replicas(self):
        """Some made every reader crash, others took gigabytes of memory for a megabyte, and pipes blocked it."""
        with open(self.path("replica.yml"), "w") as file:
            file.write("dbs:\n  - path: %s\n    replica:\n      url: %s\n" % (self.database, self.url))
        os.chmod(self.path("replica.yml"), 0o600)
        chosen = os.environ.get("HOSTILE_CASES", "").split() or list(CASES)
        bad = [line for name in chosen for line in self.check(name, *CASES[name])]
        self.assertEqual(bad, [], "\n".join(bad))
        self.put_back()
        code, said, _, _ = self.read("verify", "--depth", "full", self.database)
        self.assertEqual(code, 0, said)


if __name__ == "__main__":
    harness.main()

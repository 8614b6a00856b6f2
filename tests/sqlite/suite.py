"""Runs SQLite's test programs, which build.sh made: each in a folder of its own, as a user who is not root.

Only Python's standard library.
"""
import atexit
import collections
import fcntl
import hashlib
import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
import time

from results import Result

HERE = os.path.dirname(os.path.realpath(__file__))

# A way to run a list: what links the program, whether databases are replicated, whether each connection is put into WAL
# mode first, and the variant that it is compared with (None: it is a baseline).
Variant = collections.namedtuple("Variant", "program replicated wal baseline")
VARIANTS = {
    "baseline": Variant("baseline", False, False, None),
    "A": Variant("replica", False, False, "baseline"),
    "B": Variant("replica", True, False, "baseline"),
    "W": Variant("baseline", False, True, None),
    "WB": Variant("replica", True, True, "W"),
}

# Databases of one name in different folders get different URLs (dir, recursive). Tests delete and create databases of
# one name again and again, and some delete the replica folder with them (`glob test.db*`): hence takeover.
CONFIGURATION = """\
takeover: true
dbs:
  - dir: {folder}/
    pattern: "*"
    recursive: true
    replica:
      url: file://{store}
"""


class Suite:
    """A folder that build.sh made. `missing` says why it cannot be used, if so."""

    def __init__(self, folder):
        self.folder = os.path.realpath(folder)
        # SQLite's tests of permissions fail for root, who may do anything.
        self.user = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
        self.place = self.folder  # where the tests run
        self.own = HERE           # our own files for testfixture
        if not self.reaches(self.folder) or not self.reaches(HERE):
            self.move()
        self.missing = self.check()
        if not self.missing:
            # build.sh waits, and does not replace programs that run.
            self.lock = open(os.path.join(self.folder, "lock"))
            fcntl.flock(self.lock, fcntl.LOCK_SH)

    def reaches(self, path):
        """Whether the user of the tests may use files there."""
        test = ["test", "-r", path, "-a", "-x", path]
        return self.user is None or subprocess.run(test, **self.as_user()).returncode == 0

    def move(self):
        """To a place that the user of the tests reaches, for this run."""
        self.place = tempfile.mkdtemp(prefix="libreplica-sqlite-")
        atexit.register(shutil.rmtree, self.place, True)
        os.chmod(self.place, 0o755)
        for part in ("build/bin", "src/test", "src/mptest"):
            if os.path.isdir(os.path.join(self.folder, part)):
                shutil.copytree(os.path.join(self.folder, part), os.path.join(self.place, part))
        self.own = os.path.join(self.place, "own")
        os.mkdir(self.own)
        for name in os.listdir(HERE):
            if name.endswith((".test", ".tcl")):
                shutil.copy(os.path.join(HERE, name), self.own)

    def check(self):
        for variant in VARIANTS.values():
            path = self.program(variant, "testfixture")
            if not os.path.exists(path):
                return "%s is missing: run build.sh" % path
        if not os.path.exists(self.command()):
            return "%s is missing: run build.sh" % self.command()
        return ""

    def program(self, variant, name):
        return os.path.join(self.place, "build", "bin", variant.program, name)

    def command(self):
        """The replica command, of the same build."""
        return self.program(VARIANTS["A"], "replica")

    def source(self, *parts):
        return os.path.join(self.place, "src", *parts)

    def tests(self):
        """The names of all test files: SQLite's and ours."""
        names = os.listdir(self.source("test")) + os.listdir(self.own)
        return sorted(name for name in names if name.endswith(".test"))

    def test(self, name):
        own = os.path.join(self.own, name)
        return own if os.path.exists(own) else self.source("test", name)

    def identity(self):
        """Tells apart what a baseline depends on: the plain program, and our own files for it."""
        own = sorted(name for name in os.listdir(self.own) if name.endswith((".test", ".tcl")))
        paths = [self.program(VARIANTS["baseline"], "testfixture"), *(os.path.join(self.own, name) for name in own)]
        digest = hashlib.sha256()
        for path in paths:
            with open(path, "rb") as file:
                digest.update(file.read())
        return digest.hexdigest()[:16]

    def as_user(self):
        """Arguments for subprocess."""
        if self.user is None:
            return {}
        return {"user": self.user.pw_uid, "group": self.user.pw_gid, "extra_groups": []}

    def fresh(self, *parts):
        """An empty folder for the user."""
        path = os.path.join(self.place, *parts)
        shutil.rmtree(path, True)
        os.makedirs(path)
        if self.user is not None:
            os.chown(path, self.user.pw_uid, self.user.pw_gid)
        return path

    def results(self, *parts):
        """A path below the folder of results, which is made."""
        path = os.path.join(self.folder, "results", *parts)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        return path

    def environment(self, variant, config="off"):
        """Without any setting that libreplica reads but the configuration."""
        foreign = ("REPLICA_", "LITESTREAM_", "AWS_", "SQLITE_", "TMPDIR")
        out = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        out.update(REPLICA_CONFIG=config, SUITE_TESTS=self.source("test"),
                   SUITE_REPLICA="1" if variant.program == "replica" else "0")
        return out

    def configure(self, folder, store):
        """The configuration file that replicates each database below `folder` to a folder below `store`."""
        path = os.path.join(folder, "replica.yml")
        with open(path, "w") as file:
            file.write(CONFIGURATION.format(folder=folder, store=store))
        return path

    def execute(self, command, folder, environment, limit, log):
        """Runs a program until it ends, and ends what it started. Returns (exit code, seconds); the code is None when
        it took too long."""
        begin = time.monotonic()
        with open(log, "wb") as out:
            process = subprocess.Popen(command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=out,
                                       stderr=subprocess.STDOUT, start_new_session=True, **self.as_user())
            try:
                code = process.wait(limit)
            except subprocess.TimeoutExpired:
                code = None
                backtrace(process.pid, log + ".gdb")
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.wait()
        return code, time.monotonic() - begin


def backtrace(pid, path):
    """Where a program hangs, if there is a debugger to ask."""
    if shutil.which("gdb") is None:
        return
    with open(path, "wb") as out:
        try:
            subprocess.run(["gdb", "-p", str(pid), "-batch", "-ex", "thread apply all bt 25"],
                           stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, timeout=60)
        except subprocess.TimeoutExpired:
            pass


def outcome(code):
    """The status of a program that did not print its summary."""
    if code is None:
        return "timeout"
    return "crash-%d" % -code if code < 0 else "stop"


def read_output(log):
    with open(log, encoding="latin-1") as file:
        return file.read()


def read_log(file, code, seconds, log):
    """The result that testfixture's output tells."""
    out = read_output(log)
    summary = re.findall(r"^(\d+) errors out of (\d+) tests", out, re.M)
    failures = re.findall(r"^! (.*) expected: \[", out, re.M) + re.findall(r"^(\S.*)\.\.\.\nError: ", out, re.M)
    for line in re.findall(r"^!Failures on these tests: (.*)$", out, re.M):
        failures += line.split()
    refused = set(re.findall(r"^! (.*) got: +\[.*libreplica: .* is replicated, so ", out, re.M) +
                  re.findall(r"^(\S.*)\.\.\.\nError: libreplica: .* is replicated, so ", out, re.M))
    failures = ["refused:" + name if name in refused else name for name in failures]
    note = ""
    if summary:
        errors, tests = map(int, summary[-1])
        if re.search(r"^\d+ files were left open", out, re.M):
            failures.append("open-files")
        if re.search(r"^Unfreed memory: ", out, re.M):
            failures.append("memory")
    else:
        errors, tests = len(set(failures)), len(re.findall(r"\.\.\. Ok$", out, re.M))
        # Tcl's message, if it was Tcl that ended it.
        found = re.findall(r"^\S*/testfixture: (.*)$", out, re.M)
        note = (found[-1] if found else out.rstrip().rsplit("\n", 1)[-1])[:200]
    failures = sorted({re.sub(r"[ \t]", "_", name) for name in failures})
    return Result(file, "ok" if summary else outcome(code), errors, tests, round(seconds, 1), 0, 0, failures, note)


def names_of_tests(log):
    """The names that testfixture printed, each as often as it ran. Some tests print dots while they wait."""
    return collections.Counter(re.findall(r"^\.*([^\s.].*)\.\.\.(?: Ok)?$", read_output(log), re.M))

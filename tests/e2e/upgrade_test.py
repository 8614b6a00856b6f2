"""Rolling upgrade: processes of the last release and of this one have the same database open, in either order.

The last release is built from the history by last_release.sh, or lies in the folder REPLICA_TEST_LAST_RELEASE names.
"""
import glob
import json
import os
import shutil
import signal
import subprocess
import sys
import unittest

import harness
from harness import COMMAND, LIBRARY, clean_environment, digest, restore

HERE = os.path.dirname(os.path.abspath(__file__))
LAST_RELEASE = ""


def setUpModule():
    global LAST_RELEASE
    if os.environ.get("REPLICA_TEST_SANITIZED") == "thread":
        raise unittest.SkipTest("ThreadSanitizer does not see what a library that it was not built into does")
    folder = os.environ.get("REPLICA_TEST_LAST_RELEASE", "")
    if not folder:
        # A compiler and CMake know nothing of sanitizers that are preloaded.
        done = subprocess.run([os.path.join(HERE, "last_release.sh"), os.path.dirname(COMMAND)], capture_output=True,
                              text=True, env=harness.without_preload(os.environ))
        if done.returncode == 77:
            raise unittest.SkipTest(done.stderr.strip())
        if done.returncode != 0:
            raise RuntimeError(done.stderr)
        folder = done.stdout.strip()
    LAST_RELEASE = os.path.join(folder, "libreplica.so")


# Answers each statement with its rows, or with the text of its error. `digest` answers the database's hash.
WORKER = """
import json, sys
from harness import *
load(sqlite3.connect(":memory:"))
db = None
for line in sys.stdin:
    line = line.rstrip("\\n")
    try:
        if line == "open":
            db, answer = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=20), None
        elif line == "close":
            answer = db.close()
        elif line == "digest":
            answer = digest(image(db))
        else:
            answer = db.execute(line).fetchall()
    except sqlite3.Error as error:
        answer = str(error)
    print(json.dumps(answer), flush=True)
"""


class Worker:
    """A process with the database open and one version of the library loaded."""

    def __init__(self, test, library, path, **variables):
        environment = clean_environment(REPLICA_URL=test.url(), REPLICA_CONFIG="off", REPLICA_SYNC_INTERVAL="10ms",
                                        LIBREPLICA=library, PYTHONPATH=HERE, **variables)
        if "LD_PRELOAD" in os.environ:
            environment["LD_PRELOAD"] = os.environ["LD_PRELOAD"]
        self.process = subprocess.Popen([sys.executable, "-c", WORKER, path], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True, env=environment)
        self.pid = self.process.pid
        for clean in (self.process.stdout.close, self.process.stdin.close, self.process.wait, self.process.kill):
            test.addCleanup(clean)
        self.run("open")
        self.run("SELECT count(*) FROM sqlite_schema")  # the first transaction attaches it, once it is in WAL mode

    def run(self, command):
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise AssertionError("the process ended with %s at: %s" % (self.process.wait(), command))
        return json.loads(line)

    def status(self):
        return json.loads(self.run("SELECT replica_status()")[0][0])

    def sync(self):
        """The acknowledged TXID; or a text, the error."""
        answer = self.run("SELECT replica_sync('main', 20000)")
        return answer if isinstance(answer, str) else answer[0][0]

    def verify(self):
        return json.loads(self.run("SELECT replica_verify('main', 'full')")[0][0])

    def kill(self):
        self.process.kill()
        self.process.wait()

    def end(self):
        """Closes the database and ends, as an application does."""
        self.run("close")
        self.process.stdin.close()
        self.process.wait(timeout=30)


class Upgrade(harness.TestCase):
    def setUp(self):
        super().setUp()
        self.file = self.path("app.db")

    def old(self, **variables):
        return Worker(self, LAST_RELEASE, self.file, **variables)

    def new(self, **variables):
        return Worker(self, LIBRARY, self.file, **variables)

    def begin(self, worker):
        worker.run("PRAGMA journal_mode=WAL")
        worker.run("CREATE TABLE t(a)")
        worker.run("INSERT INTO t VALUES('first')")
        self.assertIsInstance(worker.sync(), int)

    def events(self, *kinds):
        out = []
        for name in (self.file + "-replica/events.1", self.file + "-replica/events"):
            if os.path.exists(name):
                with open(name) as file:
                    out += [json.loads(line) for line in file if line.startswith("{")]
        return [event["message"] for event in out if event["kind"] in kinds]

    def restored(self, target="latest"):
        """The hash of what a restore gives, by this version's library."""
        out = self.path("out.db")
        restore(self.url("replica/app.db"), out, target, clean_environment(REPLICA_CONFIG="off"))
        with open(out, "rb") as file:
            data = file.read()
        for name in glob.glob(out + "*"):
            shutil.rmtree(name) if os.path.isdir(name) else os.remove(name)
        return digest(data)

    def control(self):
        """Which control block is there, and of which version."""
        with open(self.file + "-replica/control", "rb") as file:
            return os.fstat(file.fileno()).st_ino, file.read(8)

    def take_the_store_away(self):
        os.rename(self.path("replica"), self.path("away"))
        with open(self.path("replica"), "w"):  # a file: not even root can make folders below it
            pass

    def bring_the_store_back(self):
        os.remove(self.path("replica"))
        os.rename(self.path("away"), self.path("replica"))

    def leads(self, worker):
        self.wait_for(lambda: worker.status().get("leader_pid") == worker.pid)

    def check_all_is_stored(self, worker):
        # Once the other version has let go of the folder this one takes it, within a second.
        self.wait_for(lambda: isinstance(worker.sync(), int))
        report = worker.verify()
        self.assertTrue(report["ok"], report)
        self.assertEqual(self.restored(), worker.run("digest"))
        self.assertEqual(self.events("fenced", "copy"), [])

    def test_a_new_process_leaves_uploading_to_the_old_one(self):
        """It replaced the control block under its users: two leaders, and taps that nobody looked at."""
        for ends in ("closes", "is killed"):
            with self.subTest("the old one " + ends):
                old = self.old()
                if ends == "closes":
                    self.begin(old)
                before = self.control()
                new = self.new()
                new.run("INSERT INTO t VALUES('beside the old one')")
                self.assertIn("in use by another version of libreplica, which uploads meanwhile",
                              new.status().get("message", ""))
                self.assertEqual(self.control(), before)
                self.assertEqual(old.status()["leader_pid"], old.pid)
                old.run("INSERT INTO t VALUES('by the old one')")
                self.assertIsInstance(old.sync(), int)
                self.assertEqual(self.restored(), new.run("digest"))
                old.run("INSERT INTO t VALUES('last words')")
                old.end() if ends == "closes" else old.kill()
                new.run("INSERT INTO t VALUES('after it')")
                self.leads(new)
                self.assertNotEqual(self.control(), before)
                self.check_all_is_stored(new)
                new.end()

    def test_the_new_command_says_that_the_old_one_uploads(self):
        old = self.old()
        self.begin(old)
        before = self.control()
        done = subprocess.run([COMMAND, "--json", "status", self.file], capture_output=True, text=True, timeout=60,
                              env=clean_environment(REPLICA_URL=self.url(), REPLICA_CONFIG="off"))
        self.assertIn("another version of libreplica", done.stdout + done.stderr)
        self.assertEqual(self.control(), before)
        old.run("INSERT INTO t VALUES(2)")
        self.assertIsInstance(old.sync(), int)
        self.assertEqual(self.restored(), old.run("digest"))

    def work_side_by_side(self):
        """A new process leads, an old one comes; both commit, and the old one restarts the WAL."""
        new = self.new()
        self.begin(new)
        self.leads(new)
        old = self.old()
        for i in range(5):
            old.run("INSERT INTO t VALUES('by the old one')")
            new.run("INSERT INTO t VALUES('by the new one')")
        old.run("PRAGMA wal_checkpoint(RESTART)")
        old.run("INSERT INTO t VALUES('in the next WAL')")
        return new, old

    def test_an_old_process_that_comes_later_and_ends_first_loses_nothing(self):
        """It knows no other version, and puts a control block of its own in the place of the one in use."""
        new, old = self.work_side_by_side()
        old.end()
        new.run("INSERT INTO t VALUES('alone again')")
        self.check_all_is_stored(new)

    def check_the_old_one_goes_on(self, old):
        old.run("INSERT INTO t VALUES('alone')")
        self.assertIsInstance(old.sync(), int)
        self.assertEqual(self.restored(), old.run("digest"))
        # And the upgrade goes on from there.
        old.end()
        new = self.new()
        new.run("INSERT INTO t VALUES('upgraded')")
        self.check_all_is_stored(new)

    def test_an_old_process_that_comes_later_and_stays_loses_nothing(self):
        new, old = self.work_side_by_side()
        new.end()
        self.check_the_old_one_goes_on(old)

    def test_an_old_process_goes_on_for_a_new_one_that_is_killed(self):
        new, old = self.work_side_by_side()
        new.kill()
        self.check_the_old_one_goes_on(old)

    def test_a_third_process_beside_both_waits_for_its_turn(self):
        new, old = self.work_side_by_side()
        third = self.new()
        third.run("INSERT INTO t VALUES('by a third')")
        new.end()
        old.end()
        third.run("INSERT INTO t VALUES('alone')")
        self.leads(third)
        self.check_all_is_stored(third)

    def test_versions_in_turns(self):
        """Each opens what the other has closed: a downgrade costs a comparison at most, and no commit."""
        self.begin(first := self.old())
        first.end()
        for i, version in enumerate((self.new, self.old, self.new, self.new, self.old, self.new)):
            worker = version()
            worker.run("INSERT INTO t VALUES(%d)" % i)
            self.check_all_is_stored(worker)
            worker.end()
        self.assertEqual(self.restored(), self.digest_of_the_file())

    def digest_of_the_file(self):
        self.assertFalse(os.path.exists(self.file + "-wal"))
        with open(self.file, "rb") as file:
            return digest(file.read())

    def commit(self, worker, sql):
        """One commit; the state that it makes is expected under the next TXID."""
        worker.run(sql)
        self.expected[max(self.expected) + 1] = worker.run("digest")

    def old_ones_that_cannot_send(self):
        """An old leader with one segment in its spool and the rest in the WAL."""
        old = self.old(REPLICA_SHUTDOWN_TIMEOUT="1s")
        self.begin(old)
        first = old.sync()
        self.expected = {first: old.run("digest")}
        self.take_the_store_away()
        for i in range(20):
            self.commit(old, "INSERT INTO t VALUES(randomblob(3000))")
        self.wait_for(lambda: old.status()["txid"]["captured"] > first)
        self.assertTrue(glob.glob(self.file + "-replica/spool/log-*"))
        return old

    def check_each_commit_is_restorable(self):
        self.bring_the_store_back()
        new = self.new()
        self.assertEqual((new.sync(), self.events("resync")), (max(self.expected), []))
        self.assertEqual({txid: self.restored(txid) for txid in self.expected}, self.expected)
        self.commit(new, "INSERT INTO t VALUES('by the new one')")
        self.check_all_is_stored(new)
        self.assertEqual(new.sync(), max(self.expected))

    def test_the_spool_of_an_old_process_that_was_killed_is_sent(self):
        """State and spool of the last release are read as they are: no resync, each commit restorable."""
        self.old_ones_that_cannot_send().kill()
        self.check_each_commit_is_restorable()

    def test_old_processes_that_were_killed_with_frames_in_the_journal_cost_a_comparison(self):
        old = self.old_ones_that_cannot_send()
        beside = self.old(REPLICA_SHUTDOWN_TIMEOUT="1s")
        beside.run("PRAGMA wal_autocheckpoint=10")
        # The leader stands still: what another process commits goes through the restart gate into the journal.
        os.kill(old.pid, signal.SIGSTOP)
        for i in range(10):
            self.commit(beside, "INSERT INTO t VALUES(randomblob(20000))")
        self.assertTrue([name for name in glob.glob(self.file + "-replica/spool/journal-*") if os.path.getsize(name)])
        old.kill()
        beside.kill()
        # What tells that the journal's WAL is the next one lies in the old version's control block, which this one cannot
        # read: it compares.
        self.bring_the_store_back()
        self.check_all_is_stored(self.new())

    def test_what_an_old_process_left_behind_at_its_close_is_sent(self):
        """The close went through the gate, the WAL is gone: journal, state and spool are all that is left."""
        self.old_ones_that_cannot_send().end()
        self.assertFalse(os.path.exists(self.file + "-wal"))
        self.check_each_commit_is_restorable()

    def test_a_clean_close_of_the_old_one_needs_no_comparison(self):
        old = self.old()
        self.begin(old)
        before = old.sync()
        old.end()
        new = self.new()
        new.run("INSERT INTO t VALUES('by the new one')")
        self.assertEqual(new.sync(), before + 1)
        self.assertEqual(self.events("resync"), [])
        self.check_all_is_stored(new)


if __name__ == "__main__":
    harness.main()

"""Many processes, dying leaders, fork: one uploader at a time, and nothing lost when it goes."""
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time

import harness
from harness import ask, connect, image, one, status, sync

HERE = os.path.dirname(os.path.abspath(__file__))


class Processes(harness.TestCase):
    def start(self, code, wait=True, **values):
        """A Python process with the harness imported; prints a line when it is ready."""
        lines = ["import sys, os, time", "sys.path.insert(0, %r)" % HERE, "from harness import *"]
        lines += ["%s = %r" % item for item in values.items()]
        process = subprocess.Popen([sys.executable, "-c", "\n".join(lines) + "\n" + code], stdin=subprocess.PIPE,
                                   stdout=subprocess.PIPE, text=True, env=harness.clean_environment(REPLICA_URL=self.url()))
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.stdin.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        if wait:
            self.assertEqual(process.stdout.readline().strip(), "ready")
        return process

    WRITER = """
db = connect(path)
db.execute("PRAGMA journal_mode=WAL")
db.execute("CREATE TABLE IF NOT EXISTS t(x)")
db.execute("INSERT INTO t VALUES (1)")
print("ready", flush=True)
for line in sys.stdin:
    db.execute(line)
    print("done", flush=True)
"""

    def command(self, process, sql):
        process.stdin.write(sql + "\n")
        process.stdin.flush()
        self.assertEqual(process.stdout.readline().strip(), "done")

    def test_status_and_sync_from_another_process_and_takeover(self):
        path = self.path("app.db")
        leader = self.start(self.WRITER, path=path)
        other = self.start(self.WRITER, path=path)
        db = connect(path)
        self.wait_for(lambda: status(db)["state"] == "streaming")
        self.assertEqual(status(db)["leader_pid"], leader.pid)
        self.command(other, "INSERT INTO t VALUES ('by another process')")
        sync(db)
        self.assert_restores(self.url("replica/app.db"), "latest", image(db), 4096)
        # The leader dies; the other one takes over without being asked.
        self.command(leader, "INSERT INTO t VALUES ('last words')")
        leader.send_signal(signal.SIGKILL)
        leader.wait()
        self.command(other, "INSERT INTO t VALUES ('after')")
        sync(db)
        self.assertEqual(status(db)["leader_pid"], other.pid)
        self.assert_restores(self.url("replica/app.db"), "latest", image(db), 4096)
        moved = [m for k, m in db.execute("SELECT kind, message FROM replica_events") if "differ" in m]
        self.assertEqual(moved, [], "the new leader went on from the WAL, commit by commit")

    def test_many_writers_one_history(self):
        path = self.path("app.db")
        code = """
import random
db = connect(path)
db.execute("PRAGMA journal_mode=WAL")
db.execute("PRAGMA wal_autocheckpoint=20")
db.execute("CREATE TABLE IF NOT EXISTS t(x)")
print("ready", flush=True)
sys.stdin.readline()
for i in range(150):
    db.execute("INSERT INTO t VALUES (randomblob(?))", (random.randrange(3000),))
db.close()
"""
        first = self.start(code, path=path)
        writers = [first] + [self.start(code, path=path) for _ in range(3)]
        for writer in writers:
            writer.stdin.write("go\n")
            writer.stdin.flush()
        for writer in writers:
            self.assertEqual(writer.wait(timeout=120), 0)
        db = connect(path)
        one(db, "SELECT replica_attach(?)", self.url("replica/app.db"))
        sync(db)
        self.assertEqual(one(db, "SELECT count(*) FROM t"), 600)
        self.assert_restores(self.url("replica/app.db"), "latest", image(db), 4096)
        report = ask(db, "SELECT replica_verify('main', 'objects')")
        self.assertTrue(report["ok"], report)
        resyncs = [m for k, m in db.execute("SELECT kind, message FROM replica_events") if "differ" in m]
        self.assertEqual(resyncs, [], "each commit was captured")

    def test_fork_leaves_the_parents_lock_with_the_parent(self):
        """Puma in cluster mode: the application is loaded, uses its database, forks workers that open their own."""
        if os.environ.get("REPLICA_TEST_SANITIZED") == "thread":
            self.skipTest("ThreadSanitizer cannot start threads in the child of a process that has threads")
        path = self.path("app.db")
        code = """
db = connect(path)
db.execute("PRAGMA journal_mode=WAL")
db.execute("CREATE TABLE t(x)")
sync(db)
db.close()
children = []
for i in range(3):
    pid = os.fork()
    if pid == 0:
        mine = connect(path)
        mine.execute("PRAGMA busy_timeout=10000")
        for n in range(20):
            mine.execute("INSERT INTO t VALUES (?)", ("child %d %d" % (i, n),))
        sync(mine)
        mine.close()
        os._exit(0)
    children.append(pid)
codes = [os.waitpid(pid, 0)[1] for pid in children]
assert codes == [0, 0, 0], codes
db = connect(path)
sync(db)
assert one(db, "SELECT count(*) FROM t") == 60
print("ready", flush=True)
sys.stdin.readline()
"""
        parent = self.start(code, path=path)
        db = connect(path)
        self.assert_restores(self.url("replica/app.db"), "latest", image(db), 4096)
        db.close()
        parent.stdin.write("end\n")
        parent.stdin.flush()
        self.assertEqual(parent.wait(timeout=30), 0)

    def test_regression_a_child_does_not_inherit_the_locks_of_our_connection(self):
        """SQLite in a forked child took libreplica's connection in the parent for a lock of its own: none was taken then."""
        if os.environ.get("REPLICA_TEST_SANITIZED") == "thread":
            self.skipTest("ThreadSanitizer cannot start threads in the child of a process that has threads")
        with socket.socket() as silent:
            silent.bind(("127.0.0.1", 0))
            silent.listen(50)
            code = """
os.environ.update(REPLICA_URL="s3://b/p", REPLICA_ENDPOINT=endpoint, REPLICA_ACCESS_KEY_ID="k",
                  REPLICA_SECRET_ACCESS_KEY="s", REPLICA_SHUTDOWN_TIMEOUT="5s")
import threading
db = connect(path, check_same_thread=False)
db.execute("PRAGMA journal_mode=WAL")
db.execute("CREATE TABLE t(x)")
fds = lambda: [os.readlink("/proc/self/fd/" + n) for n in os.listdir("/proc/self/fd") if os.path.exists("/proc/self/fd/" + n)]
while fds().count(path) < 2:  # until the leader has its connection, with which it waits for the store
    time.sleep(0.01)
closing = threading.Thread(target=db.close, daemon=True)
closing.start()
closing.join(0.5)
assert closing.is_alive(), "the close waits for the store"
assert path in fds(), "the leader's connection is still open: %s" % fds()
pid = os.fork()
if pid == 0:
    db = connect(path)
    one(db, "SELECT count(*) FROM t")
    inode = os.stat(path).st_ino
    held = [l for l in open("/proc/locks") if " POSIX " in l and l.split()[4] == str(os.getpid()) and l.split()[5].endswith(":%d" % inode)]
    print("ready" if held else "no lock of the child's own", flush=True)
    os._exit(0)
os.waitpid(pid, 0)
os._exit(0)
"""
            self.start(code, path=self.path("app.db"), endpoint="http://127.0.0.1:%d" % silent.getsockname()[1])

    def test_regression_a_connection_for_each_commit(self):
        """A pool that keeps no connection: opened, one commit, closed before the uploader's thread has run. The WAL that it was
        in was over by then, and the next one was taken for the first since the close before."""
        path = self.path("app.db")
        code = """
for i in range(120):
    db = connect(path)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("CREATE TABLE IF NOT EXISTS t(x)")
    db.execute("INSERT INTO t VALUES (?)", (i,))
    db.close()
print("ready", flush=True)
sys.stdin.readline()
"""
        def run(paths):
            processes = [self.start(code, wait=False, path=p) for p in paths]
            for process in processes:
                self.assertEqual(process.stdout.readline().strip(), "ready")
                process.stdin.write("end\n")
                process.stdin.flush()
                self.assertEqual(process.wait(timeout=60), 0)
        alone = [self.path("app.db"), self.path("b.db"), self.path("c.db"), self.path("d.db")]
        run(alone)  # at the same time, so that the threads are often late
        for each in alone:
            db = connect(each)
            one(db, "SELECT replica_attach(?)", self.url("replica/" + os.path.basename(each)))
            self.assertGreaterEqual(sync(db), 120, "the first connection's commits are the first state; then each is one")
            report = ask(db, "SELECT replica_verify('main', 'full')")
            self.assertTrue(report["ok"], report)
            db.close()
        run([path] * 3)
        db = connect(path)
        one(db, "SELECT replica_attach(?)", self.url("replica/app.db"))
        sync(db)
        report = ask(db, "SELECT replica_verify('main', 'full')")
        self.assertTrue(report["ok"], report)
        self.assertEqual(one(db, "SELECT count(*) FROM t"), 480)
        resyncs = [m for k, m in db.execute("SELECT kind, message FROM replica_events") if k == "resync"]
        self.assertEqual(resyncs, [], "\n".join(resyncs))

    def test_regression_a_leadership_that_comes_after_the_close_is_not_used(self):
        """Its thread opened the database that the application had closed, and left a -wal beside it."""
        path = self.path("app.db")
        leader = self.start(self.WRITER, path=path)
        other = self.start("""
db = connect(path)
print("ready", flush=True)
sys.stdin.readline()
db.execute("INSERT INTO t VALUES (2)")
db.close()
print("closed", flush=True)
sys.stdin.read()
""", path=path)
        db = connect(path)
        self.wait_for(lambda: status(db)["leader_pid"] == leader.pid and status(db)["state"] == "streaming")
        sync(db)
        db.close()
        leader.send_signal(signal.SIGSTOP)  # it cannot send what the other one commits, nor give the leadership away
        other.stdin.write("close\n")
        other.stdin.flush()
        self.assertEqual(other.stdout.readline().strip(), "closed")
        leader.kill()
        leader.wait()
        end = time.monotonic() + 2
        while time.monotonic() < end:
            links = []
            for fd in os.listdir("/proc/%d/fd" % other.pid):
                try:
                    links.append(os.readlink("/proc/%d/fd/%s" % (other.pid, fd)))
                except FileNotFoundError:
                    pass
            self.assertFalse([link for link in links if link in (path, path + "-wal")], "the files are left alone")
            time.sleep(0.005)  # they are looked at so often
        self.command(self.start(self.WRITER, path=path), "INSERT INTO t VALUES (3)")
        db = connect(path)
        sync(db)
        self.assertEqual(one(db, "SELECT count(*) FROM t"), 4)
        self.assert_restores(self.url("replica/app.db"), "latest", image(db), 4096)

    def test_regression_closes_in_quick_succession_flush_all_of_them(self):
        """They had one bound together, which was never renewed as long as they came quickly enough."""
        path = self.path("app.db")
        code = """
os.environ.update(REPLICA_SHUTDOWN_TIMEOUT="500ms")
for i in range(40):
    db = connect(path)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("CREATE TABLE IF NOT EXISTS t(x)")
    db.execute("INSERT INTO t VALUES (1)")
    db.close()
    time.sleep(0.05)  # the next close comes within the bound of this one
print("ready", flush=True)
os._exit(0)
"""
        self.start(code, path=path)
        harness.restore(self.url("replica/app.db"), self.path("r.db"))
        self.assertEqual(one(connect(self.path("r.db"), False), "SELECT count(*) FROM t"), 40)

    def test_regression_a_close_beside_a_working_leader_does_not_wait(self):
        """Something is always unsent beside a leader that gathers; it sends what was committed, so nobody need wait for it."""
        path = self.path("app.db")
        leader = self.start("""
os.environ.update(REPLICA_SYNC_INTERVAL="60s")
db = connect(path)
db.execute("PRAGMA journal_mode=WAL")
db.execute("CREATE TABLE t(x)")
sync(db)
print("ready", flush=True)
for line in sys.stdin:
    db.execute(line)
    print("done", flush=True)
os._exit(0)
""", path=path)
        self.command(leader, "INSERT INTO t VALUES (1)")
        code = """
took = []
for i in range(5):
    db = connect(path)
    one(db, "SELECT count(*) FROM t")
    begun = time.monotonic()
    db.close()
    took.append(time.monotonic() - begun)
print("ready" if min(took) < 0.3 else took, flush=True)
"""
        self.start(code, path=path)

    def test_exit_without_close_flushes(self):
        path = self.path("app.db")
        process = self.start("""
db = connect(path)
db.execute("PRAGMA journal_mode=WAL")
db.execute("CREATE TABLE t(x)")
sync(db)
for i in range(100):
    db.execute("INSERT INTO t VALUES (?)", (i,))
print("ready", flush=True)
import ctypes
ctypes.CDLL(None).exit(0)
""", path=path)
        self.assertEqual(process.wait(timeout=30), 0)
        plain = connect(path, extension=False)
        self.assert_restores(self.url("replica/app.db"), "latest", image(plain), 4096)


if __name__ == "__main__":
    harness.main()

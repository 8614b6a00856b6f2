"""Uploading in a process of its own: replica replicate, alone and beside applications, and uploader=process."""
import fcntl
import json
import os
import pathlib
import shutil
import signal
import socket
import sqlite3
import struct
import subprocess
import sys
import time

import harness
from harness import COMMAND, clean_environment, one, status, sync

# An application: commits a row whenever it is told to, and answers with what it sees.
APPLICATION = """
import sys
sys.path.insert(0, %r)
import harness
db = harness.connect(sys.argv[1])
db.execute("PRAGMA journal_mode=WAL")
db.execute("CREATE TABLE IF NOT EXISTS t(x)")
for line in sys.stdin:
    print(eval(line), flush=True)
db.close()
print("closed", flush=True)
""" % os.path.dirname(os.path.abspath(__file__))


class Application:
    def __init__(self, test, path, environment):
        self.process = subprocess.Popen([sys.executable, "-c", APPLICATION, path], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True,
                                        env=dict(environment, LIBREPLICA=harness.LIBRARY))
        test.addCleanup(self.end)

    def ask(self, expression):
        self.process.stdin.write(expression + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def commit(self, count=1):
        self.ask("[db.execute('INSERT INTO t VALUES (randomblob(100))') for i in range(%d)]" % count)

    def status(self):
        return json.loads(self.ask("harness.one(db, 'SELECT replica_status()')"))

    def sync(self):
        return int(self.ask("harness.sync(db)"))

    def close(self):
        self.process.stdin.close()
        out = self.process.stdout.read()
        self.process.wait(60)
        return out.strip()

    def end(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        if not self.process.stdin.closed:
            try:
                self.process.stdin.close()
            except BrokenPipeError:
                pass


def alive(pid):
    try:
        with open("/proc/%d/stat" % pid) as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


class UploaderTest(harness.TestCase):
    def replicate(self, *arguments, environment=None):
        process = subprocess.Popen([COMMAND, "replicate", *arguments], stderr=subprocess.PIPE, text=True,
                                   env=environment or self.environment(), cwd=self.folder)
        self.addCleanup(self.reap, process)
        return process

    @staticmethod
    def reap(process):
        if process.poll() is None:
            process.kill()
        process.wait()
        process.stderr.close()

    def environment(self, **more):
        return clean_environment(REPLICA_URL=self.url(), REPLICA_DATABASES=self.path("a.db"),
                                 REPLICA_SYNC_INTERVAL="0", **more)

    def uploader(self, application, kind):
        return self.wait_for(lambda: (lambda s: s if s.get("uploader") == kind and s["state"] == "streaming" else None)
                             (application.status()))

    def assert_equal_to_replica(self, rows):
        """The newest state restores, has every row, and nothing had to be healed by difference."""
        harness.restore(self.url() + "/a.db", self.path("r.db"))
        with sqlite3.connect(self.path("r.db")) as restored:
            self.assertEqual(one(restored, "SELECT count(*) FROM t"), rows)
            self.assertEqual(one(restored, "PRAGMA integrity_check"), "ok")
        restored.close()
        kinds = [e["kind"] for e in self.replica_json("events", "-n0", self.path("a.db"))["events"]]
        self.assertNotIn("resync", kinds)
        return kinds

    def test_replicate_takes_the_leadership_and_gives_it_back_when_killed(self):
        application = Application(self, self.path("a.db"), self.environment())
        application.commit(5)
        application.sync()
        self.assertEqual(application.status()["uploader"], "thread")
        rows = 5
        for _ in range(3):
            uploader = self.replicate()
            self.assertEqual(self.uploader(application, "process")["leader_pid"], uploader.pid)
            application.commit(20)
            application.sync()
            uploader.kill()
            application.commit(20)  # nobody uploads at this moment
            self.assertEqual(self.uploader(application, "thread")["leader_pid"], application.process.pid)
            application.sync()
            rows += 40
        txid = application.sync()
        self.assertEqual(txid, application.status()["txid"]["committed"])
        self.assertEqual(application.close(), "closed")
        self.assert_equal_to_replica(rows)
        log = self.replica_json("history", self.url() + "/a.db")["segments"]
        self.assertTrue(all(s["restorable"] == "all" for s in log if s["kind"] == "log"), "no commit was folded away")

    def test_regression_counts_of_two_lives_are_not_compared(self):
        """SQLite counts anew when nobody had the database open: status told of commits that wait, and of lag that grew."""
        application = Application(self, self.path("a.db"), self.environment())
        application.commit(50)
        txid = application.sync()
        application.close()
        uploader = self.replicate()
        self.wait_for(lambda: "streaming" in uploader.stderr.readline())
        with sqlite3.connect(self.path("a.db"), isolation_level=None) as plain:
            for _ in range(5):
                plain.execute("INSERT INTO t VALUES (1)")
        plain.close()

        def told():
            out = self.replica("--json", "status", self.path("a.db"), environment=self.environment(), code=None)
            return json.loads(out)["databases"][0]
        self.wait_for(lambda: told().get("state") == "streaming" and told()["txid"]["acknowledged"] == txid + 5)
        report = told()
        self.assertEqual(report["txid"]["committed"], report["txid"]["acknowledged"], report)
        self.assertEqual(report["lag"]["seconds"], 0, report)

    def test_replicate_stops_gracefully(self):
        application = Application(self, self.path("a.db"), self.environment())
        uploader = self.replicate()
        self.uploader(application, "process")
        application.commit(50)
        uploader.terminate()
        self.assertEqual(uploader.wait(30), 0)
        self.uploader(application, "thread")
        application.close()
        self.assert_equal_to_replica(50)

    def test_replicate_alone_beside_plain_writers(self):
        """As Litestream is used: the application knows nothing of libreplica."""
        plain = sqlite3.connect(self.path("a.db"), isolation_level=None)
        plain.execute("CREATE TABLE t(x)")  # in rollback mode: the uploader changes that
        uploader = self.replicate()
        self.wait_for(lambda: one(plain, "SELECT count(*) FROM t") == 0 and one(plain, "PRAGMA journal_mode") == "wal")
        for i in range(200):
            plain.execute("INSERT INTO t VALUES (randomblob(500))")
        self.replica("sync", environment=self.environment())
        uploader.terminate()
        self.assertEqual(uploader.wait(30), 0)
        plain.close()
        self.assert_equal_to_replica(200)

    def test_regression_an_uploader_that_is_gone_is_missed(self):
        """Beside writers without libreplica nothing counts their commits: status and /healthz said that all was well."""
        problem = lambda: self.replica_json("status", environment=self.environment(), code=None)["databases"][0]["problem"]
        plain = sqlite3.connect(self.path("a.db"), isolation_level=None)
        plain.execute("PRAGMA journal_mode=WAL")
        plain.execute("CREATE TABLE t(x)")
        for kill in (True, False):
            uploader = self.replicate()
            self.wait_for(lambda: problem() is None)
            plain.execute("INSERT INTO t VALUES (1)")
            self.replica("sync", environment=self.environment())
            uploader.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
            uploader.wait(30)
            self.assertIsNone(problem(), "nothing was written since")
            plain.execute("INSERT INTO t VALUES (2)")
            self.assertIn("written to since", problem())
        plain.close()
        self.assertIn("written to since", problem(), "checkpointed by its last close")
        uploader = self.replicate()
        self.wait_for(lambda: problem() is None)
        self.replica("sync", environment=self.environment())
        uploader.terminate()
        uploader.wait(30)
        self.assertIsNone(problem())

    def test_what_needs_a_person_is_said_in_production(self):
        application = Application(self, self.path("a.db"), self.environment())
        application.commit(3)
        application.sync()
        application.close()
        with sqlite3.connect(self.path("b.db")) as other:
            other.execute("PRAGMA journal_mode=WAL")
            other.execute("CREATE TABLE t(x)")
        other.close()
        os.rename(self.path("b.db"), self.path("a.db"))
        subprocess.run(["rm", "-r", self.path("a.db-replica")], check=True)
        code = APPLICATION.replace("for line in sys.stdin:", "db.execute('INSERT INTO t VALUES (1)')\n"
                                   "import time\nwhile not harness.status(db)['last_error']: time.sleep(0.01)\n"
                                   "for line in []:")
        for production, said in (("0", False), ("1", True)):
            done = subprocess.run([sys.executable, "-c", code, self.path("a.db")], capture_output=True, text=True, timeout=60,
                                  env=dict(self.environment(REPLICA_REQUIRED=production, REPLICA_SHUTDOWN_TIMEOUT="1s"),
                                           LIBREPLICA=harness.LIBRARY))
            self.assertEqual(done.stdout.strip(), "closed", done.stderr)
            self.assertEqual("holds the history of another database" in done.stderr, said, done.stderr)

    def test_replicate_waits_for_databases_and_finds_new_ones(self):
        os.mkdir(self.path("tenants"))
        with open(self.path("replica.yml"), "w") as file:
            file.write("url: %s\ndbs:\n  - path: late.db\n  - dir: tenants\n    pattern: '*.db'\n" % self.url())
        uploader = self.replicate(environment=clean_environment())
        for name in ("late.db", "tenants/one.db", "tenants/two.db"):
            with sqlite3.connect(self.path(name)) as db:
                db.execute("CREATE TABLE t(x)")
            db.close()
        def streaming():
            found = self.replica_json("databases")["databases"]
            return len(found) == 3 and all(d["state"] == "streaming" for d in found)
        self.wait_for(streaming)
        uploader.terminate()
        self.assertEqual(uploader.wait(30), 0)
        self.assertEqual(sorted(os.listdir(self.path("replica"))), ["late.db", "one.db", "two.db"])

    def test_replicate_tells_systemd(self):
        path = self.path("notify")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.bind(path)
            notify.settimeout(30)
            sqlite3.connect(self.path("a.db")).close()
            uploader = self.replicate(environment=self.environment(NOTIFY_SOCKET=path, WATCHDOG_USEC="400000"))
            said = []
            while not any("WATCHDOG=1" in text for text in said[1:]):
                said.append(notify.recv(4096).decode())
            self.assertEqual(said[0], "READY=1")
            uploader.terminate()
            while not said[-1].startswith("STOPPING=1"):
                said.append(notify.recv(4096).decode())
            self.assertEqual(uploader.wait(30), 0)

    def test_replicate_serves_metrics(self):
        import http.client
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        sqlite3.connect(self.path("a.db")).close()
        uploader = self.replicate(environment=self.environment(REPLICA_METRICS_LISTEN="127.0.0.1:%d" % port))
        def get(path):
            try:
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
                connection.request("GET", path)
                answer = connection.getresponse()
                text = answer.read().decode()
                connection.close()
                return answer.status, text
            except ConnectionRefusedError:
                return 0, ""
        self.wait_for(lambda: 'libreplica_state{database="%s",state="streaming"} 1' % self.path("a.db") in get("/metrics")[1])
        self.assertEqual(get("/healthz")[0], 200)
        self.assertEqual(get("/")[0], 404, "no dashboard here")
        self.assertEqual(get("/api/databases")[0], 404)
        self.replica("replicate", environment=self.environment(REPLICA_METRICS_LISTEN="127.0.0.1:%d" % port), code=2)
        uploader.terminate()
        self.assertEqual(uploader.wait(30), 0)

    def test_exec_ends_with_its_command_after_a_flush(self):
        script = self.path("app.py")
        with open(script, "w") as file:
            file.write("import signal, sqlite3, sys, time\n"
                       "db = sqlite3.connect(%r, isolation_level=None)\n"
                       "db.execute('PRAGMA journal_mode=WAL')\n"
                       "db.execute('CREATE TABLE IF NOT EXISTS t(x)')\n"
                       "for i in range(50): db.execute('INSERT INTO t VALUES (1)')\n"
                       "signal.signal(signal.SIGTERM, lambda *a: sys.exit(7))\n"
                       "print('ready', flush=True)\n"
                       "time.sleep(60)\n" % self.path("a.db"))
        process = subprocess.Popen([COMMAND, "replicate", "--exec", "'%s' '%s'" % (sys.executable, script)],
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                   env=harness.without_preload(self.environment()))
        self.addCleanup(process.stdout.close)
        self.addCleanup(self.reap, process)
        self.assertEqual(process.stdout.readline().strip(), "ready")
        self.wait_for(lambda: self.replica_json("databases", environment=self.environment())["databases"][0]["state"] == "streaming")
        process.terminate()
        self.assertEqual(process.wait(30), 7)
        self.assert_equal_to_replica(50)

    def test_wrong_configuration_ends_with_2(self):
        for environment, text in (
                (clean_environment(), "REPLICA_URL"),
                (clean_environment(REPLICA_URL="s3://b/p"), "REPLICA_ACCESS_KEY_ID"),
                (clean_environment(REPLICA_URL="ftp://x"), "ftp://x"),
                (clean_environment(REPLICA_CONFIG=self.path("no.yml")), "no.yml"),
                (clean_environment(REPLICA_URL=self.url()), "name each")):
            self.assertIn(text, self.replica("replicate", environment=environment, code=2))

    def test_uploader_process_lives_and_dies_with_the_application(self):
        application = Application(self, self.path("a.db"), self.environment(REPLICA_UPLOADER="process"))
        application.commit()
        pid = self.uploader(application, "process")["leader_pid"]
        self.assertNotEqual(pid, application.process.pid)
        with open("/proc/%d/cmdline" % pid) as file:
            self.assertEqual(file.read().split("\0")[1:3], ["replicate", "--supervised"])
        application.commit(300)
        self.assertEqual(application.close(), "closed")
        self.wait_for(lambda: not alive(pid), 5)
        self.assertFalse(os.path.exists(self.path("a.db-wal")), "the last close checkpointed")
        self.assert_equal_to_replica(301)

    def test_uploader_process_is_started_again(self):
        application = Application(self, self.path("a.db"), self.environment(REPLICA_UPLOADER="process"))
        application.commit()
        seen = set()
        for _ in range(3):
            pid = self.uploader(application, "process")["leader_pid"]
            self.assertNotIn(pid, seen)
            seen.add(pid)
            os.kill(pid, signal.SIGKILL)
            application.commit(20)
            application.sync()  # whoever uploads now
        application.close()
        self.assert_equal_to_replica(61)

    def test_regression_attached_anew_in_line_for_the_leadership_there_is_one_leader(self):
        """The thread of the service before got the leadership together with the new one's, and freed it for both."""
        application = Application(self, self.path("a.db"), self.environment())
        application.commit()
        uploader = self.replicate()
        self.uploader(application, "process")
        for interval in (10, 20, 30):
            application.ask("harness.one(db, 'SELECT replica_attach(?, ?)', %r, '{\"sync_interval_ms\": %d}')" %
                            (self.url() + "/a.db", interval))
        uploader.kill()
        self.uploader(application, "thread")
        application.sync()
        with open(self.path("a.db-replica", "lock"), "r+") as lock:
            wanted = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 1, 0)  # the leadership's byte
            found = struct.unpack("hhqqi4x", fcntl.fcntl(lock, fcntl.F_OFD_GETLK, wanted))[0]
        self.assertEqual(found, fcntl.F_WRLCK, "the leader does not have the lock")
        application.close()
        self.assert_equal_to_replica(1)

    def test_uploader_process_that_does_not_answer_is_started_again(self):
        application = Application(self, self.path("a.db"), self.environment(REPLICA_UPLOADER="process"))
        application.commit()
        pid = self.uploader(application, "process")["leader_pid"]
        os.kill(pid, signal.SIGSTOP)
        application.commit(3000)  # more than the ring of commit times holds
        self.wait_for(lambda: application.status()["lag"]["seconds"] > 2.5)
        self.wait_for(lambda: not alive(pid), 60)
        application.sync()
        self.assertNotEqual(self.uploader(application, "process")["leader_pid"], pid)
        application.close()
        self.assert_equal_to_replica(3001)

    def test_regression_a_failure_at_the_start_ends_the_process(self):
        """With metrics-listen the process sometimes waited for ever for a server that had not begun to listen."""
        with open(self.path("store"), "w"):
            pass
        with open(self.path("replica.yml"), "w") as file:
            file.write("url: file://%s\nmetrics-listen: 127.0.0.1:0\nrestore: auto\ndbs: [{path: a.db}]\n" % self.path("store"))
        for i in range(20):
            process = self.replicate(environment=clean_environment())
            self.assertNotEqual(process.wait(20), 0)

    def test_unsent_commits_are_told_at_the_end(self):
        """Also when a process that does not replicate has the database open."""
        application = Application(self, self.path("a.db"), clean_environment())
        application.commit()
        uploader = self.replicate()
        self.wait_for(lambda: application.status().get("uploader") == "process")
        application.sync()
        shutil.rmtree(self.path("replica"))
        with open(self.path("replica"), "w"):
            pass
        application.commit(5)
        uploader.terminate()
        self.assertEqual(uploader.wait(60), 3)
        self.assertIn("5 commits are not stored yet", uploader.stderr.read())

    def test_a_restore_at_the_start_is_called_off_by_a_signal(self):
        with socket.socket() as silent:
            silent.bind(("127.0.0.1", 0))
            silent.listen(50)
            with open(self.path("replica.yml"), "w") as file:
                file.write("url: s3://b/p\nendpoint: http://127.0.0.1:%d\naccess-key-id: k\nsecret-access-key: s\n"
                           "restore: auto\ndbs: [{path: a.db}]\n" % silent.getsockname()[1])
            process = self.replicate(environment=clean_environment())
            silent.settimeout(30)
            with silent.accept()[0]:
                process.terminate()
                self.assertEqual(process.wait(15), 130)

    def test_regression_a_truncated_control_block_ends_nothing(self):
        """SIGBUS ended the uploading of all databases."""
        application = Application(self, self.path("b.db"), clean_environment(REPLICA_SYNC_INTERVAL="0"))
        application.commit()
        self.replica("replicate", "--exec", "true", environment=self.environment())
        environment = dict(self.environment(), REPLICA_DATABASES=self.path("*.db"))
        with sqlite3.connect(self.path("a.db"), isolation_level=None) as plain:
            plain.execute("PRAGMA journal_mode=WAL")
            plain.execute("CREATE TABLE t(x)")
            uploader = self.replicate(environment=environment)

            def told(name):
                out = self.replica("--json", "status", self.path(name), environment=environment, code=None)
                return json.loads(out)["databases"][0]
            self.wait_for(lambda: told("a.db").get("state") == told("b.db").get("state") == "streaming")
            os.truncate(self.path("a.db-replica/control"), 0)
            plain.execute("INSERT INTO t VALUES (1)")
            self.wait_for(lambda: "cut short" in uploader.stderr.readline())
            self.wait_for(lambda: told("a.db").get("state") == "streaming")
            self.assertIsNone(uploader.poll())
            self.assertEqual(told("b.db")["leader_pid"], uploader.pid)
        plain.close()

    def test_root_follows_no_link_that_another_made(self):
        if os.geteuid() != 0:
            self.skipTest("only root acts as the owner of a database")
        os.chmod(self.folder, 0o755)
        os.mkdir(self.path("secret"), 0o700)
        with sqlite3.connect(self.path("secret/s.db")) as secret:
            secret.execute("CREATE TABLE t(x)")
        secret.close()
        before = pathlib.Path(self.path("secret/s.db")).read_bytes()
        os.mkdir(self.path("user"))
        os.symlink(self.path("secret/s.db"), self.path("user/a.db"))
        os.lchown(self.path("user/a.db"), 65534, 65534)
        os.chown(self.path("user"), 65534, 65534)
        for configuration in ("dbs: [{path: %s}]" % self.path("user/a.db"),
                              "dbs: [{dir: %s, pattern: '*.db'}]" % self.path("user")):
            with open(self.path("replica.yml"), "w") as file:
                file.write("url: %s\n%s\n" % (self.url(), configuration))
            uploader = self.replicate("--config", self.path("replica.yml"), environment=clean_environment())
            self.wait_for(lambda: "does not follow it" in uploader.stderr.readline())
            uploader.terminate()
            self.assertEqual(uploader.wait(20), 0)
            self.assertEqual(pathlib.Path(self.path("secret/s.db")).read_bytes(), before)
            self.assertFalse(os.path.exists(self.path("replica")))
            # Not through a link of root's own that leads to the other's either.
            if "dir" not in configuration:
                os.symlink(self.path("user/a.db"), self.path("b.db"))
                os.rename(self.path("b.db"), self.path("user/b.db"))
                with open(self.path("replica.yml"), "w") as file:
                    file.write("url: %s\ndbs: [{path: %s}]\n" % (self.url(), self.path("user/b.db")))
                uploader = self.replicate("--config", self.path("replica.yml"), environment=clean_environment())
                self.wait_for(lambda: "does not follow it" in uploader.stderr.readline())
                uploader.terminate()
                self.assertEqual(uploader.wait(20), 0)
                os.remove(self.path("user/b.db"))

    def test_uploader_process_ends_when_the_application_is_killed(self):
        application = Application(self, self.path("a.db"), self.environment(REPLICA_UPLOADER="process"))
        application.commit()
        pid = self.uploader(application, "process")["leader_pid"]
        application.commit(100)
        application.process.kill()
        self.wait_for(lambda: not alive(pid))
        self.assert_equal_to_replica(101)

    def test_uploader_process_that_cannot_be_started_is_told(self):
        application = Application(self, self.path("a.db"), self.environment(
            REPLICA_UPLOADER="process", REPLICA_UPLOADER_COMMAND=self.path("no-such-command")))
        application.commit(10)
        application.sync()
        self.assertEqual(application.status()["uploader"], "thread")
        application.close()
        kinds = self.assert_equal_to_replica(10)
        self.assertIn("error", kinds)

    def test_regression_an_exit_during_a_handover_costs_no_resync(self):
        """The last close deleted the WAL while the dedicated process took over: it could not tell what had become of it."""
        rows = 0
        environment = self.environment(REPLICA_UPLOADER="process")
        for milliseconds in list(range(0, 48, 4)) * 2:  # the exit meets each step of a handover
            application = Application(self, self.path("a.db"), environment)
            application.commit(3)
            time.sleep(milliseconds / 1000)
            application.commit(3)
            rows += 6
            self.assertEqual(application.close(), "closed")
            txid = self.replica_json("status", self.path("a.db"), environment=self.environment())["databases"][0]["txid"]
            self.assertEqual(txid["acknowledged"], txid["committed"], "the close stored what was committed before it")
        self.assert_equal_to_replica(rows)

    def test_regression_a_visit_without_a_commit_costs_no_resync(self):
        """A position between two WALs was proven in memory only: each change of leaders compared every page."""
        for environment in (self.environment(), self.environment(REPLICA_UPLOADER="process")):
            for milliseconds in (0, 30, 100):  # how long a visit lasts
                application = Application(self, self.path("a.db"), environment)
                application.ask("db.execute('SELECT count(*) FROM t').fetchone()")
                time.sleep(milliseconds / 1000)
                if milliseconds == 100:
                    self.uploader(application, "thread" if "REPLICA_UPLOADER" not in environment else "process")
                self.assertEqual(application.close(), "closed")
        application = Application(self, self.path("a.db"), self.environment())
        for _ in range(3):  # the leadership changes hands while the WAL is empty, and just after
            uploader = self.replicate()
            self.uploader(application, "process")
            application.ask("db.execute('PRAGMA wal_checkpoint(TRUNCATE)').fetchone()")
            uploader.kill()
            self.uploader(application, "thread")
            application.commit(2)
        application.close()
        self.assert_equal_to_replica(6)

    def test_regression_stop_beside_a_busy_writer(self):
        """A stop waited until nobody committed any more: its whole timeout beside a busy writer."""
        environment = self.environment(REPLICA_SHUTDOWN_TIMEOUT="60s")
        first = Application(self, self.path("a.db"), environment)
        first.commit(3)
        first.sync()
        busy = Application(self, self.path("a.db"), environment)
        busy.commit(1)
        busy.process.stdin.write("[db.execute('INSERT INTO t VALUES (1)') for i in iter(lambda: __import__('os').path.exists(%r), True)] and 0\n"
                                 % self.path("stop"))
        busy.process.stdin.flush()
        self.assertEqual(first.status()["leader_pid"], first.process.pid)
        begun = time.monotonic()
        self.assertEqual(first.close(), "closed")
        self.assertLess(time.monotonic() - begun, 20)
        with open(self.path("stop"), "w"):
            pass
        busy.process.stdout.readline()
        self.assertEqual(busy.close(), "closed")

    def test_paths_that_are_not_utf8(self):
        name = os.fsencode(self.path("b")) + b"\xff\xfe.db"
        path = os.fsdecode(name)
        environment = clean_environment(REPLICA_URL=self.url(), REPLICA_UPLOADER="process", REPLICA_SYNC_INTERVAL="0")
        application = Application(self, path, environment)
        application.commit(3)
        self.uploader(application, "process")
        begun = time.monotonic()
        self.assertEqual(application.close(), "closed")
        self.assertLess(time.monotonic() - begun, 8, "the uploader answered")

    def test_replicate_restores_what_is_missing_first(self):
        """A container that begins with an empty disk: the command finds the database of before."""
        for how in ("file", "flag"):
            with self.subTest(how):
                path = self.path(how + ".db")
                with open(self.path("replica.yml"), "w") as file:
                    file.write("dbs:\n  - path: %s\n    url: %s/%s\n%s" % (
                        path, self.url(), how, "    restore-if-db-not-exists: true\n" if how == "file" else ""))
                flags = ["--restore-if-db-not-exists"] if how == "flag" else []
                script = "sqlite3 %s 'PRAGMA journal_mode=WAL; CREATE TABLE IF NOT EXISTS t(x); INSERT INTO t VALUES (1); SELECT count(*) FROM t'"
                for count in (1, 2):
                    done = subprocess.run([COMMAND, "replicate", *flags, "--exec", "sh -c \"%s\"" % (script % path)],
                                          capture_output=True, text=True, cwd=self.folder, timeout=60,
                                          env=harness.without_preload(clean_environment()))
                    self.assertEqual(done.returncode, 0, done.stderr)
                    self.assertEqual(done.stdout.split()[-1], str(count), done.stderr)
                    for end in ("", "-wal", "-shm"):
                        if os.path.exists(path + end):
                            os.remove(path + end)
                    subprocess.run(["rm", "-r", path + "-replica"], check=True)
        # One that cannot be restored: the command does not begin with an empty one.
        for root, _, names in os.walk(self.path("replica")):
            for n in names:
                with open(os.path.join(root, n), "r+b") as file:
                    file.truncate(10)
        done = subprocess.run([COMMAND, "replicate", "--restore-if-db-not-exists", "--exec", "touch %s" % self.path("began")],
                              capture_output=True, text=True, cwd=self.folder, timeout=60,
                                          env=harness.without_preload(clean_environment()))
        self.assertNotEqual(done.returncode, 0)
        self.assertFalse(os.path.exists(self.path("began")))

    def test_replicate_databases_of_several_owners(self):
        if os.geteuid() != 0:
            self.skipTest("only root may act as the owner of a database")
        os.chmod(self.folder, 0o755)
        with open(self.path("replica.yml"), "w") as file:
            file.write("url: %s\ndbs:\n  - path: one/a.db\n  - path: two/b.db\n" % self.url())
        for folder, name, owner in (("one", "a.db", 1001), ("two", "b.db", 1002)):
            os.mkdir(self.path(folder))
            with sqlite3.connect(self.path(folder, name)) as db:
                db.execute("PRAGMA journal_mode=WAL")
                db.execute("CREATE TABLE t(x)")
            db.close()
            os.chown(self.path(folder), owner, owner)
            os.chown(self.path(folder, name), owner, owner)
        os.mkdir(self.path("replica"))
        os.chmod(self.path("replica"), 0o777)
        uploader = self.replicate(environment=clean_environment())
        self.wait_for(lambda: all(d["state"] == "streaming" for d in self.replica_json("databases")["databases"]))
        writers = [sqlite3.connect(self.path(*p), isolation_level=None) for p in (("one", "a.db"), ("two", "b.db"))]
        for db in writers:
            for i in range(20):
                db.execute("INSERT INTO t VALUES (?)", (i,))
            db.close()
        self.replica("sync")
        uploader.terminate()
        self.assertEqual(uploader.wait(30), 0)
        for root, owner in (("one", 1001), ("two", 1002), ("replica/a.db", 1001), ("replica/b.db", 1002)):
            for folder, _, names in os.walk(self.path(*root.split("/"))):
                for entry in [folder] + [os.path.join(folder, n) for n in names]:
                    self.assertEqual(os.stat(entry).st_uid, owner, entry)
        self.assertIn("integrity_check ok", self.replica("verify", "--depth", "full"))

    def test_two_applications_share_one_uploader(self):
        environment = self.environment(REPLICA_UPLOADER="process")
        first = Application(self, self.path("a.db"), environment)
        first.commit()
        pid = self.uploader(first, "process")["leader_pid"]
        second = Application(self, self.path("a.db"), environment)
        second.commit(10)
        self.assertEqual(self.uploader(second, "process")["leader_pid"], pid)
        first.close()  # its uploader goes with it; the second application has its own then
        second.commit(10)
        self.assertNotEqual(self.uploader(second, "process")["leader_pid"], pid)
        second.close()
        self.assert_equal_to_replica(21)


if __name__ == "__main__":
    harness.main()

"""The example Rails app on Puma in cluster mode: fail-fast, a killed worker, verify, a lost database, an uploader process.

Needs Debian's ruby-railties, ruby-activerecord, ruby-sqlite3 and puma.
"""
import concurrent.futures
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import unittest

import harness
from harness import COMMAND, LIBRARY, S3, S3_ENDPOINT, clean_environment

APP = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))), "examples", "rails")
NOTES = 200
BUCKET = "rails-test"


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Puma:
    """The app, booted; every process of it is in one process group."""

    def __init__(self, test, environment):
        self.test = test
        self.port = free_port()
        self.log = test.path("puma-%d.log" % self.port)
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(["puma", "-C", "config/puma.rb"], cwd=APP, stdout=log, stderr=log,
                                            start_new_session=True,
                                            env=dict(environment, BIND="tcp://127.0.0.1:%d" % self.port))
        test.addCleanup(self.end)
        test.wait_for(self.is_up, 60)

    def is_up(self):
        self.test.assertIsNone(self.process.poll(), self.text())
        try:
            return self.request("GET", "/up")[0] == 200
        except (OSError, http.client.HTTPException):
            return False

    def request(self, method, path, body=None):
        """Status, the worker's pid, and the JSON."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, None if body is None else json.dumps(body), {"Content-Type": "application/json"})
            answer = connection.getresponse()
            data = answer.read()
            return answer.status, int(answer.headers.get("X-Worker") or 0), json.loads(data) if answer.status < 400 else data
        finally:
            connection.close()

    def post(self, body):
        """Posts a note, again if its worker died under it; returns the worker's pid."""
        end = time.monotonic() + 60
        while True:
            try:
                code, worker, data = self.request("POST", "/notes", {"body": body})
                self.test.assertEqual(code, 201, "%s\n%s" % (data, self.text()))
                return worker
            except (OSError, http.client.HTTPException):
                self.test.assertLess(time.monotonic(), end, self.text())
                time.sleep(0.05)

    def notes(self):
        return {note["body"] for note in self.request("GET", "/notes")[2]}

    def stop(self, seconds):
        """SIGTERM; it must be gone in time, by that signal."""
        begun = time.monotonic()
        self.process.terminate()
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.test.fail("Puma did not stop in %d s:\n%s" % (seconds, self.text()))
        self.test.assertIn(code, (0, -signal.SIGTERM), self.text())
        self.test.assertNotIn("SIGKILL", self.text())
        return time.monotonic() - begun

    def text(self):
        with open(self.log) as log:
            return log.read()

    def end(self):
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@unittest.skipIf(os.environ.get("REPLICA_TEST_SANITIZED") == "thread",
                 "ThreadSanitizer cannot start threads in the child of a process that has threads, as Puma's workers are")
class RailsTest(harness.TestCase):
    def setUp(self):
        super().setUp()
        os.mkdir(self.path("data"))
        self.database = self.path("data", "production.sqlite3")
        self.queue = self.path("data", "production_queue.sqlite3")

    def bare(self, **more):
        """A production machine on which replication is not configured."""
        return clean_environment(RAILS_ENV="production", SECRET_KEY_BASE="for this test", DATA_DIR=self.path("data"),
                                 LIBREPLICA=LIBRARY, REPLICA_COMMAND=COMMAND, WEB_CONCURRENCY="2", RAILS_MAX_THREADS="4", **more)

    def folder_environment(self, **more):
        return self.bare(REPLICA_CONFIG="config/replica.folder.yml", BACKUP_DIR=self.path("backup"), **more)

    def s3_environment(self):
        S3().make_bucket(BUCKET + "-%d" % os.getpid())
        return self.bare(LITESTREAM_REPLICA_BUCKET=BUCKET + "-%d" % os.getpid(), LITESTREAM_REPLICA_REGION="us-east-1",
                         LITESTREAM_REPLICA_ENDPOINT=S3_ENDPOINT, LITESTREAM_ACCESS_KEY_ID=harness.ACCESS_KEY,
                         LITESTREAM_SECRET_ACCESS_KEY=harness.SECRET_KEY)

    def rake(self, task, environment, code=0):
        done = subprocess.run(["rake", task], cwd=APP, env=environment, capture_output=True, text=True, timeout=120)
        self.assertEqual(done.returncode, code, "rake %s: %s%s" % (task, done.stdout, done.stderr))
        return done.stdout + done.stderr

    def processes(self):
        """Those that this test started, however they were: their environment names its folder."""
        out = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open("/proc/%s/environ" % pid, "rb") as file:
                    if ("DATA_DIR=" + self.path("data")).encode() not in file.read():
                        continue
                with open("/proc/%s/stat" % pid) as file:
                    if file.read().rsplit(")", 1)[1].split()[0] != "Z":
                        out.append(int(pid))
            except OSError:
                pass
        return out

    @staticmethod
    def is_uploader(pid):
        try:
            with open("/proc/%s/cmdline" % pid) as file:
                return "replicate" in file.read().split("\0")
        except OSError:
            return False

    def status(self, environment):
        """What replica status says of both databases, by path."""
        environment = {k: v for k, v in environment.items() if k != "REPLICA_COMMAND"}
        done = subprocess.run([COMMAND, "--json", "status"], cwd=APP, env=environment, capture_output=True, text=True, timeout=60)
        self.assertIn(done.returncode, (0, 1), done.stderr)
        return {entry["database"]: entry for entry in json.loads(done.stdout)["databases"]}

    def post_notes(self, puma, count, kill=True):
        """Posts notes from eight threads; kills a worker when half of them are there. Returns their texts."""
        bodies = ["note %d of %s" % (i, puma.port) for i in range(count)]
        seen = {}
        lock = threading.Lock()

        def post(body):
            worker = puma.post(body)
            with lock:
                seen[worker] = seen.get(worker, 0) + 1
                if kill and sum(seen.values()) == count // 2:
                    os.kill(worker, signal.SIGKILL)

        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            list(pool.map(post, bodies))
        self.assertGreaterEqual(len(seen), 2, "both workers took part: %s" % seen)
        if kill:
            # Puma has started another one.
            self.wait_for(lambda: puma.text().count("booted in") >= 3, 30)
        return set(bodies)

    def assert_stopped_and_acknowledged(self, puma, environment):
        """What was committed is stored when Puma is gone; so says the status, and so does a restore."""
        self.assertLess(puma.stop(40), 30)
        self.assertEqual(self.processes(), [], "nothing is left behind")
        for path, entry in self.status(environment).items():
            self.assertEqual(entry["txid"]["acknowledged"], entry["txid"]["committed"], path)
            self.assertEqual(entry["state"], "off")
        copy = self.path("copy-%d.sqlite3" % puma.port)
        self.rake("replica:restore[%s,latest,%s]" % (self.database, copy), environment)
        rows = harness.connect(copy, extension=False)
        out = {body for body, in rows.execute("SELECT body FROM notes")}
        rows.close()
        return out

    def assert_no_events(self, environment, *kinds):
        environment = {k: v for k, v in environment.items() if k != "REPLICA_COMMAND"}
        done = subprocess.run([COMMAND, "--json", "events", "-n0", self.database, self.queue], cwd=APP, capture_output=True,
                              text=True, timeout=60, env=environment)
        self.assertEqual([e for e in json.loads(done.stdout)["events"] if e["kind"] in kinds], [])

    def run_app(self, environment):
        """A worker killed, verified while it runs and after it stopped, lost, restored, served again."""
        self.rake("db:migrate", environment)
        puma = Puma(self, environment)
        bodies = self.post_notes(puma, NOTES)
        self.assertEqual(puma.notes(), bodies)
        self.assertEqual(self.rake("replica:verify[full]", environment).count("restored and compared page by page"), 2)
        listed = self.rake("replica:databases", environment)
        for path in (self.database, self.queue):
            self.assertRegex(listed, path + r" .* streaming ")
        self.rake("replica:status", environment)
        more = self.post_notes(puma, 50, kill=False)
        self.assertEqual(self.assert_stopped_and_acknowledged(puma, environment), bodies | {b for b in more})
        self.assert_no_events(environment, "resync", "fenced", "error")

        self.assertIn("never overwrites", self.rake("replica:restore[%s]" % self.database, environment, code=1))
        shutil.rmtree(self.path("data"))
        os.mkdir(self.path("data"))
        self.assertIn("no such file", self.rake("replica:databases", environment))
        for path in (self.database, self.queue):
            self.assertIn("restored", self.rake("replica:restore[%s]" % path, environment))
        puma = Puma(self, environment)
        self.assertEqual(puma.notes(), bodies | more)
        self.assertGreaterEqual(puma.request("GET", "/up")[2]["jobs"], NOTES + 50)
        last = puma.post("after the restore")
        self.assertGreater(last, 0)
        self.rake("replica:verify[full]", environment)
        self.assertEqual(self.assert_stopped_and_acknowledged(puma, environment), bodies | more | {"after the restore"})

    def test_folder(self):
        self.run_app(self.folder_environment())

    def test_s3(self):
        self.run_app(self.s3_environment())

    def test_uploader_process(self):
        environment = self.folder_environment(REPLICA_UPLOADER="process")
        self.rake("db:migrate", environment)
        puma = Puma(self, environment)
        bodies = self.post_notes(puma, 60)
        self.wait_for(lambda: all(self.is_uploader(entry["leader_pid"]) for entry in self.status(environment).values()))
        self.rake("replica:verify[full]", environment)
        self.assertEqual(self.assert_stopped_and_acknowledged(puma, environment), bodies)
        self.assert_no_events(environment, "resync", "fenced", "error")

    def kill_everything(self, environment):
        """The machine's power goes: nothing is left running, the next boot stores the rest, and nothing is lost."""
        self.rake("db:migrate", environment)
        puma = Puma(self, environment)
        bodies = self.post_notes(puma, 40, kill=False)
        puma.end()
        self.wait_for(lambda: self.processes() == [], 30)
        puma = Puma(self, environment)
        self.assertEqual(puma.notes(), bodies)
        self.rake("replica:verify[full]", environment)
        self.assertEqual(self.assert_stopped_and_acknowledged(puma, environment), bodies)

    def test_everything_killed(self):
        self.kill_everything(self.folder_environment())

    def test_everything_killed_with_an_uploader_process(self):
        self.kill_everything(self.folder_environment(REPLICA_UPLOADER="process"))

    def test_production_without_settings_does_not_boot(self):
        def boot(environment):
            done = subprocess.run(["puma", "-C", "config/puma.rb"], cwd=APP, capture_output=True, text=True, timeout=60,
                                  env=dict(environment, BIND="tcp://127.0.0.1:%d" % free_port()))
            self.assertNotEqual(done.returncode, 0)
            return done.stdout + done.stderr

        out = boot(self.bare())
        for name in ("LITESTREAM_REPLICA_BUCKET", "LITESTREAM_ACCESS_KEY_ID", "LITESTREAM_SECRET_ACCESS_KEY", "replica.yml:"):
            self.assertIn(name, out)
        out = boot(self.bare(LITESTREAM_REPLICA_BUCKET="b", LITESTREAM_ACCESS_KEY_ID="k"))
        self.assertIn("LITESTREAM_SECRET_ACCESS_KEY", out)
        self.assertNotIn("LITESTREAM_REPLICA_BUCKET", out)
        self.assertIn("libreplica.so", boot(dict(self.folder_environment(), LIBREPLICA=self.path("libreplica.so"))))
        self.assertIn("LITESTREAM_REPLICA_BUCKET", self.rake("db:migrate", self.bare(), code=1))
        self.assertFalse(os.path.exists(self.database), "nothing was written")
        # A build step, which writes nothing, may go without.
        self.rake("environment", self.bare(REPLICA_REQUIRED="0"))

    def test_tasks_fail_with_the_command(self):
        nowhere = dict(self.folder_environment(), REPLICA_COMMAND="/no/command")
        self.assertIn("cannot be run", self.rake("replica:verify", nowhere, 1))
        self.assertIn("usage", self.rake("replica:restore", self.folder_environment(), 1))
        self.rake("replica:status", self.folder_environment(), 1)
        self.rake("replica:verify[deep]", self.folder_environment(), 1)
        self.rake("replica:restore[%s]" % self.database, self.folder_environment(), 1)


if __name__ == "__main__":
    harness.main()

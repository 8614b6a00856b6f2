"""A store that fails for a while: one request probes it for all databases, and all go on when it answers again."""
import json
import os
import subprocess
import sys
import threading
import time

import harness
from harness import clean_environment, connect, one, status, sync

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "power"))
import fake_s3  # noqa: E402

DATABASES = 8


class Outage(harness.TestCase):
    def setUp(self):
        super().setUp()
        self.store = fake_s3.FakeS3(self.path("down"))
        self.addCleanup(self.store.close)
        self.lock = threading.Lock()
        self.requests = []   # (time, method, target, whether it failed)
        self.failure = None  # what every request is answered with
        self.refuses = lambda target: self.failure
        self.store.fail = self.answer
        self.options = {"endpoint": self.store.endpoint, "access_key_id": "a", "secret_access_key": "b",
                        "sync_interval_ms": 50}

    def answer(self, method, target):
        with self.lock:
            failure = self.refuses(target)
            self.requests.append((time.monotonic(), method, target, failure is not None))
        return failure

    def fail(self, failure):
        with self.lock:
            self.failure = failure

    def since(self, moment):
        with self.lock:
            return [r for r in self.requests if r[0] >= moment]

    def attach(self, name, url=None):
        db = connect(self.path(name + ".db"), check_same_thread=False)
        self.addCleanup(db.close)
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("CREATE TABLE t(a)")
        url = url or "s3://%s/%s" % (fake_s3.BUCKET, name)
        one(db, "SELECT replica_attach(?, ?)", url, json.dumps(self.options))
        return db

    def make(self, count=DATABASES):
        out = [self.attach("db%d" % i) for i in range(count)]
        for db in out:
            sync(db)
        return out

    @staticmethod
    def waits(db):
        txid = status(db)["txid"]
        return txid["acknowledged"] != txid["captured"] or status(db)["state"] != "streaming"

    def events(self, i):
        with open(self.path("db%d.db-replica/events" % i)) as file:
            return [json.loads(line) for line in file]

    def outage(self, dbs, failure, seconds):
        """The requests of an outage, and how long after the first good answer the last database was done."""
        begin = time.monotonic()
        self.fail(failure)
        for db in dbs:
            db.execute("INSERT INTO t VALUES(1)")
        while time.monotonic() < begin + seconds:
            time.sleep(0.1)  # a slow writer
            dbs[0].execute("INSERT INTO t VALUES(2)")
        self.assertTrue(all(self.waits(db) for db in dbs))
        self.fail(None)
        back = time.monotonic()
        self.wait_for(lambda: not any(self.waits(db) for db in dbs), 200)
        end = time.monotonic()
        first = next(r[0] for r in self.since(back) if not r[3])
        during = [r for r in self.since(begin) if r[3]]
        return during, first - back, end - first

    def test_all_go_on_soon_after_the_first_success(self):
        """16 s after the store was back, databases were still `behind`."""
        dbs = self.make()
        during, probe, after = self.outage(dbs, (503, "SlowDown", {}), 20)
        self.assertLess(probe, 2.3, "a probe is at most 2 s away")
        self.assertLess(after, 2)
        # One request may be under way for each when it begins. After that one probes for all.
        late = [r for r in during if r[0] > during[0][0] + 0.2]
        self.assertLess(len(late), 40, late)
        self.assertGreater(len(late), 8)
        gaps = [b[0] - a[0] for a, b in zip(late, late[1:])]
        self.assertLess(max(gaps), 2.3)
        # An outage that lasts is told, once, by each database.
        kinds = [e["kind"] for e in self.events(0)]
        self.assertEqual((kinds.count("error"), kinds.count("recovered")), (1, 1), self.events(0))

    def test_a_host_that_is_not_there(self):
        dbs = self.make()
        address = self.store.server.server_address
        self.fail("drop")  # connections that are open; further ones are refused
        self.store.server.shutdown()
        self.store.server.server_close()
        for db in dbs:
            db.execute("INSERT INTO t VALUES(1)")
        self.wait_for(lambda: all(status(db)["state"] == "behind" for db in dbs))
        self.assertIn("no answer", status(dbs[-1])["last_error"])
        time.sleep(8)  # how long the outage lasts
        self.fail(None)
        back = time.monotonic()
        server = fake_s3.socketserver.ThreadingTCPServer(address, fake_s3._Connection, bind_and_activate=False)
        server.allow_reuse_address = server.daemon_threads = True
        server.store = self.store
        server.server_bind()
        server.server_activate()
        self.store.server = server
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        self.wait_for(lambda: not any(self.waits(db) for db in dbs))
        self.assertLess(time.monotonic() - back, 4)

    def test_retry_after_is_obeyed(self):
        dbs = self.make(4)
        begin = time.monotonic()
        self.fail((503, "SlowDown", {"Retry-After": "6"}))
        dbs[0].execute("INSERT INTO t VALUES(1)")
        self.wait_for(lambda: any(r[3] for r in self.since(begin)))
        first = time.monotonic()
        self.fail(None)
        for db in dbs:
            db.execute("INSERT INTO t VALUES(1)")
        self.wait_for(lambda: not any(self.waits(db) for db in dbs))
        later = [r for r in self.since(begin) if not r[3]]
        self.assertGreater(later[0][0] - first, 5.5)
        self.assertLess(later[0][0] - first, 8)
        self.assertLess(time.monotonic() - later[0][0], 2)

    def test_an_error_of_one_database_does_not_hold_the_others_up(self):
        """403 for one: it keeps a delay of its own, and is told; the others do not notice."""
        dbs = self.make(3)
        self.refuses = lambda target: (403, "AccessDenied", {}) if "/db0/" in target else None
        begin = time.monotonic()
        dbs[0].execute("INSERT INTO t VALUES(1)")
        self.wait_for(lambda: status(dbs[0])["state"] == "error")
        for _ in range(20):
            for db in dbs[1:]:
                db.execute("INSERT INTO t VALUES(1)")
                sync(db, timeout_ms=1500)
            time.sleep(0.2)
        refused = [r for r in self.since(begin) if r[3]]
        self.assertLess(len(refused), 15, "each is followed by a longer wait")

    def test_a_store_that_fails_for_one_prefix_only(self):
        """503 for one database, which Amazon does for a busy prefix."""
        dbs = self.make(3)
        self.refuses = lambda target: (503, "SlowDown", {}) if "/db0/" in target else None
        begin = time.monotonic()
        dbs[0].execute("INSERT INTO t VALUES(1)")
        slowest = 0
        while time.monotonic() < begin + 8:
            for db in dbs[1:]:
                db.execute("INSERT INTO t VALUES(1)")
                asked = time.monotonic()
                sync(db, timeout_ms=10000)
                slowest = max(slowest, time.monotonic() - asked)
        self.assertLess(slowest, 2)
        self.assertLess(len([r for r in self.since(begin) if r[3]]), 40)
        self.refuses = lambda target: None
        self.wait_for(lambda: not self.waits(dbs[0]), 3)

    def test_regression_a_store_that_fails_now_and_then_leaves_no_events(self):
        """A pair of lines for each 503."""
        dbs = self.make(2)
        before = self.events(0)
        count = [0]

        def refuses(target):
            count[0] += 1
            return (503, "SlowDown", {}) if count[0] % 3 == 0 else None
        self.refuses = refuses
        for _ in range(20):
            dbs[0].execute("INSERT INTO t VALUES(1)")
            sync(dbs[0])
        self.assertGreater(status(dbs[0])["put_errors"], 4)
        self.assertEqual(self.events(0), before)

    def test_visits_during_an_outage_tell_it_once(self):
        self.make(1)[0].close()
        self.fail((503, "SlowDown", {}))
        os.environ["REPLICA_SHUTDOWN_TIMEOUT"] = "500ms"
        self.addCleanup(os.environ.pop, "REPLICA_SHUTDOWN_TIMEOUT")
        script = ("import sys\nsys.path.insert(0, %r)\nfrom harness import connect, one\ndb = connect(%r)\n"
                  "one(db, 'SELECT replica_attach(?, ?)', %r, %r)\ndb.execute('INSERT INTO t VALUES(1)')\ndb.close()\n") % (
                      os.path.dirname(os.path.abspath(__file__)), self.path("db0.db"), "s3://%s/db0" % fake_s3.BUCKET,
                      json.dumps(self.options))
        for _ in range(5):
            subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
        self.assertEqual([e["kind"] for e in self.events(0)].count("error"), 1, self.events(0))
        self.fail(None)
        subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
        self.assertEqual([e["kind"] for e in self.events(0)][-2:], ["error", "recovered"], self.events(0))

    def test_attaches_during_an_outage_take_turns(self):
        self.fail((503, "SlowDown", {}))
        dbs = [self.attach("new%d" % i) for i in range(6)]
        time.sleep(1)
        begin = time.monotonic()
        time.sleep(8)  # how long the outage lasts
        probes = self.since(begin)
        self.assertLess(len(probes), 14, probes)
        self.assertGreater(len(probes), 3)
        self.fail(None)
        back = time.monotonic()
        self.wait_for(lambda: all(status(db)["txid"].get("acknowledged") for db in dbs))
        self.assertLess(time.monotonic() - back, 5)

    def test_another_process_goes_on_too(self):
        """Each process probes by itself, so both go on."""
        dbs = self.make(1)
        script = ("import sys, time\nsys.path.insert(0, %r)\nfrom harness import connect, one, sync\n"
                  "db = connect(%r)\ndb.execute('PRAGMA journal_mode=WAL')\ndb.execute('CREATE TABLE t(a)')\n"
                  "one(db, 'SELECT replica_attach(?, ?)', %r, %r)\nsync(db)\nprint('ready', flush=True)\ninput()\n"
                  "db.execute('INSERT INTO t VALUES(1)')\nprint('committed', flush=True)\nsync(db)\n"
                  "print('done', flush=True)\ninput()\n") % (
                      os.path.dirname(os.path.abspath(__file__)), self.path("other.db"),
                      "s3://%s/other" % fake_s3.BUCKET, json.dumps(self.options))
        other = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                 env=clean_environment())
        self.addCleanup(lambda: (other.stdin.close(), other.stdout.close(), other.wait()))
        self.assertEqual(other.stdout.readline().strip(), "ready")
        self.fail((503, "SlowDown", {}))
        other.stdin.write("\n")
        other.stdin.flush()
        self.assertEqual(other.stdout.readline().strip(), "committed")
        dbs[0].execute("INSERT INTO t VALUES(1)")
        time.sleep(10)
        self.fail(None)
        back = time.monotonic()
        sync(dbs[0])
        self.assertEqual(other.stdout.readline().strip(), "done")
        self.assertLess(time.monotonic() - back, 4)
        other.stdin.write("\n")
        other.stdin.flush()

    def test_a_folder_that_cannot_be_reached(self):
        dbs = [self.attach("file%d" % i, "file://%s/%d" % (self.path("mount"), i)) for i in range(4)]
        for db in dbs:
            sync(db)
        os.rename(self.path("mount"), self.path("away"))
        with open(self.path("mount"), "w"):
            pass  # ENOTDIR, as any user can have it
        for db in dbs:
            db.execute("INSERT INTO t VALUES(1)")
        self.wait_for(lambda: all(status(db)["state"] == "behind" for db in dbs))
        time.sleep(12)
        os.remove(self.path("mount"))
        os.rename(self.path("away"), self.path("mount"))
        back = time.monotonic()
        self.wait_for(lambda: not any(self.waits(db) for db in dbs))
        self.assertLess(time.monotonic() - back, 4)


if __name__ == "__main__":
    harness.main()

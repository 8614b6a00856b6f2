"""Bad input and bad weather: each one a clear error (what, where, what to do), and nothing lost or half-written."""
import glob
import http.client
import os
import shutil
import socket
import sqlite3
import ssl
import subprocess
import sys
import time

import harness
from harness import S3, S3_ENDPOINT, ask, connect, image, one, restore, status, sync

BUCKET = "bad-input"
os.environ["REPLICA_SHUTDOWN_TIMEOUT"] = "1s"  # stores that do not answer are closed many times here
KEYS = '"access_key_id": "%s", "secret_access_key": "%s"' % (harness.ACCESS_KEY, harness.SECRET_KEY)


class FileReplica(harness.TestCase):
    def make(self, commits=3):
        db = connect(self.path("app.db"))
        one(db, "SELECT replica_attach(?, '{\"sync_interval_ms\": 0}')", self.url())
        sync(db)
        db.execute("CREATE TABLE t(x)")
        sync(db)
        for i in range(commits):
            db.execute("INSERT INTO t VALUES (?)", (i,))
            sync(db)
        return db

    def assert_fails(self, pattern, sql, *arguments, connection=None):
        with self.assertRaisesRegex(sqlite3.OperationalError, pattern):
            (connection or connect(":memory:")).execute(sql, arguments).fetchall()

    def log(self):
        return sorted(glob.glob(self.path("replica/*/log/*")))

    def test_wrong_urls_and_options(self):
        db = connect(self.path("a.db"))
        self.assert_fails("give file:///folder or s3://bucket/prefix", "SELECT replica_attach('ftp://x')", connection=db)
        self.assert_fails("absolute path", "SELECT replica_attach('file://x')", connection=db)
        self.assert_fails("bucket and prefix", "SELECT replica_attach('s3:///x')", connection=db)
        self.assert_fails("no option \"regoin\"", "SELECT replica_attach(?, '{\"regoin\": 1}')", self.url(), connection=db)
        self.assert_fails("no JSON object", "SELECT replica_attach(?, 'x')", self.url(), connection=db)
        self.assert_fails("missing credentials", "SELECT replica_attach('s3://b/p')", connection=db)
        self.assert_fails("no database \"nope\"", "SELECT replica_status('nope')", connection=db)
        self.assert_fails("in memory", "SELECT replica_attach(?)", self.url(), connection=connect(":memory:"))
        self.assert_fails("not replicated", "SELECT replica_sync()", connection=db)
        self.assert_fails("not replicated", "SELECT replica_verify()", connection=db)
        self.assertFalse(os.path.exists(self.path("replica")))

    def test_functions_are_direct_only(self):
        db = connect(self.path("a.db"))
        db.execute("CREATE VIEW v AS SELECT replica_detach()")
        self.assert_fails("unsafe use", "SELECT * FROM v", connection=db)

    def test_exclusive_locking_is_refused(self):
        db = connect(self.path("a.db"))
        db.execute("PRAGMA locking_mode=EXCLUSIVE")
        db.execute("CREATE TABLE t(x)")
        self.assert_fails("EXCLUSIVE locking mode", "SELECT replica_attach(?)", self.url(), connection=db)

    def test_Invariant_OneWriter_two_databases_begin_at_the_same_url(self):
        """Both find it empty; one of them begins there, the other is refused and says who was first."""
        code = """
import sys
sys.path.insert(0, %r)
from harness import *
db = connect(sys.argv[1])
sys.stdin.readline()
one(db, "SELECT replica_attach(?, '{\\"sync_interval_ms\\": 0}')", sys.argv[2])
db.execute("CREATE TABLE t(x)")
try:
    sync(db, timeout_ms=3000)
    print("ok", flush=True)
except sqlite3.OperationalError as error:
    print(error, flush=True)
sys.stdin.readline()
""" % os.path.dirname(os.path.abspath(__file__))
        for i in range(3):
            url = self.url("shared%d" % i)
            running = [subprocess.Popen([sys.executable, "-c", code, self.path("%s%d.db" % (name, i)), url],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for name in "ab"]
            for process in running:
                process.stdin.write("go\n")
                process.stdin.flush()
            answers = sorted(process.stdout.readline().strip() for process in running)
            for process in running:
                process.communicate("end\n", timeout=60)
            self.assertEqual(answers.count("ok"), 1, answers)
            self.assertRegex(answers[0], r"claimed by another database \(.*%d\.db on |holds the history of another" % i)
            self.assertEqual(len(self.generations("shared%d" % i)), 1)

    def test_restore_targets(self):
        db = self.make()
        out = self.path("out.db")
        self.assert_fails("not in the history: it ends at TXID", "SELECT replica_restore(?, ?, 999)", self.url(), out)
        self.assert_fails("no restore target", "SELECT replica_restore(?, ?, 'yesterday')", self.url(), out)
        self.assert_fails("nothing is restorable", "SELECT replica_restore(?, ?, '2001-01-01T00:00:00Z')", self.url(), out)
        self.assert_fails("no replica here", "SELECT replica_restore(?, ?)", self.url("nowhere"), out)
        self.assert_fails("TXIDs count from 1", "SELECT replica_restore(?, ?, 0)", self.url(), out)
        self.assertEqual(glob.glob(out + "*"), [])
        for suffix in ("", "-wal", "-journal"):
            with open(out + suffix, "w") as file:
                file.write("precious")
            self.assert_fails("exists: a restore never overwrites", "SELECT replica_restore(?, ?)", self.url(), out)
            with open(out + suffix) as file:
                self.assertEqual(file.read(), "precious")
            os.remove(out + suffix)
        self.assert_fails("folder .*no/such/folder does not exist", "SELECT replica_restore(?, ?)", self.url(), self.path("no/such/folder/x.db"))
        db.close()

    def test_Invariant_NoSilentGap_damaged_objects(self):
        self.make().close()
        out = self.path("out.db")
        log = self.log()
        victim = log[2]
        with open(victim, "rb") as file:
            good = file.read()
        for name, bad in (("truncated", good[:-1]), ("cut", good[:50]), ("empty", b""),
                          ("flipped", good[:100] + bytes([good[100] ^ 1]) + good[101:]), ("foreign", b"x" * len(good))):
            with self.subTest(name):
                with open(victim, "wb") as file:
                    file.write(bad)
                self.assert_fails(os.path.basename(victim), "SELECT replica_restore(?, ?)", self.url(), out)
                self.assertEqual(glob.glob(out + "*"), [])
        with open(log[1], "rb") as file:
            wrong = file.read()
        with open(victim, "wb") as file:
            file.write(wrong)
        self.assert_fails("does not belong here", "SELECT replica_restore(?, ?)", self.url(), out)
        os.remove(victim)
        self.assert_fails("is missing: the log has a hole", "SELECT replica_restore(?, ?)", self.url(), out)
        # What is before the hole is restorable when asked for by name.
        restore(self.url(), out, 3)
        db = connect(self.path("app.db"))
        one(db, "SELECT replica_attach(?)", self.url())
        report = ask(db, "SELECT replica_verify('main', 'objects')")
        self.assertFalse(report["ok"])
        self.assertIn("hole", report["errors"][0])
        report = ask(db, "SELECT replica_verify('main', 'full')")
        self.assertFalse(report["ok"])

    def test_damaged_snapshot(self):
        self.make().close()
        victim = glob.glob(self.path("replica/*/snapshot/*"))[0]
        with open(victim, "r+b") as file:
            file.seek(200)
            file.write(b"\xff\xff\xff\xff")
        self.assert_fails("snapshot/0000000000000001: damaged", "SELECT replica_restore(?, ?)", self.url(), self.path("o.db"))

    def test_replica_of_another_database_is_left_alone(self):
        self.make().close()
        before = sorted(glob.glob(self.path("replica/**/*"), recursive=True))
        other = connect(self.path("other.db"))
        other.execute("PRAGMA journal_mode=WAL")
        other.execute("CREATE TABLE o(x)")
        one(other, "SELECT replica_attach(?)", self.url())
        self.assert_fails("history of another database", "SELECT replica_sync('main', 5000)", connection=other)
        self.assertEqual(status(other)["state"], "error")
        self.assertIn("takeover", status(other)["last_error"])
        self.assertEqual(sorted(glob.glob(self.path("replica/**/*"), recursive=True)), before)
        one(other, "SELECT replica_attach(?, '{\"takeover\": true}')", self.url())
        sync(other)
        self.assert_restores(self.url(), "latest", image(other), 4096)

    def test_Invariant_OneWriter_second_machine_is_fenced(self):
        db = self.make()
        db.close()
        restore(self.url(), self.path("second.db"))
        db = connect(self.path("app.db"))
        one(db, "SELECT replica_attach(?)", self.url())
        second = connect(self.path("second.db"))
        one(second, "SELECT replica_attach(?, '{\"takeover\": true}')", self.url())
        sync(second)
        second.execute("INSERT INTO t VALUES ('second')")
        sync(second)
        db.execute("INSERT INTO t VALUES ('first')")
        self.assert_fails("another writer", "SELECT replica_sync()", connection=db)
        self.assertEqual(status(db)["state"], "fenced")
        second.execute("INSERT INTO t VALUES ('goes on')")
        sync(second)
        self.assert_restores(self.url(), "latest", image(second), 4096)
        # Taking it back fences the other one.
        one(db, "SELECT replica_attach(?, '{\"takeover\": true}')", self.url())
        sync(db)
        self.assert_restores(self.url(), "latest", image(db), 4096)
        second.execute("INSERT INTO t VALUES ('too late')")
        self.assert_fails("another writer", "SELECT replica_sync()", connection=second)

    def test_store_without_permission_and_full(self):
        if os.geteuid() == 0:
            # Root may write anywhere but not below a file.
            with open(self.path("replica"), "w"):
                pass
            pattern = "replica"
        else:
            os.mkdir(self.path("replica"), 0o500)
            pattern = "Permission denied"
        db = connect(self.path("app.db"))
        one(db, "SELECT replica_attach(?)", self.url())
        db.execute("CREATE TABLE t(x)")
        self.assert_fails(pattern, "SELECT replica_sync('main', 3000)", connection=db)
        self.assertIsNotNone(status(db)["error_since"])
        os.remove(self.path("replica")) if os.geteuid() == 0 else os.rmdir(self.path("replica"))
        sync(db)
        self.assertIsNone(status(db)["last_error"])
        self.assert_restores(self.url(), "latest", image(db), 4096)

    def test_Invariant_NeverInTheWay_spool_bound_is_healed(self):
        db = connect(self.path("app.db"))
        one(db, "SELECT replica_attach(?, '{\"sync_interval_ms\": 0, \"spool_limit_bytes\": 400000}')", self.url())
        db.execute("CREATE TABLE t(x)")
        db.execute("PRAGMA wal_autocheckpoint=50")
        sync(db)
        db.execute("INSERT INTO t VALUES ('in the log')")
        sync(db)
        generation = os.path.join(self.path("replica"), status(db)["generation"])
        os.rename(generation + "/log", generation + "/away")
        with open(generation + "/log", "w"):
            pass
        for _ in range(400):
            db.execute("INSERT INTO t VALUES (randomblob(5000))")
        self.assertLess(os.path.getsize(self.path("app.db-wal")), 4000000)
        os.remove(generation + "/log")
        os.rename(generation + "/away", generation + "/log")
        sync(db)
        self.assertEqual(len(self.generations()), 1, "healed by difference, not by a new generation")
        self.assert_restores(self.url(), "latest", image(db), 4096)
        report = ask(db, "SELECT replica_verify('main', 'full')")
        self.assertTrue(report["ok"], report)


class S3Replica(harness.TestCase):
    @classmethod
    def setUpClass(cls):
        S3().make_bucket(BUCKET)

    def attach(self, url, options, name="app.db"):
        db = connect(self.path(name))
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("CREATE TABLE IF NOT EXISTS t(x)")
        one(db, "SELECT replica_attach(?, ?)", url, "{" + options + "}")
        return db

    def assert_trouble(self, db, pattern, timeout_ms=6000):
        with self.assertRaisesRegex(sqlite3.OperationalError, pattern):
            sync(db, timeout_ms=timeout_ms)
        self.assertRegex(status(db)["last_error"], pattern)
        self.assertNotIn(harness.SECRET_KEY, str(status(db)))
        started = time.monotonic()
        db.execute("INSERT INTO t VALUES (1)")
        self.assertLess(time.monotonic() - started, 5, "commits go on")
        one(db, "SELECT replica_detach()")
        db.close()

    def url(self, name="replica"):
        return "s3://%s/%s/%s" % (BUCKET, os.path.basename(self.folder), name)

    def test_wrong_key_and_wrong_secret(self):
        end = '"endpoint": "%s"' % S3_ENDPOINT
        db = self.attach(self.url(), end + ', "access_key_id": "nobody", "secret_access_key": "x"')
        self.assert_trouble(db, "does not know this access key id")
        db = self.attach(self.url(), end + ', "access_key_id": "%s", "secret_access_key": "wrong"' % harness.ACCESS_KEY)
        self.assert_trouble(db, "secret key does not belong")

    def test_no_bucket(self):
        db = self.attach("s3://no-such-bucket/x", '"endpoint": "%s", %s' % (S3_ENDPOINT, KEYS))
        self.assert_trouble(db, "there is no bucket \"no-such-bucket\"")

    def test_endpoint_that_does_not_answer(self):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        db = self.attach(self.url(), '"endpoint": "http://127.0.0.1:%d", %s' % (port, KEYS))
        db.execute("INSERT INTO t VALUES (1)")
        self.wait_for(lambda: status(db)["last_error"])
        # Nobody knows what the store has, so nobody may say 0.
        self.assertEqual(status(db)["lag"], {"txids": None, "bytes": 0, "seconds": None})
        self.assertIsNone(status(db)["txid"]["committed"])
        self.assert_trouble(db, "no answer from http://127.0.0.1:%d" % port, 1500)

    def test_wrong_region(self):
        xml = (b"<Error><Code>AuthorizationHeaderMalformed</Code><Message>the region is wrong</Message>"
               b"<Region>eu-west-3</Region></Error>")
        endpoint = self.serve(lambda request: request.say(400, xml))
        db = self.attach(self.url(), '"endpoint": "%s", %s' % (endpoint, KEYS))
        self.assert_trouble(db, "another region than \"us-east-1\", in \"eu-west-3\": set REPLICA_REGION")

    def test_not_an_s3_server(self):
        endpoint = self.serve(lambda request: request.say(200, b"<html>hello</html>"))
        db = self.attach(self.url(), '"endpoint": "%s", %s' % (endpoint, KEYS))
        self.assert_trouble(db, "the answer is not S3's; check REPLICA_ENDPOINT")

    @staticmethod
    def take_everything(request):
        listing = b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>"
        request.say(200, listing if request.command == "GET" else b"")

    def test_store_that_ignores_conditional_puts_is_refused(self):
        endpoint = self.serve(self.take_everything)
        db = self.attach(self.url(), '"endpoint": "%s", %s' % (endpoint, KEYS))
        self.assert_trouble(db, "ignores If-None-Match")

    @staticmethod
    def forward(request):
        """What the real server answers: status, body, headers."""
        real = http.client.HTTPConnection(S3_ENDPOINT.split("://")[1], timeout=30)
        real.request(request.command, request.path, request.body, dict(request.headers))
        reply = real.getresponse()
        data = reply.read()
        real.close()
        return reply.status, data, {name: value for name, value in reply.getheaders()
                                    if name not in ("Connection", "Date", "Transfer-Encoding")}

    def work_through(self, endpoint, commits):
        db = self.attach(self.url(), '"endpoint": "%s", "sync_interval_ms": 0, %s' % (endpoint, KEYS))
        sync(db)
        for i in range(commits):
            db.execute("INSERT INTO t VALUES (randomblob(20000))")
            sync(db)
        expected = image(db)
        db.close()
        return expected

    def test_slow_down_is_tried_again(self):
        requests = []

        def answer(request):
            requests.append(request.path)
            if len(requests) % 2 == 0:
                return request.say(503, b"<Error><Code>SlowDown</Code></Error>")
            request.say(*self.forward(request))
        expected = self.work_through(self.serve(answer), 5)
        self.assertGreater(len(requests), 10)
        self.assert_restores(self.url(), "latest", expected, 4096, harness.s3_environment())

    def test_answer_that_is_lost_is_no_rival(self):
        """A PUT that is stored but whose answer never comes: the retry meets its own object."""
        lost = []

        def answer(request):
            reply = self.forward(request)
            if request.command != "PUT" or "/log/" not in request.path or request.path in lost:
                return request.say(*reply)
            lost.append(request.path)
            request.connection.shutdown(socket.SHUT_RDWR)
        expected = self.work_through(self.serve(answer), 4)
        self.assertGreaterEqual(len(lost), 4)
        self.assert_restores(self.url(), "latest", expected, 4096, harness.s3_environment())

    def test_bodies_that_are_cut_or_drip(self):
        """A restore through answers that end too early, once each, and others that come in small pieces."""
        cut = []

        def answer(request):
            code, data, headers = self.forward(request)
            if request.command != "GET" or len(data) < 300 or "Content-Length" not in headers:
                return request.say(code, data, headers)
            if request.path not in cut:
                cut.append(request.path)
                return request.say(code, data[:len(data) // 2], headers)
            request.say(code, b"", headers)
            for at in range(0, len(data), 4096):
                request.wfile.write(data[at:at + 4096])
                time.sleep(0.01)
        expected = self.work_through(S3_ENDPOINT, 4)
        endpoint = self.serve(answer)
        self.assert_restores(self.url(), "latest", expected, 4096, harness.s3_environment(REPLICA_ENDPOINT=endpoint))
        self.assertTrue(cut)

    def test_the_region_is_learned_from_the_first_refusal(self):
        """As Amazon does with a bucket in another region than the request was signed for; the rest is the real server."""
        scopes = []

        def answer(request):
            scopes.append(request.headers["Authorization"].split("/")[2])
            if scopes[-1] != "eu-south-1":
                return request.say(301, b"<Error><Code>PermanentRedirect</Code></Error>", {"x-amz-bucket-region": "eu-south-1"})
            request.say(*self.forward(request))
        endpoint = self.serve(answer)
        db = self.attach(self.url(), '"endpoint": "%s", "sync_interval_ms": 0, %s' % (endpoint, KEYS))
        for i in range(3):
            db.execute("INSERT INTO t VALUES (?)", (i,))
            sync(db)
        self.assertEqual(scopes.count("us-east-1"), 1, "asked once")
        db = self.attach(self.url(), '"endpoint": "%s", "region": "us-east-1", %s' % (endpoint, KEYS))
        db.execute("INSERT INTO t VALUES ('waits')")
        self.assert_trouble(db, "in \"eu-south-1\": set REPLICA_REGION")

    def test_certificate_that_does_not_verify_and_private_ca(self):
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
                        "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", self.path("key.pem"), "-out",
                        self.path("cert.pem")], check=True, capture_output=True)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.path("cert.pem"), self.path("key.pem"))
        endpoint = self.serve(self.take_everything, context)
        db = self.attach(self.url(), '"endpoint": "%s", %s' % (endpoint, KEYS))
        self.assert_trouble(db, "certificate of https://127.0.0.1:.* does not verify.*REPLICA_CA_FILE")
        # With the CA the certificate is accepted; the fake store then fails for another reason.
        db = self.attach(self.url(), '"endpoint": "%s", "ca_file": "%s", %s' % (endpoint, self.path("cert.pem"), KEYS))
        self.assert_trouble(db, "ignores If-None-Match")

    def test_damaged_and_missing_objects_in_s3(self):
        s3 = S3()
        db = self.attach(self.url(), '"endpoint": "%s", "sync_interval_ms": 0, %s' % (S3_ENDPOINT, KEYS))
        sync(db)
        for i in range(3):
            db.execute("INSERT INTO t VALUES (?)", (i,))
            sync(db)
        db.close()
        prefix = self.url().split("/", 3)[3]
        log = [k for k in s3.keys(BUCKET, prefix + "/") if "/log/" in k]
        good = s3.get(BUCKET, log[1])
        environment = harness.s3_environment()
        s3.put(BUCKET, log[1], good[:-10])
        with self.assertRaisesRegex(RuntimeError, os.path.basename(log[1])):
            restore(self.url(), self.path("o.db"), environment=environment)
        s3.delete(BUCKET, log[1])
        with self.assertRaisesRegex(RuntimeError, "is missing: the log has a hole"):
            restore(self.url(), self.path("o.db"), environment=environment)
        self.assertEqual(glob.glob(self.path("o.db*")), [])


if __name__ == "__main__":
    harness.main()

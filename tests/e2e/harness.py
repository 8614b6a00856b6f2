"""What the end-to-end tests share: connections with the extension loaded, a database's exact pages, S3 by hand.

Only Python's standard library. The library under test is the built libreplica.so (LIBREPLICA, set by ctest).
"""
import ctypes
import datetime
import hashlib
import hmac
import http.client
import http.server
import json
import os
import shutil
import sqlite3
import struct
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import urllib.parse

LIBRARY = os.environ["LIBREPLICA"]
S3_ENDPOINT = os.environ.get("REPLICA_TEST_S3", "http://127.0.0.1:7480")
ACCESS_KEY = "testaccesskey000000"
SECRET_KEY = "testsecretkey0000000000000000000000000000"


COMMAND = os.path.join(os.environ.get("REPLICA_TEST_BUILD", os.path.dirname(LIBRARY)), "replica")


def load(connection):
    connection.enable_load_extension(True)
    connection.load_extension(LIBRARY)
    return connection


def connect(path, extension=True, **arguments):
    """A connection in autocommit mode, with the extension loaded."""
    connection = sqlite3.connect(path, isolation_level=None, timeout=30, **arguments)
    return load(connection) if extension else connection


def one(connection, sql, *arguments):
    return connection.execute(sql, arguments).fetchone()[0]


def ask(connection, sql, *arguments):
    """The JSON that a function answers."""
    return json.loads(one(connection, sql, *arguments))


def sync(connection, schema="main", timeout_ms=60000):
    return one(connection, "SELECT replica_sync(?, ?)", schema, timeout_ms)


def status(connection, schema="main"):
    return ask(connection, "SELECT replica_status(?)", schema)


def image(connection, schema="main"):
    """The database as this connection sees it, page by page."""
    return connection.serialize(name=schema)


def digest(data):
    return hashlib.sha256(data).hexdigest()


def restore(url, path, target="latest", environment=None):
    """Restores in a process of its own, as an operator would; returns the report."""
    done = subprocess.run(
        ["sqlite3", ":memory:", "-cmd", ".load " + LIBRARY[:-3],
         "SELECT replica_restore('%s', '%s', '%s')" % (url, path, target)],
        capture_output=True, text=True, env=environment, timeout=300)
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip())
    return json.loads(done.stdout)


def check_file(path):
    """PRAGMA integrity_check on a plain connection."""
    connection = sqlite3.connect(path)
    try:
        return connection.execute("PRAGMA integrity_check").fetchone()[0]
    finally:
        connection.close()


def first_difference(a, b, page_size):
    if len(a) != len(b):
        return "%d and %d bytes" % (len(a), len(b))
    for at in range(0, len(a), page_size):
        if a[at:at + page_size] != b[at:at + page_size]:
            return "page %d" % (at // page_size + 1)
    return ""


class S3:
    """As much of S3 as the tests need, signed by hand so that it shares nothing with the library."""

    def __init__(self, endpoint=S3_ENDPOINT):
        self.host = endpoint.split("://")[1]

    def request(self, method, path, body=b"", query="", service="s3"):
        now = datetime.datetime.utcnow()
        stamp, day = now.strftime("%Y%m%dT%H%M%SZ"), now.strftime("%Y%m%d")
        payload = hashlib.sha256(body).hexdigest()
        canonical = "\n".join([method, urllib.parse.quote(path), query, "host:" + self.host,
                               "x-amz-content-sha256:" + payload, "x-amz-date:" + stamp, "",
                               "host;x-amz-content-sha256;x-amz-date", payload])
        scope = "%s/us-east-1/%s/aws4_request" % (day, service)
        text = "\n".join(["AWS4-HMAC-SHA256", stamp, scope, hashlib.sha256(canonical.encode()).hexdigest()])
        key = ("AWS4" + SECRET_KEY).encode()
        for part in (day, "us-east-1", service, "aws4_request"):
            key = hmac.new(key, part.encode(), hashlib.sha256).digest()
        signature = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
        headers = {"x-amz-content-sha256": payload, "x-amz-date": stamp, "Authorization":
                   "AWS4-HMAC-SHA256 Credential=%s/%s, SignedHeaders=host;x-amz-content-sha256;x-amz-date, Signature=%s"
                   % (ACCESS_KEY, scope, signature)}
        connection = http.client.HTTPConnection(self.host, timeout=30)
        connection.request(method, urllib.parse.quote(path) + ("?" + query if query else ""), body, headers)
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        return answer.status, data

    def session(self):
        """Temporary credentials from the server's token service: access key, secret key, session token."""
        import xml.etree.ElementTree as tree
        policy = {"Version": "2012-10-17",
                  "Statement": [{"Effect": "Allow", "Action": ["sts:GetSessionToken", "s3:*"], "Resource": ["*"]}]}
        code, data = self.request("POST", "/", ("Action=PutUserPolicy&PolicyDocument=%s&PolicyName=sts&UserName=test" %
                                                urllib.parse.quote(json.dumps(policy), safe="")).encode(), service="iam")
        assert code == 200, (code, data)
        code, data = self.request("POST", "/", b"Action=GetSessionToken&DurationSeconds=900", service="sts")
        assert code == 200, (code, data)
        found = {node.tag: node.text for node in tree.fromstring(data).iter()}
        return found["AccessKeyId"], found["SecretAccessKey"], found["SessionToken"]

    def make_bucket(self, name):
        code, data = self.request("PUT", "/" + name)
        assert code in (200, 409), (code, data)

    def keys(self, bucket, prefix):
        import xml.etree.ElementTree as tree
        query = "list-type=2&prefix=" + urllib.parse.quote(prefix, safe="")
        code, data = self.request("GET", "/" + bucket, query=query)
        assert code == 200, data
        space = "{http://s3.amazonaws.com/doc/2006-03-01/}"
        return [node.find(space + "Key").text for node in tree.fromstring(data).findall(space + "Contents")]

    def get(self, bucket, key):
        code, data = self.request("GET", "/%s/%s" % (bucket, key))
        assert code == 200, (code, data)
        return data

    def put(self, bucket, key, data):
        code, answer = self.request("PUT", "/%s/%s" % (bucket, key), data)
        assert code == 200, (code, answer)

    def delete(self, bucket, key):
        code, answer = self.request("DELETE", "/%s/%s" % (bucket, key))
        assert code in (200, 204), (code, answer)


def s3_environment(**more):
    out = dict(os.environ)
    out.update(REPLICA_ENDPOINT=S3_ENDPOINT, REPLICA_ACCESS_KEY_ID=ACCESS_KEY, REPLICA_SECRET_ACCESS_KEY=SECRET_KEY)
    out.update(more)
    return out


def clean_environment(**more):
    """The environment without any setting that libreplica reads."""
    out = {k: v for k, v in os.environ.items()
           if not k.startswith(("REPLICA_", "LITESTREAM_", "AWS_")) and k not in
           ("RAILS_ENV", "RACK_ENV", "NODE_ENV", "APP_ENV")}
    out.update(more)
    return out


def without_preload(environment):
    """For the replica command when it runs programs that know no sanitizer: it is linked with its own."""
    return {k: v for k, v in environment.items() if k != "LD_PRELOAD"}


class HttpRequest(http.server.BaseHTTPRequestHandler):
    """A request to the server of TestCase.serve(), whose body has been read."""

    def do_GET(self):
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.answer(self)
    do_DELETE = do_HEAD = do_POST = do_PUT = do_GET

    def say(self, code, data=b"", headers={}):
        """Answers. Headers may give a Content-Length that is not the data's."""
        self.send_response(code)
        for name, value in {"Content-Length": len(data), **headers}.items():
            self.send_header(name, str(value))
        self.end_headers()
        if self.command != "HEAD":
            try:
                self.wfile.write(data)
            except OSError:
                pass  # the client had enough of it

    def log_message(self, *_):
        pass


class TestCase(unittest.TestCase):
    """Each test in a folder of its own."""

    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="libreplica-")
        self.addCleanup(shutil.rmtree, self.folder, True)

    def path(self, *parts):
        return os.path.join(self.folder, *parts)

    def url(self, name="replica"):
        return "file://" + self.path(name)

    def serve(self, answer, tls=None):
        """An HTTP server (HTTPS with an SSLContext) that calls `answer(request)` for each HttpRequest; returns its URL."""
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), HttpRequest)
        server.answer = answer
        if tls:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        return "http%s://127.0.0.1:%d" % ("s" if tls else "", server.server_port)

    def generations(self, name="replica"):
        return [entry for entry in os.listdir(self.path(name)) if len(entry) == 32]

    def shell(self, database, *commands, environment=None, check=True):
        """Runs SQL in the sqlite3 shell with the extension loaded; returns what it printed."""
        done = subprocess.run(["sqlite3", "-batch", database, "-cmd", ".load " + LIBRARY[:-3]],
                              input="\n".join(commands) + "\n", capture_output=True, text=True,
                              env=environment, timeout=120)
        if check and (done.returncode != 0 or done.stderr):
            raise AssertionError("sqlite3 failed: %s\n%s" % (done.stderr, done.stdout))
        return done.stdout.strip() if check else done

    def replica(self, *arguments, environment=None, code=0, cwd=None):
        """Runs the replica command; returns what it printed."""
        done = subprocess.run([COMMAND, *arguments], capture_output=True, text=True, timeout=120, cwd=cwd or self.folder,
                              env=environment if environment is not None else clean_environment())
        if code is None:  # any will do
            return done.stdout
        self.assertEqual(done.returncode, code, "replica %s: %s%s" % (" ".join(arguments), done.stdout, done.stderr))
        return done.stdout if code == 0 else done.stdout + done.stderr

    def replica_json(self, *arguments, **options):
        return json.loads(self.replica("--json", *arguments, **options))

    def wait_for(self, what, seconds=30):
        """Polls until `what()` is true; returns what it returned."""
        end = time.monotonic() + seconds
        while True:
            value = what()
            if value:
                return value
            self.assertLess(time.monotonic(), end, "did not come about in %d s" % seconds)
            time.sleep(0.02)

    def assert_restores(self, url, target, expected, page_size, environment=None):
        """Restores and compares with a database image, page by page."""
        path = self.path("restored-%s.db" % str(target).replace("/", "-"))
        report = restore(url, path, target, environment)
        with open(path, "rb") as file:
            restored = file.read()
        self.assertEqual(first_difference(restored, expected, page_size), "", "restore to %s" % target)
        self.assertEqual(check_file(path), "ok")
        for suffix in ("", "-wal", "-shm"):
            if os.path.exists(path + suffix):
                os.remove(path + suffix)
        shutil.rmtree(path + "-replica", True)
        return report


def main():
    result = unittest.main(verbosity=2, argv=[sys.argv[0]] + sys.argv[1:], exit=False).result
    # ctest shows a suite that ran nothing as skipped (SKIP_RETURN_CODE), not as passed.
    nothing = bool(result.skipped) and result.testsRun <= len(result.skipped)
    sys.exit(77 if result.wasSuccessful() and nothing else not result.wasSuccessful())

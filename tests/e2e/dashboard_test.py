"""The dashboard: what its server refuses, /metrics, /healthz, and the page in a real browser."""
import http.client
import json
import os
import re
import signal
import socket
import sqlite3
import ssl
import subprocess
import sys
import threading
import time

import harness
from harness import COMMAND, clean_environment, connect, one

SOURCE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.environ["REPLICA_TEST_BUILD"]


class Client:
    """A browser's requests, by hand: one cookie and one CSRF token."""

    def __init__(self, address, tls=False):
        self.address, self.tls, self.cookie, self.csrf = address, tls, None, None

    def request(self, method, path, body=None, headers=None):
        if self.tls:
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            connection = http.client.HTTPSConnection(self.address, timeout=30, context=context)
        else:
            connection = http.client.HTTPConnection(self.address, timeout=30)
        headers = dict(headers or {})
        if self.cookie and "Cookie" not in headers:
            headers["Cookie"] = self.cookie
        if self.csrf and method == "POST":
            headers.setdefault("X-CSRF-Token", self.csrf)
        data = None if body is None else json.dumps(body)
        connection.request(method, path, data, headers)
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        return answer.status, text, answer.headers

    def json(self, method, path, body=None, **more):
        status, text, _ = self.request(method, path, body, **more)
        return status, json.loads(text)

    def login(self, user, password):
        status, text, headers = self.request("POST", "/api/login", {"user": user, "password": password})
        if status == 200:
            self.cookie = headers["Set-Cookie"].split(";")[0]
            self.csrf = json.loads(text)["csrf"]
        return status, text, headers


class DashboardTest(harness.TestCase):
    def hash(self, password):
        return subprocess.run([COMMAND, "dashboard", "--hash-password"], input=password + "\n", capture_output=True,
                              text=True, check=True, timeout=60).stdout.strip()

    def environment(self, **more):
        return clean_environment(**{"REPLICA_URL": self.url(), "REPLICA_DATABASES": self.path("shop.db"), **more})

    def start(self, *arguments, environment=None):
        process = subprocess.Popen([COMMAND, "--json", "dashboard", "--listen", "127.0.0.1:0", *arguments],
                                   stdout=subprocess.PIPE, text=True, env=environment or self.environment(),
                                   cwd=self.folder)
        self.addCleanup(self.stop, process)
        text = ""
        while not text.endswith("}\n"):
            line = process.stdout.readline()
            self.assertTrue(line, "the dashboard ended at its start")
            text += line
        started = json.loads(text)
        return process, started, Client(started["url"].split("//")[1].rstrip("/"), started["url"].startswith("https"))

    def stop(self, process):
        process.terminate()
        self.assertEqual(process.wait(30), 0)
        process.stdout.close()

    def write(self, rows=20):
        db = connect(self.path("shop.db"))
        self.addCleanup(db.close)
        db.execute("PRAGMA journal_mode=WAL")
        if not one(db, "SELECT replica_status() LIKE '%streaming%'"):
            db.execute("SELECT replica_attach(?, '{\"sync_interval_ms\":0}')", (self.url() + "/shop.db",))
        db.execute("CREATE TABLE IF NOT EXISTS orders(id INTEGER PRIMARY KEY, note TEXT)")
        for i in range(rows):
            db.execute("INSERT INTO orders(note) VALUES (hex(randomblob(50)))")
        one(db, "SELECT replica_sync()")
        return db

    def job(self, client, number):
        def finished():
            jobs = [j for j in client.json("GET", "/api/jobs")[1]["jobs"] if j["id"] == number]
            return jobs[0] if jobs and jobs[0]["state"] != "running" else None
        return self.wait_for(finished)

    def test_nothing_without_a_login(self):
        _, started, client = self.start()
        for path in ("session", "databases", "samples?database=0", "history?database=0", "events?database=0", "config",
                     "jobs"):
            self.assertEqual(client.request("GET", "/api/" + path)[0], 401, path)
        for path in ("verify", "snapshot", "restore", "logout"):
            self.assertEqual(client.request("POST", "/api/" + path, {"database": 0})[0], 401, path)
        self.assertEqual(client.request("GET", "/api/nothing")[0], 404)
        self.assertEqual(client.request("GET", "/../../etc/passwd")[0], 404)
        self.assertEqual(client.request("POST", "/api/login", {"user": 1, "password": ["x"]})[0], 401)
        self.assertEqual(client.login("admin", started["password"] + "x")[0], 401)
        self.assertEqual(client.login("root", started["password"])[0], 401)
        self.assertEqual(client.login("admin", started["password"])[0], 200)
        self.assertEqual(client.request("GET", "/api/databases")[0], 200)
        client.request("POST", "/api/logout", {})
        self.assertEqual(client.request("GET", "/api/databases")[0], 401, "the cookie is worth nothing any more")

    def test_what_changes_something_needs_the_token_and_the_same_origin(self):
        self.write()
        _, started, client = self.start()
        client.login("admin", started["password"])
        body = {"database": 0, "depth": "quick"}
        self.assertEqual(client.request("POST", "/api/verify", body, {"X-CSRF-Token": "0" * 64})[0], 403)
        self.assertEqual(client.request("POST", "/api/verify", body, {"Origin": "http://evil.example"})[0], 403)
        self.assertEqual(client.request("POST", "/api/verify", body, {"Sec-Fetch-Site": "cross-site"})[0], 403)
        self.assertEqual(client.request("POST", "/api/login", {}, {"Origin": "http://evil.example"})[0], 403)
        self.assertEqual(client.request("GET", "/api/databases", None, {"Host": "evil.example"})[0], 421)
        self.assertEqual(client.request("POST", "/api/verify", body, {"Origin": "http://" + client.address})[0], 200)

    def test_wrong_requests_are_refused(self):
        self.write()
        _, started, client = self.start()
        client.login("admin", started["password"])
        for path, body in (("verify", {"database": 7, "depth": "quick"}), ("verify", {"database": -1, "depth": "quick"}),
                           ("verify", {"database": "0", "depth": "quick"}), ("verify", {"database": 0, "depth": "x"}),
                           ("verify", [1]), ("snapshot", {}),
                           ("restore", {"database": 0, "target": "soon", "file": "a.db"}),
                           ("restore", {"database": 0, "target": "latest", "file": "../a.db"}),
                           ("restore", {"database": 0, "target": "latest", "file": "/tmp/a.db"}),
                           ("restore", {"database": 0, "target": "latest", "file": ".hidden"}),
                           ("restore", {"database": 0, "target": "latest", "file": "a.db-wal"}),
                           ("restore", {"database": 0, "target": "latest", "file": "a\nb"}),
                           ("restore", {"database": 0, "target": "latest", "file": ""})):
            self.assertEqual(client.request("POST", "/api/" + path, body)[0], 400, (path, body))
        self.assertEqual(client.request("POST", "/api/restore",
                                        {"database": 0, "target": "latest", "file": "shop.db"})[0], 409)
        self.assertEqual(client.request("GET", "/api/samples?database=9999999999")[0], 404)
        self.assertEqual(client.request("POST", "/api/login", {"user": "x" * 100000, "password": "y"})[0], 413)
        self.assertEqual(os.listdir(self.folder).count("a.db"), 0)

    def test_guessing_is_slowed_down(self):
        _, started, client = self.start()
        answers = [client.login("admin", "guess %d" % i)[0] for i in range(8)]
        self.assertEqual(answers[:5], [401] * 5)
        self.assertEqual(answers[-1], 429)
        status, text, headers = client.login("admin", started["password"])
        self.assertEqual(status, 429, "the right password has to wait too")
        self.assertGreater(int(headers["Retry-After"]), 0)
        self.assertIn("retry_after", text)

    def test_behind_a_proxy(self):
        """One client's guesses do not lock out another's; cookies are Secure; the public name is accepted."""
        _, started, client = self.start(environment=self.environment(
            REPLICA_DASHBOARD_PUBLIC_URL="https://admin.example.com"))
        def login(password, forwarded):
            return client.request("POST", "/api/login", {"user": "admin", "password": password},
                                  {"Host": "admin.example.com", "Origin": "https://admin.example.com",
                                   "X-Forwarded-For": forwarded})
        for i in range(7):
            login("guess", "10.0.0.%d, 203.0.113.9" % i)
        self.assertEqual(login(started["password"], "203.0.113.9")[0], 429, "what the client claims does not count")
        status, _, headers = login(started["password"], "198.51.100.7")
        self.assertEqual(status, 200)
        self.assertIn("__Host-replica=", headers["Set-Cookie"])
        self.assertEqual(client.request("GET", "/metrics", None, {"Host": "admin.example.com"})[0], 401)

    def test_guesses_of_others_do_not_lock_out_who_was_in_before(self):
        """Only the proxy's own word counts, the last of the last line; many addresses slow each other down, not the owner."""
        _, started, client = self.start(environment=self.environment(
            REPLICA_DASHBOARD_PUBLIC_URL="https://admin.example.com"))
        def login(password, *lines):
            connection = http.client.HTTPConnection(client.address, timeout=30)
            body = json.dumps({"user": "admin", "password": password}).encode()
            connection.putrequest("POST", "/api/login", skip_host=True)
            # As nginx passes it when nobody tells it otherwise: the Host of its own connection.
            for name, value in [("Host", client.address), ("Origin", "https://admin.example.com"),
                                ("Content-Length", str(len(body)))] + [("X-Forwarded-For", line) for line in lines]:
                connection.putheader(name, value)
            connection.endheaders(body)
            answer = connection.getresponse()
            answer.read()
            connection.close()
            return answer.status
        self.assertEqual(login(started["password"], "198.51.100.7"), 200)
        tries = [login("guess", "10.1.1.%d" % i, "203.0.113.9") for i in range(7)]
        self.assertEqual(tries[-1], 429, "a line of the client's own does not make it another client")
        tries = [login("guess", "2001:db8:0:%x::%d" % (i // 8, i)) for i in range(60)]
        self.assertEqual(tries[7], 429, "a /64 is one client")
        tries = [login("guess", "10.2.0.%d" % i) for i in range(60)]
        self.assertEqual(tries[-1], 429, "too many from everywhere")
        self.assertEqual(login(started["password"], "198.51.100.7"), 200)

    @staticmethod
    def memory(process):
        with open("/proc/%d/status" % process.pid) as file:
            return int(re.search(r"VmRSS:\s+(\d+)", file.read()).group(1)) / 1024

    def raw(self, client, source, data=b""):
        """A connection from another address of this machine's."""
        host, port = client.address.split(":")
        sock = socket.create_connection((host, int(port)), timeout=30, source_address=(source, 0))
        self.addCleanup(sock.close)
        try:
            sock.sendall(data)
        except OSError:
            pass  # it was closed before all of it was taken
        return sock

    def test_a_body_that_is_not_read_is_no_request(self):
        """Bodies of GET and HEAD and of refused POSTs were read as the next request of the connection: behind a proxy
        another user's, and from any page in a browser a login past the checks of its origin."""
        _, _, client = self.start()
        host = "Host: %s\r\n" % client.address
        inner = "GET /healthz HTTP/1.1\r\n%s\r\n" % host
        length = "Content-Length: %d\r\n" % len(inner)
        other = "Content-Length: %d\r\n" % (len(inner) + 1)
        for name, head in (("GET", "GET / HTTP/1.1\r\n" + host + length),
                           ("HEAD", "HEAD / HTTP/1.1\r\n" + host + length),
                           ("another origin",
                            "POST /api/login HTTP/1.1\r\n" + host + "Origin: http://evil.example\r\n" + length),
                           ("another host", "POST /api/login HTTP/1.1\r\nHost: evil.example\r\n" + length),
                           ("no such path", "POST /nothing HTTP/1.1\r\n" + host + length),
                           ("no login", "POST /api/verify HTTP/1.1\r\n" + host + length),
                           ("PUT", "PUT / HTTP/1.1\r\n" + host + length),
                           ("DELETE", "DELETE / HTTP/1.1\r\n" + host + length),
                           ("OPTIONS", "OPTIONS / HTTP/1.1\r\n" + host + length),
                           ("too long", "POST /api/login HTTP/1.1\r\n" + host + "Content-Length: 70000\r\n"),
                           ("two lengths", "GET / HTTP/1.1\r\n" + host + length + other),
                           ("two lengths of a login",
                            "POST /api/login HTTP/1.1\r\n" + host + "Content-Length: 0\r\n" + length),
                           ("no number", "GET / HTTP/1.1\r\n" + host + "Content-Length: abc\r\n"),
                           ("hexadecimal", "POST /api/login HTTP/1.1\r\n" + host + "Content-Length: 0x10\r\n"),
                           ("negative", "GET / HTTP/1.1\r\n" + host + "Content-Length: -1\r\n"),
                           ("chunked", "GET / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n"),
                           ("chunked with a length",
                            "POST /api/login HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n" + length)):
            sock = self.raw(client, "127.0.0.1", (head + "\r\n" + inner).encode())
            # The end of what is sent, so that a server that waits for the rest of a body need not.
            sock.shutdown(socket.SHUT_WR)
            answer = b""
            try:
                while piece := sock.recv(65536):
                    answer += piece
            except ConnectionResetError:
                pass  # it hung up with our bytes unread: good
            with self.subTest(name):
                self.assertLessEqual(len(re.findall(rb"HTTP/1\.1 \d+", answer)), 1, answer)
        # A connection is used again after a request whose body was read, or that has none.
        sock = self.raw(client, "127.0.0.1", ("GET /healthz HTTP/1.1\r\n%s\r\n" % host).encode() * 2)
        sock.shutdown(socket.SHUT_WR)
        answer = b""
        while piece := sock.recv(65536):
            answer += piece
        self.assertEqual(len(re.findall(rb"HTTP/1\.1 \d+", answer)), 2)

    def test_logins_that_hide_in_another_origins_body_are_not_counted(self):
        """Any page could guess passwords, and lock the operator out."""
        password = "correct horse battery staple"
        _, _, client = self.start(environment=self.environment(REPLICA_DASHBOARD_USER="admin",
                                                               REPLICA_DASHBOARD_PASSWORD_HASH=self.hash(password)))
        login = json.dumps({"user": "admin", "password": "wrong"})
        inner = "POST /api/login HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n\r\n%s" % (
            client.address, len(login), login)
        for _ in range(10):
            sock = self.raw(client, "127.0.0.1", (
                "POST /api/login HTTP/1.1\r\nHost: %s\r\nOrigin: http://evil.example\r\nSec-Fetch-Site: cross-site\r\n"
                "Content-Length: %d\r\n\r\n%s" % (client.address, len(inner), inner)).encode())
            sock.shutdown(socket.SHUT_WR)
            try:
                while sock.recv(65536):
                    pass
            except ConnectionResetError:
                pass
        self.assertEqual(client.login("admin", password)[0], 200)

    def test_what_is_small_on_the_wire_takes_no_memory(self):
        import gzip
        process, _, client = self.start()
        client.request("GET", "/healthz")
        before = self.memory(process)
        bomb = gzip.compress(b" " * (200 << 20))
        chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
        for data in (b"POST /nothing HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk * 1000,
                     b"GET / HTTP/1.1\r\nHost: localhost\r\n" + (b"X: " + b"y" * 8000 + b"\r\n") * 8000,
                     b"POST /api/login HTTP/1.1\r\nHost: localhost\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n"
                     % len(bomb) + bomb,
                     b"GET /app.js HTTP/1.1\r\nHost: localhost\r\nRange: bytes=" + b"0-," * 2600 + b"0-\r\n\r\n",
                     b"PUT /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 60000\r\n\r\n" + b"x" * 60000):
            self.raw(client, "127.0.0.1", data)
            self.assertEqual(client.request("GET", "/healthz")[0] in (200, 503), True)
        if not os.environ.get("REPLICA_TEST_SANITIZED"):
            self.assertLess(self.memory(process) - before, 30, "MiB")

    def test_slow_clients_keep_nobody_out(self):
        _, _, client = self.start()
        slow = [self.raw(client, "127.0.0.%d" % (2 + i % 2), b"GET / HTTP/1.1\r\nHost:") for i in range(60)]
        for i in range(5):
            self.assertIn(client.request("GET", "/healthz")[0], (200, 503))
            for sock in slow:
                try:
                    sock.send(b" ")
                except OSError:
                    pass
        # A byte now and then does not keep a request alive: in the end each of them is closed.
        ended = time.monotonic() + 30
        for sock in slow:
            sock.settimeout(max(0.1, ended - time.monotonic()))
            try:
                while sock.recv(4096):
                    pass
            except ConnectionError:
                pass

    def test_a_store_that_hangs_does_not_take_the_dashboard_with_it(self):
        with socket.socket() as silent:
            silent.bind(("127.0.0.1", 0))
            silent.listen(200)
            self.write()
            process, started, client = self.start(environment=self.environment(
                REPLICA_URL="s3://bucket/shop", REPLICA_ENDPOINT="http://127.0.0.1:%d" % silent.getsockname()[1],
                REPLICA_ACCESS_KEY_ID="k", REPLICA_SECRET_ACCESS_KEY="s"))
            client.login("admin", started["password"])
            request = ("GET /api/history?database=0 HTTP/1.1\r\nHost: localhost\r\nCookie: %s\r\n\r\n" % client.cookie).encode()
            asking = [self.raw(client, "127.0.0.%d" % (2 + i % 2), request) for i in range(40)]
            self.assertIn(client.request("GET", "/healthz")[0], (200, 503))
            self.assertEqual(client.request("GET", "/api/history?database=0")[0], 503, "it says that it waits")
            self.assertIn(client.request("GET", "/healthz")[0], (200, 503))
            for sock in asking:
                sock.close()
            process.terminate()
            self.assertEqual(process.wait(15), 0)

    def test_a_deleted_database_of_a_pattern_is_not_missed(self):
        db = self.write()
        db.close()
        os.mkdir(self.path("tenants"))
        for name in ("one.db", "two.db"):
            with sqlite3.connect(self.path("tenants", name)) as plain:
                plain.execute("CREATE TABLE t(x)")
            plain.close()
        with open(self.path("replica.yml"), "w") as file:
            file.write("dbs:\n  - dir: tenants\n    pattern: '*.db'\n    url: %s/tenants\n" % self.url())
        _, started, client = self.start(environment=clean_environment())
        client.login("admin", started["password"])
        names = lambda: [d["name"] for d in client.json("GET", "/api/databases")[1]["databases"]]
        self.assertEqual(sorted(names()), ["one.db", "two.db"])
        os.remove(self.path("tenants", "one.db"))
        self.wait_for(lambda: names() == ["two.db"])
        self.assertNotIn("one.db", client.request("GET", "/metrics")[1])

    def test_settings_that_nothing_needs_are_not_called_missing(self):
        with open(self.path("replica.yml"), "w") as file:
            file.write("exec: server --password=hunter2\ndbs:\n  - path: shop.db\n    replica:\n      url: %s/shop.db\n" % self.url())
        _, started, client = self.start(environment=clean_environment())
        client.login("admin", started["password"])
        config = client.json("GET", "/api/config")[1]
        self.assertEqual([s["key"] for s in config["settings"] if s["required"]], [])
        self.assertNotIn("hunter2", json.dumps(config))

    def test_every_answer_carries_the_policies(self):
        _, _, client = self.start()
        for path in ("/", "/app.js", "/healthz", "/api/databases", "/nothing"):
            headers = client.request("GET", path)[2]
            self.assertIn("default-src 'none'", headers["Content-Security-Policy"])
            self.assertNotIn("unsafe", headers["Content-Security-Policy"])
            self.assertEqual(headers["X-Content-Type-Options"], "nosniff")
        page = client.request("GET", "/")[1]
        self.assertNotRegex(page, r"<script(?![^>]* src=)|style=|https?://(?!www\.w3\.org)")

    def test_password_by_configuration(self):
        secret = "correct horse battery"
        hashed = self.hash(secret)
        with open(self.path("replica.yml"), "w") as file:
            file.write("dashboard:\n  user: anna\n  password-hash: %s\ndbs:\n  - path: shop.db\n    replica:\n"
                       "      url: %s/shop.db\n" % (hashed, self.url()))
        os.chmod(self.path("replica.yml"), 0o600)
        _, started, client = self.start(environment=clean_environment())
        self.assertNotIn("password", started)
        self.assertEqual(client.login("anna", secret)[0], 200)
        self.assertEqual(client.json("GET", "/api/databases")[1]["databases"][0]["name"], "shop.db")
        config = client.request("GET", "/api/config")[1]
        self.assertNotIn(hashed, config)
        self.assertIn("********", config)

    def test_beyond_loopback_only_with_password_and_tls(self):
        hashed = self.hash("correct horse battery")
        certificate, key = self.path("cert.pem"), self.path("key.pem")
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
                        "-keyout", key, "-out", certificate], check=True, capture_output=True, timeout=60)
        listen = ["dashboard", "--listen", "0.0.0.0:0"]
        self.assertIn("password-hash", self.replica(*listen, environment=self.environment(), code=2))
        self.assertIn("TLS", self.replica(*listen, environment=self.environment(
            REPLICA_DASHBOARD_PASSWORD_HASH=hashed), code=2))
        self.assertIn("no hash", self.replica(*listen, environment=self.environment(
            REPLICA_DASHBOARD_PASSWORD_HASH="secret"), code=2))
        self.assertIn("no hash", self.replica(*listen, environment=self.environment(
            REPLICA_DASHBOARD_PASSWORD_HASH="correcthorsebattery"), code=2), "a password, not its hash")
        tls = {"REPLICA_DASHBOARD_PASSWORD_HASH": hashed, "REPLICA_DASHBOARD_TLS_CERTIFICATE": certificate}
        self.assertIn("no-key.pem", self.replica(*listen, environment=self.environment(
            **tls, REPLICA_DASHBOARD_TLS_KEY=self.path("no-key.pem")), code=2))
        self.assertIn("no PEM", self.replica(*listen, environment=self.environment(
            **tls, REPLICA_DASHBOARD_TLS_KEY=certificate), code=2))
        _, started, client = self.start(environment=self.environment(**tls, REPLICA_DASHBOARD_TLS_KEY=key))
        self.assertTrue(started["url"].startswith("https://"))
        status, _, headers = client.login("admin", "correct horse battery")
        self.assertEqual(status, 200)
        self.assertIn("__Host-", headers["Set-Cookie"])
        self.assertIn("Secure", headers["Set-Cookie"])
        self.assertIn("max-age", headers["Strict-Transport-Security"])

    def test_port_in_use_and_wrong_addresses(self):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            address = "127.0.0.1:%d" % taken.getsockname()[1]
            self.assertIn(address, self.replica("dashboard", "--listen", address, environment=self.environment(), code=2))
        for wrong in ("127.0.0.1:99999", "here", "example.com:80", "127.0.0.1:"):
            self.assertIn(wrong, self.replica("dashboard", "--listen", wrong, environment=self.environment(), code=2))

    def test_restore_verify_and_snapshot_by_hand(self):
        db = self.write()
        _, started, client = self.start()
        client.login("admin", started["password"])
        for depth in ("quick", "full", "objects"):
            job = self.job(client, client.json("POST", "/api/verify", {"database": 0, "depth": depth})[1]["job"])
            self.assertTrue(job["result"]["ok"], job)
        self.assertEqual(self.job(client, client.json("POST", "/api/snapshot", {"database": 0})[1]["job"])["state"], "done")
        job = self.job(client, client.json("POST", "/api/restore", {"database": 0, "target": "latest",
                                                                    "file": "back.db"})[1]["job"])
        self.assertEqual(job["result"]["path"], self.path("back.db"))
        self.assertEqual(harness.check_file(self.path("back.db")), "ok")
        history = client.json("GET", "/api/history?database=0")[1]
        self.assertIn("snapshot", [s["kind"] for s in history["segments"]])
        self.assertEqual(one(db, "SELECT count(*) FROM orders"), 20)

    def test_metrics_and_health(self):
        db = self.write()
        _, started, client = self.start()
        text = client.request("GET", "/metrics")[1]
        values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
        label = '{database="%s"' % self.path("shop.db")
        self.assertGreater(float(values["libreplica_puts_total%s}" % label]), 0)
        self.assertEqual(float(values["libreplica_put_errors_total%s}" % label]), 0)
        self.assertGreater(float(values["libreplica_txid%s,position=\"acknowledged\"}" % label]), 0)
        self.assertEqual(values["libreplica_txid%s,position=\"acknowledged\"}" % label],
                         values["libreplica_txid%s,position=\"committed\"}" % label])
        self.assertEqual(values["libreplica_state%s,state=\"streaming\"}" % label], "1")
        for name in ("put", "acknowledge", "snapshot"):
            metric = "libreplica_%s_duration_seconds" % name
            self.assertGreater(float(values["%s_count%s}" % (metric, label)]), 0)
            self.assertEqual(values["%s_bucket%s,le=\"+Inf\"}" % (metric, label)], values["%s_count%s}" % (metric, label)])
            buckets = [float(values[key]) for key in values if key.startswith(metric + "_bucket" + label)]
            self.assertEqual(buckets, sorted(buckets), "cumulative")
        # The board and the alert rules ask for metrics that there are.
        known = set(re.findall(r"^# TYPE (\w+)", text, re.M))
        for name in ("grafana.json", "alerts.yml"):
            with open(os.path.join(SOURCE, "docs", name)) as file:
                asked = set(re.findall(r"libreplica_\w+", file.read()))
            self.assertGreater(len(asked), 5)
            self.assertEqual({re.sub(r"_(bucket|count|sum)$", "", metric) for metric in asked} - known, set(), name)
        # Each metric has its help and type, and each line is one that Prometheus reads.
        for line in text.splitlines():
            self.assertRegex(line, r'^# (HELP|TYPE) \w+ .+$|^\w+(\{(\w+="([^"\\]|\\.)*",?)*\})? [-+0-9.eInf]+$')
        self.assertEqual(client.request("GET", "/healthz")[0], 200)
        # The folder becomes unwritable for the replica: its lag exceeds the bound.
        os.rename(self.path("replica"), self.path("elsewhere"))
        with open(self.path("replica"), "w"):
            pass
        db.execute("INSERT INTO orders(note) VALUES ('waits')")
        status, text = self.wait_for(lambda: (lambda a: a if a[0] == 503 else None)(client.json("GET", "/healthz")))
        self.assertFalse(text["ok"])
        os.remove(self.path("replica"))
        os.rename(self.path("elsewhere"), self.path("replica"))
        self.wait_for(lambda: client.request("GET", "/healthz")[0] == 200, 60)

    def test_metrics_token(self):
        _, _, client = self.start(environment=self.environment(REPLICA_DASHBOARD_METRICS_TOKEN="sesame"))
        self.assertEqual(client.request("GET", "/metrics")[0], 401)
        self.assertEqual(client.request("GET", "/metrics", None, {"Authorization": "Bearer wrong"})[0], 401)
        self.assertEqual(client.request("GET", "/metrics", None, {"Authorization": "Bearer sesame"})[0], 200)
        self.assertIn(client.request("GET", "/healthz")[0], (200, 503))

    def test_in_a_browser(self):
        if os.environ.get("REPLICA_TEST_SANITIZED"):
            self.skipTest("the browser cannot be started with a sanitizer's runtime preloaded")
        db = self.write()
        end = threading.Event()

        def writer():
            own = connect(self.path("shop.db"))
            while not end.wait(0.05):
                own.execute("INSERT INTO orders(note) VALUES (hex(randomblob(200)))")
            own.close()
        thread = threading.Thread(target=writer)
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(end.set)
        _, started, client = self.start(environment=self.environment(
            REPLICA_ACCESS_KEY_ID="a-very-secret-key", REPLICA_SECRET_ACCESS_KEY="a-very-secret-key"))
        done = subprocess.run(["node", os.path.join(SOURCE, "tests", "browser", "dashboard.mjs")], capture_output=True,
                              text=True, timeout=240, env=dict(
                                  os.environ, DASHBOARD_URL=started["url"], DASHBOARD_USER=started["user"],
                                  DASHBOARD_PASSWORD=started["password"], DASHBOARD_FOLDER=self.folder,
                                  NODE_MODULES=os.path.join(BUILD, "node", "browser", "node_modules"),
                                  SCREENSHOTS=os.environ.get("REPLICA_SCREENSHOTS", "")))
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertEqual(one(db, "PRAGMA integrity_check"), "ok")


if __name__ == "__main__":
    harness.main()

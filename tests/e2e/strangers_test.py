"""What an outside review found about endpoints, slow stores, setuid programs and terminals, as tests named for it."""
import json
import os
import pwd
import re
import shutil
import socket
import sqlite3
import subprocess
import tempfile
import threading
import time
import unittest

import harness
from harness import COMMAND, LIBRARY, clean_environment, connect, one, status, sync

HERE = os.path.dirname(os.path.abspath(__file__))


class Endpoints(harness.TestCase):
    """Keys go to the endpoint that they were configured for, and to no other."""

    def listen(self):
        """An HTTP server that refuses everything; its URL, and the headers of the requests it got."""
        requests = []

        def refuse(request):
            requests.append(dict(request.headers))
            request.say(404)
        return self.serve(refuse), requests

    def attach(self, **options):
        """In a process with keys configured for an endpoint of its own; what it says, and what both endpoints got."""
        configured, right = self.listen()
        other, wrong = self.listen()
        options = {name: other if value == "other" else configured if value == "configured" else value
                   for name, value in options.items()}
        code = ("from harness import *\ndb = connect(%r)\ndb.execute('PRAGMA journal_mode=WAL')\ntry:\n"
                "    one(db, 'SELECT replica_attach(?, ?)', 's3://bucket/x', %r)\n    sync(db, timeout_ms=3000)\n"
                "except sqlite3.Error as error: print(error)\n" % (self.path("app.db"), json.dumps(options)))
        done = subprocess.run([harness.sys.executable, "-c", code], capture_output=True, text=True, timeout=60,
                              env=clean_environment(
                                  REPLICA_ENDPOINT=configured, REPLICA_ACCESS_KEY_ID="theconfiguredkey",
                                  REPLICA_SECRET_ACCESS_KEY="thesecret", REPLICA_SESSION_TOKEN="thetoken",
                                  REPLICA_CONFIG="off", REPLICA_SHUTDOWN_TIMEOUT="1s", PYTHONPATH=HERE,
                                  LIBREPLICA=LIBRARY))
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout, right, wrong

    def test_an_option_that_names_another_endpoint_does_not_take_the_configured_keys(self):
        """The configured key signed requests to it, with the session token in clear."""
        for more in ({}, {"region": "us-east-1"}, {"path_style": True}, {"access_key_id": "mine"},
                     {"secret_access_key": "mine"}):
            said, right, wrong = self.attach(endpoint="other", **more)
            self.assertIn("missing credentials", said, more)
            self.assertEqual((right, wrong), ([], []), more)

    def test_its_own_keys_go_to_it_alone(self):
        _, right, wrong = self.attach(endpoint="other", access_key_id="mine", secret_access_key="secret")
        self.assertEqual(right, [])
        self.assertTrue(wrong)
        for headers in wrong:
            self.assertIn("Credential=mine/", headers["Authorization"])
            self.assertNotIn("thetoken", str(headers))
            self.assertNotIn("theconfiguredkey", str(headers))

    def test_the_configured_endpoint_keeps_its_keys(self):
        for options in ({}, {"endpoint": "configured"}):
            _, right, _ = self.attach(**options)
            self.assertTrue(right, options)
            for headers in right:
                self.assertIn("Credential=theconfiguredkey/", headers["Authorization"], options)
                self.assertEqual(headers["x-amz-security-token"], "thetoken", options)

    def test_a_uri_parameter_names_no_endpoint(self):
        """A file name that somebody else made cannot send a database elsewhere than to the configured endpoint."""
        configured, right = self.listen()
        other, wrong = self.listen()
        code = ("from harness import *\nload(sqlite3.connect(':memory:'))\n"
                "db = sqlite3.connect('file:%s?replica=s3://bucket/x%%3Fendpoint=%s&endpoint=%s', uri=True)\n"
                "db.execute('PRAGMA journal_mode=WAL')\ndb.execute('CREATE TABLE IF NOT EXISTS t(a)')\n"
                "try: sync(db, timeout_ms=2000)\nexcept sqlite3.Error as error: print(error)\n" %
                (self.path("app.db"), other, other))
        subprocess.run([harness.sys.executable, "-c", code], check=True, timeout=60, capture_output=True,
                       env=clean_environment(REPLICA_ENDPOINT=configured, REPLICA_ACCESS_KEY_ID="theconfiguredkey",
                                             REPLICA_SECRET_ACCESS_KEY="thesecret", REPLICA_CONFIG="off",
                                             REPLICA_SHUTDOWN_TIMEOUT="1s", PYTHONPATH=HERE, LIBREPLICA=LIBRARY))
        self.assertEqual(wrong, [])


class SlowStores(harness.TestCase):
    """A store that keeps a request alive with a few bytes a second, for ever."""

    def drip(self, *pieces):
        """A server that says the first piece at once and the last one again and again, 50 times a second."""
        listening = socket.create_server(("127.0.0.1", 0))
        stop = threading.Event()

        def serve(client):
            with client:
                try:
                    client.recv(65536)
                    for piece in pieces[:-1]:
                        client.sendall(piece)
                    while not stop.wait(0.02):
                        client.sendall(pieces[-1])
                except OSError:
                    pass

        def accept():
            while True:
                try:
                    client, _ = listening.accept()
                except OSError:
                    return
                threading.Thread(target=serve, args=(client,), daemon=True).start()
        threading.Thread(target=accept, daemon=True).start()
        self.addCleanup(listening.close)
        self.addCleanup(stop.set)
        return "http://127.0.0.1:%d" % listening.getsockname()[1]

    def test_a_request_has_a_total_time(self):
        """More than 64 bytes a second kept it alive: days for an object, for ever for "102 Processing"."""
        # All at once, since each takes the minute or more that a request may take.
        readers = {}
        for name, pieces in (("body", (b"HTTP/1.1 200 OK\r\nContent-Length: 10000000\r\n\r\n", b"<a/>")),
                             ("header", (b"HTTP/1.1 200 OK\r\n", b"X: y\r\n")),
                             ("informational", (b"", b"HTTP/1.1 102 Processing\r\n\r\n"))):
            readers[name] = subprocess.Popen([COMMAND, "history", "s3://bucket/x"], stdout=subprocess.PIPE,
                                             stderr=subprocess.STDOUT, text=True, cwd=self.folder,
                                             env=clean_environment(
                                                 REPLICA_ENDPOINT=self.drip(*pieces), REPLICA_CONFIG="off",
                                                 REPLICA_ACCESS_KEY_ID="a", REPLICA_SECRET_ACCESS_KEY="b"))
        for reader in readers.values():
            self.addCleanup(reader.stdout.close)
            self.addCleanup(reader.wait)
            self.addCleanup(reader.kill)
        # A minute a request, and whoever asks tries again for two minutes at most.
        end = time.monotonic() + 300
        for name, reader in readers.items():
            said = reader.communicate(timeout=max(1, end - time.monotonic()))[0]
            self.assertEqual(reader.returncode, 3, "%s: %s" % (name, said))
            self.assertIn("replica: ", said, name)


class Setuid(harness.TestCase):
    """A program with more rights than its caller takes nothing from the caller's environment or folder."""

    def setUp(self):
        super().setUp()
        if os.geteuid() != 0:
            self.skipTest("needs root")
        if os.environ.get("REPLICA_TEST_SANITIZED"):
            self.skipTest("nothing is preloaded into a setuid program")
        os.chmod(self.folder, 0o755)
        self.nobody = pwd.getpwnam("nobody")
        self.private = self.path("private")
        os.mkdir(self.private, 0o700)  # root's
        self.ours = self.path("ours")  # the caller's
        os.mkdir(self.ours, 0o700)
        os.chown(self.ours, self.nobody.pw_uid, self.nobody.pw_gid)
        self.host = self.path("host")
        subprocess.run(["cc", "-o", self.host, os.path.join(HERE, "host.c"), "-lsqlite3", "-lpthread"], check=True)
        os.chmod(self.host, 0o4755)
        probe = self.path("probe")
        shutil.copy("/usr/bin/id", probe)
        os.chmod(probe, 0o4755)
        if self.as_caller([probe, "-u"]).stdout.strip() != "0":
            self.skipTest("setuid has no effect in this folder")
        # A library that the caller may read, as one that is installed.
        self.library = self.path("libreplica.so")
        shutil.copy(LIBRARY, self.library)
        os.chmod(self.library, 0o755)

    def as_caller(self, command, **variables):
        return subprocess.run(["setpriv", "--reuid", str(self.nobody.pw_uid), "--regid", str(self.nobody.pw_gid),
                               "--clear-groups", *command], capture_output=True, text=True, timeout=60, cwd=self.ours,
                              env=dict({"PATH": self.ours + ":/usr/bin:/bin", "HOME": self.ours}, **variables))

    def test_its_callers_environment_runs_no_program_and_sends_nothing(self):
        """The caller's program ran as root, and a database that only root may read went to the caller's server."""
        evil = os.path.join(self.ours, "evil")
        for name in (evil, os.path.join(self.ours, "replica")):
            with open(name, "w") as file:
                file.write("#!/bin/sh\nid -u >%s/ran\n" % self.ours)
            os.chmod(name, 0o755)
        with open(os.path.join(self.ours, "replica.yml"), "w") as file:
            file.write("url: file://%s/stolen\nuploader: process\nuploader-command: %s\n" % (self.ours, evil))
        os.chown(os.path.join(self.ours, "replica.yml"), self.nobody.pw_uid, self.nobody.pw_gid)
        os.chmod(os.path.join(self.ours, "replica.yml"), 0o600)
        with socket.socket() as server:
            server.bind(("127.0.0.1", 0))
            server.listen()
            server.settimeout(0.01)
            where = {"endpoint": {"REPLICA_URL": "s3://bucket/x", "REPLICA_ACCESS_KEY_ID": "a",
                                  "REPLICA_SECRET_ACCESS_KEY": "b",
                                  "REPLICA_ENDPOINT": "http://127.0.0.1:%d" % server.getsockname()[1]},
                     "folder": {"REPLICA_URL": "file://%s/stolen" % self.ours},
                     "command": {"REPLICA_URL": "file://%s/stolen" % self.ours, "REPLICA_UPLOADER": "process",
                                 "REPLICA_UPLOADER_COMMAND": evil},
                     "named file": {"REPLICA_CONFIG": os.path.join(self.ours, "replica.yml")},
                     "file in the working folder": {}}
            for name, variables in where.items():
                database = os.path.join(self.private, name.replace(" ", "-") + ".db")
                # `persist` writes a row to a new database and closes it.
                done = self.as_caller([self.host, "persist", database, self.library],
                                      REPLICA_SHUTDOWN_TIMEOUT="1s", **variables)
                self.assertEqual(done.returncode, 0, name + ": " + done.stdout + done.stderr)
                self.assertTrue(os.path.exists(database), name)
                self.assertFalse(os.path.exists(database + "-replica"), name)
                self.assertEqual(sorted(os.listdir(self.ours)), ["evil", "replica", "replica.yml"], name)
            with self.assertRaises(TimeoutError, msg="somebody connected to the caller's server"):
                server.accept()
        # The same program run by root itself, without more rights than its caller has, is replicated.
        done = subprocess.run([self.host, "persist", os.path.join(self.private, "root.db"), self.library], timeout=60,
                              env=clean_environment(REPLICA_URL="file://" + os.path.join(self.private, "replica"),
                                                    REPLICA_CONFIG="off"))
        self.assertEqual(done.returncode, 0)
        self.assertTrue(os.path.isdir(os.path.join(self.private, "replica", "root.db")))


class Terminals(harness.TestCase):
    def test_what_a_store_says_does_not_drive_the_terminal(self):
        """Colours (hence concealed text), C1 controls, DEL and marks that turn the writing went through."""
        hidden = "\x1b[8m\x1b[31;44m\x9b31m\x7f\u202e\u2066\u200f\x07\r"
        # XML has no place for most controls: as a store's parser-proof text they come by character references, too.
        body = ("<Error><Code>Odd%s</Code><Message>text%s</Message></Error>" % (hidden, hidden)).encode()
        environment = clean_environment(REPLICA_ENDPOINT=self.serve(lambda request: request.say(400, body)),
                                        REPLICA_CONFIG="off", REPLICA_ACCESS_KEY_ID="a", REPLICA_SECRET_ACCESS_KEY="b")
        for arguments in (("check", "s3://bucket/x"), ("history", "s3://bucket/x"),
                          ("restore", "s3://bucket/x", "-o", "out.db")):
            for options in ((), ("--color", "always"), ("--json",)):
                done = subprocess.run([COMMAND, *options, *arguments], capture_output=True, text=True, timeout=120,
                                      cwd=self.folder, env=environment)
                said = done.stdout + done.stderr
                self.assertNotEqual(done.returncode, 0, said)
                self.assertIn("Odd", said)
                # The command's own colours are few; nothing else is hidden in what it says.
                plain = re.sub(r"\x1b\[(0|2|32|33|1;31)m", "", said) if "always" in options else said
                found = [hex(ord(c)) for c in plain if ord(c) < 32 and c != "\n" or 127 <= ord(c) < 160 or
                         0x200e <= ord(c) <= 0x200f or 0x202a <= ord(c) <= 0x202e or 0x2066 <= ord(c) <= 0x2069]
                self.assertEqual(found, [], "%s: %r" % (" ".join(options + arguments), said))


if __name__ == "__main__":
    harness.main()

"""SQLites and VFSes of others that encrypt or change pages: libreplica leaves their databases alone, and says so."""
import contextlib
import glob
import json
import os
import shutil
import sqlite3
import subprocess
import unittest

import harness
from harness import LIBRARY, clean_environment, one, restore

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
HOSTS = os.path.join(ROOT, "tests", "hosts")
BUILD = os.environ.get("REPLICA_TEST_BUILD", os.path.dirname(LIBRARY))


def install(script, *arguments):
    """Once for each build folder; later runs need no network."""
    done = subprocess.run([os.path.join(ROOT, "scripts", script), *arguments], capture_output=True, text=True, timeout=300)
    if done.returncode != 0:
        name = os.path.splitext(os.path.basename(arguments[0]))[0]
        raise unittest.SkipTest("%s cannot be installed: %s" % (name, done.stderr.split("\n")[0]))


class Hosts(harness.TestCase):
    def setUp(self):
        super().setUp()
        if os.environ.get("REPLICA_TEST_SANITIZED"):
            self.skipTest("programs of others, without sanitizers")
        self.database = self.path("app.db")

    def python(self, package, host):
        install("install-python-packages.sh", os.path.join(HOSTS, package + ".txt"), BUILD, "--retries=1")
        self.environment = {"PYTHONPATH": os.path.join(BUILD, "python", package)}
        self.command = ["/usr/bin/python3", os.path.join(HOSTS, "host.py"), host]

    def run_host(self, *arguments, code=0, **environment):
        done = subprocess.run([*self.command, *arguments], capture_output=True, text=True, timeout=60, cwd=self.folder,
                              env=clean_environment(REPLICA_CONFIG="off", **self.environment, **environment))
        self.assertEqual(done.returncode, code, done.stdout + done.stderr)
        return done.stdout if code <= 0 else done.stderr

    def write(self, loader, **environment):
        """Rows before and after the load; the program dies with them in the WAL."""
        for name in glob.glob(self.database + "*"):
            shutil.rmtree(name) if os.path.isdir(name) else os.remove(name)
        return json.loads(self.run_host("write", self.database, LIBRARY, loader, code=-9, **environment))

    def assert_left_alone(self, reason, loaders=("host", "database"), encrypts=True):
        for loader in loaders:
            with self.subTest(loader):
                said = self.write(loader, REPLICA_URL=self.url())
                self.assertEqual(said["hooked"], ["unix"] if loader == "unix" else [])
                self.assertIn("cannot be replicated", said["attached"])
                self.assertIn(reason, said["attached"])
                self.assertIn(reason, said["status"]["message"])
                # No folder of libreplica's, whatever is configured, and no plain text in the files.
                self.assert_plain_text(not encrypts)
                self.assertEqual(json.loads(self.run_host("read", self.database)), [4, "ok"])
                self.assert_plain_text(not encrypts)
                said = self.run_host("load", self.database, LIBRARY, loader, code=1, REPLICA_REQUIRED="1", REPLICA_URL=self.url())
                self.assertIn("a replica is required, and ", said)
                self.assertIn(reason, said)

    def assert_plain_text(self, expected):
        files = os.listdir(self.folder)
        self.assertLessEqual(set(files), {"app.db", "app.db-wal", "app.db-shm"})
        found = False
        for name in files:
            with open(self.path(name), "rb") as file:
                found = found or b"plain text" in file.read()
        self.assertEqual(found, expected, files)

    def test_sqlite3_multiple_ciphers(self):
        self.python("sqlite3mc", "sqlite3mc")
        self.assert_left_alone('the VFS "multipleciphers-unix", which may encrypt')

    def test_sqlcipher(self):
        self.python("sqlcipher", "sqlcipher")
        self.assert_left_alone("this SQLite encrypts pages (SQLCipher)")

    def test_libsql_with_encryption(self):
        install("install-node-modules.sh", os.path.join(HOSTS, "libsql"), BUILD, "--fetch-retries=1", "--loglevel=error")
        self.environment = {"NODE_PATH": os.path.join(BUILD, "node", "libsql", "node_modules")}
        self.command = ["node", os.path.join(HOSTS, "libsql", "host.js")]
        self.assert_left_alone('the VFS "multipleciphers-unix", which may encrypt')

    def test_a_vfs_that_changes_bytes_over_one_that_is_hooked(self):
        self.python("apsw", "xor")
        self.assert_left_alone('the VFS "xor", which may encrypt', loaders=("host", "database", "unix"))

    def test_cksumvfs(self):
        """Its pages have checksums in the file, but not in the WAL."""
        self.python("apsw", "cksumvfs")
        self.assert_left_alone('the VFS "cksmvfs", which may encrypt', loaders=("host", "database", "unix"), encrypts=False)
        with open(self.database, "r+b") as file:
            file.seek(-1, os.SEEK_END)  # in the last page's checksum
            last = file.read(1)[0]
            file.seek(-1, os.SEEK_END)
            file.write(bytes([last ^ 1]))
        self.assertIn("IOError", self.run_host("read", self.database, code=1), "the host checks its pages")

    def test_a_vfs_that_passes_pages_on_is_allowed_by_name(self):
        self.python("apsw", "pass")
        for loader in ("host", "database", "unix"):
            with self.subTest(loader):
                said = self.write(loader, REPLICA_VFS_ALLOW="pass")
                self.assertIn("pass" if loader != "unix" else "unix", said["hooked"])
                restore(said["attached"], self.path("app.db-restored"))
                with contextlib.closing(sqlite3.connect(self.path("app.db-restored"))) as restored:
                    self.assertEqual(one(restored, "SELECT count(*) FROM t"), 4)


if __name__ == "__main__":
    harness.main()

"""The installed tree, as a C application and the shell use it."""
import os
import sqlite3
import subprocess

import harness
from harness import clean_environment

HOST = """
#include <stdio.h>
#include "replica.h"
int main(int argc, char **argv) {
  sqlite3 *db;
  sqlite3_auto_extension((void (*)(void))sqlite3_replica_init);
  if (sqlite3_open(argv[1], &db)) { fprintf(stderr, "%s\\n", sqlite3_errmsg(db)); return 1; }
  if (sqlite3_exec(db, "PRAGMA journal_mode=WAL; CREATE TABLE t(x); INSERT INTO t VALUES(7)", 0, 0, 0)) return 2;
  sqlite3_close(db);
  printf("%s\\n", replica_version_string());
  return 0;
}
"""


class Install(harness.TestCase):
    def setUp(self):
        super().setUp()
        if os.environ.get("REPLICA_TEST_SANITIZED"):
            self.skipTest("the host program is built without the sanitizer's flags")
        self.prefix = self.path("usr")
        subprocess.run(["cmake", "--install", os.environ["REPLICA_TEST_BUILD"], "--prefix", self.prefix], check=True,
                       stdout=subprocess.DEVNULL)
        # Where it was installed is not where it stays.
        os.rename(self.prefix, self.path("moved"))
        self.prefix = self.path("moved")
        with open(self.path("host.c"), "w") as file:
            file.write(HOST)

    def pkg_config(self, *arguments):
        folders = [folder for folder, _, files in os.walk(self.prefix) if "libreplica.pc" in files]
        return subprocess.run(["pkg-config", *arguments, "libreplica"], check=True, capture_output=True, text=True,
                              env=dict(os.environ, PKG_CONFIG_PATH=folders[0])).stdout.split()

    def check_host(self, **environment):
        done = subprocess.run([self.path("host"), self.path("c.db")], capture_output=True, text=True, timeout=60,
                              env=clean_environment(REPLICA_URL=self.url(), **environment))
        self.assertEqual((done.returncode, done.stdout), (0, "0.2.0\n"), done.stderr)
        harness.restore(self.url("replica/c.db"), self.path("r.db"))
        self.assertEqual(sqlite3.connect(self.path("r.db")).execute("SELECT x FROM t").fetchall(), [(7,)])
        done = subprocess.run([self.path("host"), self.path("d.db")], capture_output=True, text=True, timeout=60,
                              env=clean_environment(RAILS_ENV="production", **environment))
        self.assertEqual(done.returncode, 1, "the application stops at start")
        self.assertIn("REPLICA_URL", done.stderr)

    def test_linked_by_pkg_config(self):
        subprocess.run(["cc", self.path("host.c"), "-o", self.path("host")] + self.pkg_config("--cflags", "--libs"),
                       check=True)
        self.check_host(LD_LIBRARY_PATH=self.pkg_config("--variable=libdir")[0])

    def test_static_library(self):
        archive = os.path.join(self.pkg_config("--variable=libdir")[0], "libreplica.a")
        libraries = ["-lsqlite3", "-lcurl", "-lcrypto", "-lzstd", "-lpugixml", "-lyaml-cpp", "-lstdc++", "-lpthread", "-lm"]
        subprocess.run(["cc", self.path("host.c"), archive, "-o", self.path("host")] + self.pkg_config("--cflags") +
                       libraries, check=True)
        self.check_host()

    def test_loaded_by_the_shell(self):
        library = os.path.join(self.pkg_config("--variable=libdir")[0], "libreplica")
        done = subprocess.run(["sqlite3", ":memory:", "-cmd", ".load " + library, "SELECT replica_version()"],
                              capture_output=True, text=True, env=clean_environment(), check=True)
        self.assertIn("0.2.0", done.stdout)


if __name__ == "__main__":
    harness.main()

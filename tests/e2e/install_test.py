"""The installed tree, as a C application and the shell use it."""
import os
import shutil
import sqlite3
import subprocess
import unittest

import harness
from harness import clean_environment

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.environ["REPLICA_TEST_BUILD"]
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


def sections(path):
    return subprocess.run(["readelf", "--wide", "--sections", path], check=True, capture_output=True, text=True).stdout


class Install(harness.TestCase):
    def setUp(self):
        super().setUp()
        if os.environ.get("REPLICA_TEST_SANITIZED"):
            self.skipTest("the host program is built without the sanitizer's flags")
        self.prefix = self.path("usr")
        subprocess.run(["cmake", "--install", BUILD, "--prefix", self.prefix], check=True,
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

    def check_linked(self, *flags):
        subprocess.run(["cc", self.path("host.c"), "-o", self.path("host")] + self.pkg_config("--cflags", "--libs", *flags),
                       check=True)
        linked = subprocess.run(["ldd", self.path("host")], check=True, capture_output=True, text=True).stdout
        self.assertNotIn("libreplica", linked, "the library is in the program")
        self.check_host()

    def test_linked_by_pkg_config(self):
        self.check_linked()

    def test_linked_by_pkg_config_static(self):
        self.check_linked("--static")

    def test_loaded_by_the_shell(self):
        library = os.path.join(self.pkg_config("--variable=libdir")[0], "libreplica")
        done = subprocess.run(["sqlite3", ":memory:", "-cmd", ".load " + library, "SELECT replica_version()"],
                              capture_output=True, text=True, env=clean_environment(), check=True)
        self.assertIn("0.2.0", done.stdout)

    def test_installed_without_debug_information(self):
        installed = [os.path.join(folder, file) for folder, _, files in os.walk(self.prefix) for file in files
                     if file in ("libreplica.so", "libreplica.a", "replica") and "completions" not in folder]
        self.assertEqual(len(installed), 3, installed)
        for path in installed:
            self.assertNotIn(".debug_", sections(path), path)

    def test_debug_information_is_kept_when_asked_for(self):
        archive = os.path.join(BUILD, "libreplica.a")
        if ".debug_" not in sections(archive):
            self.skipTest("the build has none")
        # Configured apart; what it installs is from the build under test.
        subprocess.run(["cmake", "-S", ROOT, "-B", self.path("build"), "-DREPLICA_STRIP=OFF", "-DREPLICA_TESTS=OFF"], check=True,
                       stdout=subprocess.DEVNULL)
        shutil.copy(archive, self.path("build"))
        shutil.copy(os.path.join(BUILD, "debian", "changelog.Debian.gz"), self.path("build", "debian"))
        subprocess.run(["cmake", "--install", self.path("build"), "--prefix", self.path("kept"), "--component",
                        "libreplica-dev"], check=True, stdout=subprocess.DEVNULL)
        self.assertIn(".debug_", sections(self.path("kept", "lib", "libreplica.a")))


@unittest.skipUnless(os.geteuid() == 0 and subprocess.run(["unshare", "--mount", "true"]).returncode == 0,
                     "needs root and mount namespaces")
class LoadedByName(harness.TestCase):
    """`.load libreplica` after `cmake --install` into the system's folders, which only this test's programs see."""

    def check(self, prefix, folder):
        script = """
            mount -t tmpfs tmpfs "$1"
            for part in usr etc; do
              mkdir -p "$1/$part/upper" "$1/$part/work"
              mount -t overlay overlay -o "lowerdir=/$part,upperdir=$1/$part/upper,workdir=$1/$part/work" "/$part"
            done
            cmake --install "$2" --prefix "$3" >/dev/null
            test -f "$4/libreplica.so"
            cd /
            sqlite3 -bail :memory: -cmd '.load libreplica' 'SELECT replica_version()'"""
        done = subprocess.run(["unshare", "--mount", "sh", "-euc", script, "-", self.folder, BUILD,
                               prefix, folder], capture_output=True, text=True, env=clean_environment())
        self.assertEqual((done.returncode, done.stdout), (0, "0.2.0\n"), done.stderr)

    def test_in_usr_local(self):
        self.check("/usr/local", "/usr/local/lib")

    def test_in_usr(self):
        self.check("/usr", "/usr/lib")


if __name__ == "__main__":
    harness.main()

"""The Debian packages: lintian-clean, they install and work, and leave nothing behind when they are removed."""
import glob
import os
import subprocess

import harness
from harness import clean_environment

SOURCE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


class DebianPackages(harness.TestCase):
    def run_it(self, *command, **more):
        done = subprocess.run(command, capture_output=True, text=True, timeout=1200, env=clean_environment(CMAKE_CXX_COMPILER_LAUNCHER=os.environ.get("CMAKE_CXX_COMPILER_LAUNCHER", "")), **more)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return done.stdout

    def test_build_check_install_remove(self):
        if os.environ.get("REPLICA_TEST_SANITIZED"):
            self.skipTest("packages are made from release builds")
        # Kept in the build folder, so that only what changed is compiled again.
        folder = os.path.join(os.environ["REPLICA_TEST_BUILD"], "debian")
        for old in glob.glob(folder + "/packages/*.deb"):
            os.remove(old)
        self.run_it(os.path.join(SOURCE, "scripts", "package.sh"), folder)
        packages = glob.glob(folder + "/packages/*.deb")
        self.assertEqual(len(packages), 2)
        self.assertEqual(self.run_it("lintian", "--fail-on", "warning", *packages), "")

        root = self.path("root")
        for name in ("var/lib/dpkg/updates", "var/lib/dpkg/info"):
            os.makedirs(os.path.join(root, name))
        open(root + "/var/lib/dpkg/status", "w").close()

        def files():
            return sorted(os.path.join(base, name)[len(root):] for base, _, names in os.walk(root) for name in names
                          if not base.startswith(root + "/var/lib/dpkg"))
        # Without chroot: dependencies are the machine's own, and there are no maintainer scripts.
        dpkg = ["dpkg", "--root=" + root, "--force-depends", "--force-not-root", "--log=/dev/null"]
        self.run_it(*dpkg, "--install", *packages)
        installed = files()
        for name in ("/usr/bin/replica", "/usr/lib/systemd/system/replica.service", "/usr/share/man/man1/replica.1.gz",
                     "/usr/share/bash-completion/completions/replica", "/usr/include/replica.h"):
            self.assertIn(name, installed)
        command = root + "/usr/bin/replica"
        self.assertRegex(self.run_it(command, "--version"), r"^replica \d")
        library = glob.glob(root + "/usr/lib/*/libreplica.so")[0]
        out = self.run_it("sqlite3", "-batch", ":memory:", "-cmd", ".load " + library[:-3], "SELECT replica_version()")
        self.assertRegex(out, r"^\d+\.\d+\.\d+$")
        unit = root + "/usr/lib/systemd/system/replica.service"
        with open(unit) as file:
            self.assertIn("ExecStart=/usr/bin/replica replicate", file.read())
        # systemd's own judgement of the hardening: below 5 is "OK".
        exposure = self.run_it("systemd-analyze", "security", "--offline=yes", "--threshold=50", unit)
        self.assertIn("exposure level", exposure)
        self.run_it(*dpkg, "--purge", "libreplica", "libreplica-dev")
        self.assertEqual(files(), [])


if __name__ == "__main__":
    harness.main()

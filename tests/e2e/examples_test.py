"""The examples, run for real, and the packages, built and used from a fresh venv and a fresh npm folder without network."""
import glob
import json
import os
import shutil
import subprocess
import sys
import uuid

import harness
from harness import clean_environment

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.environ["REPLICA_TEST_BUILD"]
EXAMPLES = os.path.join(ROOT, "examples")
PYTHON = "/usr/bin/python3"
# better-sqlite3, compiled once and kept.
NODE_FOLDER = os.path.join(BUILD, "node", "example")

USE_PACKAGE = """
import sqlite3, libreplica
libreplica.load()
db = sqlite3.connect("%s")
db.execute("PRAGMA journal_mode=WAL")
db.execute("CREATE TABLE t(x)")
assert db.execute("SELECT replica_sync()").fetchone()[0] == 1
with db: db.execute("INSERT INTO t VALUES(7)")
assert db.execute("SELECT replica_sync()").fetchone()[0] == 2
assert db.execute("SELECT replica_version()").fetchone()[0] == libreplica.__version__
own = sqlite3.connect(":memory:")
libreplica.load(own)
try: own.load_extension(libreplica.loadable_path())
except sqlite3.OperationalError as error: assert "not authorized" in str(error), error
else: raise SystemExit("loading is still enabled")
assert own.execute("SELECT replica_version()").fetchone()[0] == libreplica.__version__
"""

ESM = """
import { getCommandPath, getLoadablePath, load } from 'libreplica';
import whole from 'libreplica';
import fs from 'node:fs';
if (whole.load !== load || !fs.existsSync(getLoadablePath() + '.so') || !fs.existsSync(getCommandPath())) process.exit(1);
"""


def run(*command, cwd=None, code=0, **environment):
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, cwd=cwd, stdin=subprocess.DEVNULL,
                          env=clean_environment(**environment))
    if code is not None and done.returncode != code:
        raise AssertionError("%s: exit code %d\n%s%s" % (" ".join(command), done.returncode, done.stdout, done.stderr))
    return done.stdout + done.stderr


def node_modules():
    """The folder with better-sqlite3; installs it where it is missing, and fails where that fails."""
    run(os.path.join(ROOT, "scripts", "install-node-example.sh"), NODE_FOLDER)
    return os.path.join(NODE_FOLDER, "node_modules")


class Case(harness.TestCase):
    def setUp(self):
        super().setUp()
        if os.environ.get("REPLICA_TEST_SANITIZED"):
            self.skipTest("the host programs are built without the sanitizer's flags")
        os.mkdir(self.path("work"))


class Examples:
    """Each example once; subclasses say where the replica lies."""

    def run_example(self, *command, **environment):
        return run(*command, LIBREPLICA=harness.LIBRARY, **{**self.place(), **environment})

    def test_shell(self):
        self.assertIn("every row is back", self.run_example(os.path.join(EXAMPLES, "shell", "run.sh")))

    def test_c(self):
        run("cmake", "--install", BUILD, "--prefix", self.path("usr"))
        shutil.copytree(os.path.join(EXAMPLES, "c"), self.path("c"))
        folders = [folder for folder, _, files in os.walk(self.path("usr")) if "libreplica.pc" in files]
        run("make", cwd=self.path("c"), PKG_CONFIG_PATH=folders[0])
        linked = run("ldd", self.path("c", "ledger"))
        self.assertNotIn("libreplica", linked, "the library is in the program")
        self.assertIn("PRAGMA integrity_check: ok", self.run_example(self.path("c", "ledger"), self.path("work")))

    def test_python(self):
        out = self.run_example(PYTHON, os.path.join(EXAMPLES, "python", "app.py"), self.path("work"))
        self.assertIn("restored: 300 rows", out)

    def test_sqlalchemy(self):
        out = self.run_example(PYTHON, os.path.join(EXAMPLES, "python", "orm.py"), self.path("work"))
        self.assertIn("restored: 500 rows", out)

    def test_node(self):
        os.symlink(node_modules(), self.path("node_modules"))
        shutil.copy(os.path.join(EXAMPLES, "node", "app.js"), self.path("app.js"))
        self.assertIn("restored: 300 rows", self.run_example("node", self.path("app.js"), self.path("work")))

    def test_uploading_in_a_process_of_its_own(self):
        out = self.run_example(PYTHON, os.path.join(EXAMPLES, "python", "app.py"), self.path("work"),
                               REPLICA_UPLOADER="process")
        self.assertIn("restored: 300 rows", out)


class ExamplesWithAFolder(Examples, Case):
    def place(self):
        return {"REPLICA_URL": self.url()}

    def test_an_example_notices_a_replica_that_is_not_whole(self):
        """The examples' exit code is worth something: nothing can be stored, so nothing is proven."""
        open(self.path("replica"), "w").close()
        out = run(PYTHON, os.path.join(EXAMPLES, "python", "app.py"), self.path("work"), code=1,
                  LIBREPLICA=harness.LIBRARY, **self.place())
        self.assertIn("Error", out)


class ExamplesWithS3(Examples, Case):
    def setUp(self):
        super().setUp()
        harness.S3().make_bucket("examples")

    def place(self):
        return {"REPLICA_URL": "s3://examples/" + uuid.uuid4().hex, "REPLICA_ENDPOINT": harness.S3_ENDPOINT,
                "REPLICA_ACCESS_KEY_ID": harness.ACCESS_KEY, "REPLICA_SECRET_ACCESS_KEY": harness.SECRET_KEY}


class PythonPackage(Case):
    def setUp(self):
        super().setUp()
        self.wheel = run(os.path.join(ROOT, "packaging", "python", "build.sh"), BUILD, self.path("dist")).strip()
        self.assertRegex(os.path.basename(self.wheel), r"^libreplica-[0-9.]+-py3-none-linux_\w+\.whl$")
        run(PYTHON, "-m", "venv", self.path("venv"))
        run(self.path("venv", "bin", "pip"), "install", "--no-index", self.wheel)

    def test_load_and_replicate(self):
        python = self.path("venv", "bin", "python")
        run(python, "-c", USE_PACKAGE % self.path("work", "p.db"), REPLICA_URL=self.url())
        harness.restore(self.url("replica/p.db"), self.path("r.db"))
        self.assertEqual(harness.check_file(self.path("r.db")), "ok")
        # The example finds the package when LIBREPLICA says nothing.
        run(python, os.path.join(EXAMPLES, "python", "app.py"), self.path("work"), REPLICA_URL=self.url("second"))

    def test_uploader_process_is_the_package_s_own_command(self):
        code = USE_PACKAGE % self.path("work", "p.db") + (
            # The child takes over within moments; until then the application uploads.
            "import json, os, time\npid = None\nwhile pid in (None, os.getpid()):\n    time.sleep(0.02)\n"
            "    pid = json.loads(db.execute('SELECT replica_status()').fetchone()[0])['leader_pid']\n"
            "print(os.readlink('/proc/%d/exe' % pid))\n")
        out = run(self.path("venv", "bin", "python"), "-c", code, REPLICA_URL=self.url(), REPLICA_UPLOADER="process")
        found = glob.glob(self.path("venv", "lib", "python3*", "site-packages", "libreplica", "replica"))
        self.assertEqual(out.strip(), found[0])

    def test_command(self):
        command = self.path("venv", "bin", "replica")
        self.assertIn("0.2.0", run(command, "--version"))
        self.assertIn("0.2.0", run(self.path("venv", "bin", "python"), "-m", "libreplica", "--version"))
        done = subprocess.run([command, "no-such-verb"], capture_output=True, env=clean_environment(), timeout=60)
        self.assertNotEqual(done.returncode, 0, "the exit code is the command's")

    def test_a_missing_setting_stops_the_application(self):
        out = run(self.path("venv", "bin", "python"), "-c", "import libreplica; libreplica.load()", code=1, APP_ENV="production")
        self.assertIn("REPLICA_URL", out)

    def test_python_without_loadable_extensions(self):
        """As on macOS and in some pyenv builds: the sqlite3 module has no enable_load_extension."""
        code = "import libreplica\nclass Bare: pass\nlibreplica.load(Bare())"
        self.assertIn("enable-loadable-sqlite-extensions", run(self.path("venv", "bin", "python"), "-c", code, code=1))

    def test_uninstall_leaves_nothing(self):
        run(self.path("venv", "bin", "pip"), "uninstall", "-y", "libreplica")
        self.assertEqual(glob.glob(self.path("venv", "lib", "python3*", "site-packages", "libreplica*")), [])


class NpmPackage(Case):
    def setUp(self):
        super().setUp()
        archive = run(os.path.join(ROOT, "packaging", "npm", "build.sh"), BUILD, self.path("dist")).strip()
        self.assertTrue(os.path.exists(archive), archive)
        self.app = self.path("app")
        os.mkdir(self.app)
        with open(os.path.join(self.app, "package.json"), "w") as file:
            json.dump({"name": "app", "version": "1.0.0", "private": True}, file)
        run("npm", "install", archive, "--offline", "--no-audit", "--no-fund", cwd=self.app)

    def test_load_and_replicate(self):
        for name in os.listdir(node_modules()):
            if not os.path.exists(os.path.join(self.app, "node_modules", name)) and not name.startswith("."):
                os.symlink(os.path.join(node_modules(), name), os.path.join(self.app, "node_modules", name))
        shutil.copy(os.path.join(EXAMPLES, "node", "app.js"), os.path.join(self.app, "app.js"))
        # The example finds the package when LIBREPLICA says nothing.
        out = run("node", "app.js", self.path("work"), cwd=self.app, REPLICA_URL=self.url())
        self.assertIn("restored: 300 rows", out)
        code = ("const db = new (require('better-sqlite3'))(':memory:'); require('libreplica').load(db);"
                "console.log(db.prepare('SELECT replica_version()').pluck().get())")
        self.assertEqual(run("node", "-e", code, cwd=self.app).strip(), "0.2.0")
        self.assertIn("REPLICA_URL", run("node", "-e", code, cwd=self.app, code=1, NODE_ENV="production"))

    def test_node_s_own_sqlite(self):
        if "available" not in run("node", "-e", "require('node:sqlite'); console.log('available')", code=None):
            self.skipTest("node:sqlite came with Node 22.13; this one is older")
        code = """
            const { DatabaseSync } = require('node:sqlite');
            const assert = require('node:assert');
            const first = new DatabaseSync(':memory:', { allowExtension: true });
            require('libreplica').load(first);
            assert.throws(() => first.loadExtension('x'), /not allowed|not authorized/);
            const db = new DatabaseSync(process.argv[1]);
            db.exec('PRAGMA journal_mode=WAL; CREATE TABLE t(x); INSERT INTO t VALUES (7)');
            db.prepare('SELECT replica_sync()').get();
            const proof = JSON.parse(db.prepare("SELECT replica_verify('main', 'full') AS p").get().p);
            assert.strictEqual(proof.ok, true);
            db.close();"""
        run("node", "-e", code, self.path("work", "n.db"), cwd=self.app, REPLICA_URL=self.url())
        harness.restore(self.url("replica/n.db"), self.path("r.db"))
        self.assertEqual(harness.check_file(self.path("r.db")), "ok")

    def test_esm(self):
        with open(os.path.join(self.app, "app.mjs"), "w") as file:
            file.write(ESM)
        run("node", "app.mjs", cwd=self.app)

    def test_command(self):
        self.assertIn("0.2.0", run("npx", "--offline", "--no-install", "replica", "--version", cwd=self.app))
        self.assertIn("0.2.0", run(os.path.join(self.app, "node_modules", ".bin", "replica"), "--version"))


if __name__ == "__main__":
    harness.main()

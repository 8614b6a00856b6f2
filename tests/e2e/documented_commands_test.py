"""Every command in the documents, run as it stands there.

Blocks of sh, console, sql, yaml and python are run, each in a folder of its own, against the installed library (`cmake --install
--prefix /usr/local`) and the S3 server. What cannot be run is listed below with its reason, and printed. A block of a language that
is in neither list fails, and so does an entry that no document has any more.

The documents write to /usr/local and /var/backups: the test runs in a mount namespace where these are its own.
"""
import glob
import os
import re
import subprocess
import sys
import unittest

import harness
from harness import clean_environment

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.environ["REPLICA_TEST_BUILD"]
INSIDE = "DOCUMENTED_COMMANDS_INSIDE"
DOCUMENTS = sorted(glob.glob(os.path.join(ROOT, "docs", "*.md")) + glob.glob(os.path.join(ROOT, "examples", "**", "*.md"), recursive=True)
                   + glob.glob(os.path.join(ROOT, "packaging", "*", "README.md")) + [os.path.join(ROOT, "README.md")])

# Languages of blocks that are not commands.
NOT_COMMANDS = {
    "text": "pictures, layouts, messages",
    "c": "a fragment; examples/c has it whole, and examples_test runs that",
    "js": "needs the npm package; examples_test makes it and runs examples/node",
    "dockerfile": "needs docker and images",
    "ini": "settings of systemd",
}

# Commands, or whole blocks (by their first line), that are not run.
NOT_RUN = {
    "scripts/demo.sh": "installs packages and compiles",
    "scripts/test.sh": "installs packages, compiles and runs this test",
    "ctest --preset release -R sqlite": "sqlite_test is that",
    "tests/sqlite/campaign.sh build": "takes hours",
    "scripts/package.sh packages": "compiles; package_test runs it",
    "export REPLICA_URL=s3://bucket/app REPLICA_ACCESS_KEY_ID=… REPLICA_SECRET_ACCESS_KEY=…": "the keys are left out",
    "apt-get install --no-install-recommends ruby-railties ruby-activerecord ruby-sqlite3 puma": "installs packages",
    "apt-get install libcurl4 libssl3 libzstd1 libpugixml1v5 libyaml-cpp0.7 libsqlite3-0 libsystemd0": "installs packages",
    "npm_config_build_from_source=true npm_config_nodedir=/usr npm ci": "downloads and compiles; examples_test does it",
    "@event.listens_for(engine, \"connect\")": "a fragment; examples_test runs examples/python/orm.py",
}

# Commands that run until they are interrupted.
SERVERS = {"replica dashboard"}

# What the output of a block with this command must hold.
EXPECTED = {
    "sqlite3 app.db": ["file:///var/backups/app", '"ok":true', '"integrity_check":"ok"', '"path":'],
    "sqlite3 app.db -cmd '.load /usr/local/lib/libreplica'": ["s3://bucket/app"],
    "replica status": ["streaming", "restored and compared page by page", "before-the-mistake.db"],
    "cmake --install build --prefix /usr/local": ["/usr/local/lib/libreplica.so"],
}

# serve COMMAND…: waits until it says where it serves, and interrupts it.
PRELUDE = """
serve() {
  touch served
  "$@" >>served 2>&1 &
  for _ in {1..100}; do ! grep -q http:// served || break; sleep 0.1; done
  grep http:// served || { cat served; return 1; }
  kill -INT $!
  wait $! || [ $? = 130 ]
}
"""


def blocks(document):
    """(line, language, text) of each fenced block. What is indented by four spaces outside of lists is a block too."""
    with open(document) as file:
        lines = file.read().split("\n")
    fence = None
    for number, line in enumerate(lines, 1):
        if line.startswith("```"):
            if fence is None:
                fence = (number, line[3:].strip(), [])
            else:
                yield fence[0], fence[1], "\n".join(fence[2])
                fence = None
        elif fence is not None:
            fence[2].append(line)
        elif line.startswith("    ") and number > 1 and not lines[number - 2].strip():
            yield number, "", line


def bare(line):
    """A command without its comment."""
    return re.sub(r"(^|\s+)#\s.*$", "", line).strip()


def configured(case):
    with open(case.path("replica.yml"), "w") as file:
        file.write("dbs:\n  - path: app.db\n    replica:\n      url: file://%s\n" % case.path("replica"))


def looked_after(case):
    """A replicated database whose commits are older than the time that README.md restores to."""
    subprocess.run(["cc", "-shared", "-fPIC", "-o", case.path("clock.so"), os.path.join(ROOT, "tests", "e2e", "clock.c")],
                   check=True)
    with open(case.path("clock"), "w") as file:
        file.write(subprocess.run(["sh", "-c", "echo $(( $(date -d 2026-01-30T12:00Z +%s) - $(date +%s) ))"], check=True,
                                  capture_output=True, text=True).stdout)
    configured(case)
    case.run_script("LD_PRELOAD=$PWD/clock.so CLOCK_FILE=$PWD/clock sqlite3 -bail app.db -cmd '.load libreplica' "
                    "'PRAGMA journal_mode=WAL' 'CREATE TABLE t(x)' 'INSERT INTO t VALUES (1)' 'SELECT replica_sync()'")
    # One that lives, as an application does.
    application = subprocess.Popen(["sqlite3", "app.db", "-cmd", ".load libreplica"], stdin=subprocess.PIPE, text=True,
                                   cwd=case.folder, stdout=subprocess.PIPE, env=case.environment())
    case.addCleanup(application.communicate, timeout=60)
    application.stdin.write("INSERT INTO t VALUES (2); SELECT replica_sync();\n")
    application.stdin.flush()
    application.stdout.readline()


def c_program(case):
    os.symlink(os.path.join(ROOT, "examples", "c", "main.c"), case.path("main.c"))


def python_package(case):
    subprocess.run([os.path.join(ROOT, "packaging", "python", "build.sh"), BUILD, case.path("dist")], check=True,
                   stdout=subprocess.DEVNULL)
    subprocess.run([sys.executable, "-m", "zipfile", "-e", *glob.glob(case.path("dist", "*.whl")), case.path()], check=True)


# By a command of a block: what is there before the block runs.
PREPARE = {
    "replica status": looked_after,
    "replica dashboard": configured,
    "cc main.c -o main $(pkg-config --cflags --libs libreplica)": c_program,
    "import sqlite3, libreplica": python_package,
    "import libreplica": python_package,
}


class DocumentedCommands(harness.TestCase):
    document = None

    def setUp(self):
        super().setUp()
        os.symlink(BUILD, self.path("build"))
        s3 = harness.S3()
        s3.make_bucket("bucket")
        for key in s3.keys("bucket", ""):
            s3.delete("bucket", key)

    def environment(self):
        keys = {family + name: value for family in ("REPLICA_", "LITESTREAM_") for name, value in
                (("ACCESS_KEY_ID", harness.ACCESS_KEY), ("SECRET_ACCESS_KEY", harness.SECRET_KEY))}
        return clean_environment(REPLICA_ENDPOINT=harness.S3_ENDPOINT, REPLICA_DASHBOARD_LISTEN="127.0.0.1:0",
                                 PATH="/usr/local/bin:" + os.environ["PATH"], LD_LIBRARY_PATH="/usr/local/lib", **keys)

    def run_script(self, script, *interpreter):
        done = subprocess.run([*(interpreter or ("bash", "-euo", "pipefail", "-c")), script], cwd=self.folder, text=True,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120,
                              env=self.environment())
        self.assertEqual(done.returncode, 0, "%s\n%s" % (script, done.stdout))
        return done.stdout

    def run_sh(self, text):
        lines = []
        for line in text.split("\n"):
            if bare(line) in NOT_RUN:
                continue
            lines.append("serve " + line if bare(line) in SERVERS else line)
        return self.run_script(PRELUDE + "\n".join(lines))

    def run_console(self, text):
        """`$ ` begins a command, any other prompt a line of what it reads; lines without one are output."""
        script = []
        for line in text.split("\n"):
            if line.startswith("$ "):
                script.append([line[2:]])
            elif re.match(r"\w+> ", line):
                script[-1].append(line.split("> ", 1)[1])
        out = ""
        for command, *read in script:
            out += self.run_script(command + (" <<'END'\n%s\nEND" % "\n".join(read) if read else ""))
        self.assertNotIn("Error", out)
        return out

    def run_sql(self, text):
        return self.run_script("sqlite3 -bail app.db -cmd '.load libreplica' <<'END'\n%s\nEND" % text)

    def run_yaml(self, text):
        with open(self.path("replica.yml"), "w") as file:
            file.write(text)
        return self.run_script("chmod 600 replica.yml; REPLICA_URL=s3://bucket/app replica --config replica.yml config")

    def run_python(self, text):
        return self.run_script(text, sys.executable, "-c")

    def check(self, language, text):
        lines = [bare(line) for line in text.split("\n")]
        commands = [line[2:] if line.startswith("$ ") else line for line in lines if line]
        for command in commands:
            if command in PREPARE:
                PREPARE[command](self)
        out = getattr(self, "run_" + language)(text)
        for command in commands:
            for expected in EXPECTED.get(command, []):
                self.assertIn(expected, out)


class Coverage(unittest.TestCase):
    def test_what_is_listed_is_in_the_documents(self):
        lines = {line for document in DOCUMENTS for _, _, text in blocks(document) for line in map(bare, text.split("\n"))}
        lines |= {line[2:] for line in lines if line.startswith("$ ")}
        for listed in [*NOT_RUN, *SERVERS, *EXPECTED, *PREPARE]:
            self.assertIn(listed, lines)

    def test_commands_and_options_in_the_text(self):
        """`replica verb --option` in a sentence or a table: the command knows them."""
        known = {}
        for document in DOCUMENTS:
            with open(document) as file:
                text = re.sub(r"^```.*?^```", "", file.read(), flags=re.S | re.M)
            for command in re.findall(r"`replica ((?:[^`\\]|\\\|)+)`", text):
                words = command.split()
                verbs = [word for word in words if not word.startswith("-")]
                name = words[words.index("-c") + 2] if words[0] == "-c" else verbs[0] if verbs else ""
                if name not in known:
                    known[name] = subprocess.run([harness.COMMAND, *([name] if name else []), "--help"], capture_output=True,
                                                 text=True)
                self.assertEqual(known[name].returncode, 0, "%s: replica %s" % (document, command))
                for option in re.findall(r"(?<![\w-])--?[a-z][a-z-]*", command):
                    if option not in ("-c", "--json", "--supervised"):  # of every command; not for people
                        self.assertRegex(known[name].stdout, r"(^|[\s,])%s\b" % option, "%s: replica %s" % (document, command))


def add_tests():
    """A test for each block that is run; prints the others."""
    for document in DOCUMENTS:
        name = os.path.relpath(document, ROOT)
        for line, language, text in blocks(document):
            place = "%s:%d" % (name, line)
            commands = [command for command in map(bare, text.split("\n")) if command]
            left_out = [command for command in commands if command in NOT_RUN]
            if language in NOT_COMMANDS:
                print("not run: %s: %s: %s" % (place, language, NOT_COMMANDS[language]))
                continue
            for command in left_out:
                print("not run: %s: %s: %s" % (place, command, NOT_RUN[command]))
            if left_out and (left_out == commands or left_out[0] == commands[0] and language == "python"):
                continue

            def test(self, language=language, text=text, place=place):
                self.assertTrue(hasattr(self, "run_" + language),
                                "%s: a block of \"%s\": fence it with a language that is run, or list it here" % (place, language))
                self.check(language, text)
            setattr(DocumentedCommands, "test_" + re.sub(r"\W", "_", place), test)


NAMESPACE = """
  mount -t tmpfs tmpfs /usr/local
  mount -t tmpfs tmpfs /var/backups
  # ldconfig writes the loader's cache there.
  if [ -w /etc/ld.so.cache ]; then
    mkdir /usr/local/upper /usr/local/work
    mount -t overlay overlay -o lowerdir=/etc,upperdir=/usr/local/upper,workdir=/usr/local/work /etc
  fi
"""

if __name__ == "__main__":
    if os.environ.get("REPLICA_TEST_SANITIZED"):
        print("skipped: the programs that load the library are built without the sanitizer's flags")
        sys.exit(77)
    if not os.environ.get(INSIDE):
        unshare = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--mount"]
        if subprocess.run([*unshare, "sh", "-euc", NAMESPACE], capture_output=True).returncode != 0:
            print("skipped: this machine allows neither user nor mount namespaces")
            sys.exit(77)
        os.environ[INSIDE] = "1"
        os.execvp("unshare", [*unshare, "sh", "-euc", NAMESPACE + 'exec "$@"', "-", sys.executable] + sys.argv)
    subprocess.run(["cmake", "--install", BUILD, "--prefix", "/usr/local"], check=True, stdout=subprocess.DEVNULL)
    add_tests()
    sys.stdout.flush()
    harness.main()

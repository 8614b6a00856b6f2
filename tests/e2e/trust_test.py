"""What an outside review found, as tests: each failed before its fault was repaired, and is named for it."""
import ctypes
import glob
import json
import os
import pwd
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import unittest

import harness
from harness import COMMAND, LIBRARY, ask, clean_environment, connect, image, load, one, restore, status, sync

HERE = os.path.dirname(os.path.abspath(__file__))
SANITIZED = os.environ.get("REPLICA_TEST_SANITIZED", "")


def run_sql(path, *statements, environment=None, timeout=60, check=True):
    """Opens the database in a process of its own, with the library loaded before; runs each statement; closes."""
    code = ("import sys, sqlite3\nfrom harness import *\nm = load(sqlite3.connect(':memory:'))\n"
            "c = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=20)\n"
            "for s in sys.argv[2:]: print(*c.execute(s).fetchall())\nc.close()\n")
    done = subprocess.run([sys.executable, "-c", code, path, *statements], capture_output=True, text=True, timeout=timeout,
                          env=dict(environment or os.environ, PYTHONPATH=HERE))
    if check and done.returncode != 0:
        raise AssertionError(done.stdout + done.stderr)
    return done if not check else done.stdout


class TrustCase(harness.TestCase):
    def build(self, source, *flags):
        out = self.path(os.path.splitext(source)[0] + (".so" if "-shared" in flags else ""))
        subprocess.run(["cc", "-o", out, os.path.join(HERE, source), *flags], check=True)
        return out

    def preload(self, source="late_threads.c", **variables):
        """An environment in which that is preloaded (after a sanitizer's runtime, if there is one)."""
        library = self.build(source, "-shared", "-fPIC", "-ldl")
        before = os.environ.get("LD_PRELOAD", "")
        return clean_environment(LD_PRELOAD=(before + " " + library).strip(), **variables)

    def events(self, path):
        out = []
        for name in (path + "-replica/events.1", path + "-replica/events"):
            if os.path.exists(name):
                with open(name) as file:
                    out += [json.loads(line) for line in file if line.startswith("{")]
        return out

    def restored_rows(self, url, sql="SELECT group_concat(a) FROM t", environment=None):
        out = self.path("out-%d.db" % time.monotonic_ns())
        restore(url, out, environment=environment)
        return sqlite3.connect("file:%s?immutable=1" % out, uri=True).execute(sql).fetchone()[0]


class Succession(TrustCase):
    def test_Invariant_NoCommitLost_short_visits_whose_leader_begins_after_the_close(self):
        """The leader's thread asked the wal-index of its own time about the visit that was over: its commits vanished."""
        late = self.preload(LATE_THREADS="100", REPLICA_URL=self.url(), REPLICA_CONFIG="off")
        punctual = clean_environment(REPLICA_URL=self.url(), REPLICA_CONFIG="off")
        path = self.path("app.db")
        run_sql(path, "PRAGMA journal_mode=WAL", "CREATE TABLE t(a)", "INSERT INTO t VALUES(1)", environment=late)
        run_sql(path, "SELECT count(*) FROM t", environment=punctual)
        run_sql(path, "INSERT INTO t VALUES(2)", "INSERT INTO t VALUES(3)", environment=late)
        run_sql(path, "SELECT count(*) FROM t", "SELECT replica_sync('main', 10000)", environment=punctual)
        self.assertEqual(self.restored_rows(self.url() + "/app.db"), "1,2,3")
        self.assertEqual([e for e in self.events(path) if "pages differ" in e["message"]], [])

    def test_a_checkpoint_while_the_leader_attaches(self):
        """It came after the leader had looked at the WAL, and before gates kept frames: every page was compared."""
        path = self.path("app.db")
        environment = dict(REPLICA_URL=self.url(), REPLICA_CONFIG="off")
        run_sql(path, "PRAGMA journal_mode=WAL", "CREATE TABLE t(a)", "INSERT INTO t VALUES(1)", "SELECT replica_sync()",
                environment=clean_environment(**environment))
        os.remove(path + "-replica/control")  # in a new one no gate keeps frames
        code = ("import os, sys, time\nfrom harness import *\nm = load(sqlite3.connect(':memory:'))\n"
                "c = sqlite3.connect(sys.argv[1], isolation_level=None)\nc.execute('SELECT * FROM t').fetchall()\n"
                "end = time.monotonic() + 20\n"
                "while not os.path.exists(sys.argv[2] + '.held') and time.monotonic() < end: time.sleep(0.001)\n"
                "for i in (2, 3):\n    c.execute('INSERT INTO t VALUES(?)', (i,))\n"
                "    c.execute('PRAGMA wal_checkpoint(TRUNCATE)').fetchall()\n"
                "open(sys.argv[2] + '.go', 'w').close()\nprint(one(c, 'SELECT replica_sync()'))\nc.close()\n")
        done = subprocess.run([sys.executable, "-c", code, path, self.path("rename")], capture_output=True, text=True,
                              timeout=60, env=dict(self.preload("one_call.c", HELD_RENAME=self.path("rename"),
                                                                **environment), PYTHONPATH=HERE))
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual([e for e in self.events(path) if e["kind"] == "resync"], [])
        restore(self.url() + "/app.db", self.path("before.db"), int(done.stdout) - 1)
        self.assertEqual(one(sqlite3.connect(self.path("before.db")), "SELECT group_concat(a) FROM t"), "1,2")

    def test_a_snapshot_that_the_disk_had_no_room_for(self):
        """It was ended a second time: stored, acknowledged, and not restorable."""
        for call in ("open", "rename"):
            with self.subTest(call):
                path = self.path(call + ".db")
                environment = self.preload("one_call.c", FULL_ONCE=call, REPLICA_URL=self.url(), REPLICA_CONFIG="off")
                done = run_sql(path, "PRAGMA journal_mode=WAL", "CREATE TABLE t(a)", "INSERT INTO t VALUES(1)",
                               "SELECT replica_sync()", environment=environment, check=False)
                self.assertEqual((done.returncode, done.stderr), (0, "one_call: the disk is full\n"))
                self.assertEqual(self.restored_rows(self.url() + "/%s.db" % call), "1")


class ReplacedFile(TrustCase):
    def setUp(self):
        super().setUp()
        self.file = self.path("app.db")
        self.config = self.path("replica.yml")
        with open(self.config, "w") as file:
            file.write("dbs:\n  - path: %s\n    replica:\n      url: %s\n" % (self.file, self.url()))
        os.chmod(self.config, 0o600)
        self.environment = clean_environment(REPLICA_CONFIG=self.config)

    def make(self, path, row, page_size=4096):
        plain = sqlite3.connect(path, isolation_level=None)
        plain.execute("PRAGMA page_size=%d" % page_size)
        plain.execute("PRAGMA journal_mode=WAL")
        plain.execute("CREATE TABLE t(a)")
        plain.execute("INSERT INTO t VALUES(?)", (row,))
        plain.close()

    def replicate(self):
        process = subprocess.Popen([COMMAND, "replicate"], env=self.environment, stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL)
        self.addCleanup(process.wait)
        self.addCleanup(process.terminate)
        self.wait_for(lambda: self.replica("sync", self.file, environment=self.environment, code=None) and
                      os.path.isdir(self.path("replica")) and glob.glob(self.path("replica/*/snapshot/*")))
        return process

    def check_all_is_about_the_new_file(self):
        self.replica("sync", self.file, environment=self.environment)
        self.replica("verify", "--depth", "full", self.file, environment=self.environment)
        self.assertEqual(self.restored_rows(self.url()), "new")
        self.assertIn("replaced", [e["kind"] for e in self.events(self.file)])

    def test_removed_and_made_anew_while_a_process_replicates(self):
        """sync, status and verify said that all was well: about the file that was gone."""
        self.make(self.file, "old")
        self.replicate()
        for suffix in ("", "-wal", "-shm"):
            if os.path.exists(self.file + suffix):
                os.remove(self.file + suffix)
        self.make(self.file, "new")
        self.check_all_is_about_the_new_file()

    def test_another_file_moved_into_its_place(self):
        self.make(self.file, "old")
        self.make(self.path("next.db"), "new")
        self.replicate()
        for suffix in ("-wal", "-shm"):
            if os.path.exists(self.file + suffix):
                os.remove(self.file + suffix)
        os.rename(self.path("next.db"), self.file)
        self.check_all_is_about_the_new_file()

    def test_of_another_page_size(self):
        """It begins a new generation; the old one's log is ended."""
        self.make(self.file, "old")
        self.make(self.path("next.db"), "new", page_size=8192)
        self.replicate()
        for suffix in ("-wal", "-shm"):
            if os.path.exists(self.file + suffix):
                os.remove(self.file + suffix)
        os.rename(self.path("next.db"), self.file)
        self.check_all_is_about_the_new_file()
        self.assertEqual(len(self.generations()), 2)
        old = self.path("replica", sorted(self.generations())[0], "log")
        self.assertIn(296, [os.path.getsize(os.path.join(old, name)) for name in os.listdir(old)])

    def test_a_connection_on_the_old_file_is_told(self):
        old = connect(self.file)
        old.execute("PRAGMA journal_mode=WAL")
        old.execute("CREATE TABLE t(a)")
        one(old, "SELECT replica_attach(?)", self.url())
        sync(old)
        self.make(self.path("next.db"), "new")
        os.rename(self.path("next.db"), self.file)
        for suffix in ("-wal", "-shm"):
            if os.path.exists(self.file + suffix):
                os.remove(self.file + suffix)
        with self.assertRaisesRegex(sqlite3.OperationalError, "not at .*app.db any more"):
            sync(old)
        with self.assertRaisesRegex(sqlite3.OperationalError, "not at .*app.db any more"):
            one(old, "SELECT replica_verify('main', 'full')")
        old.execute("INSERT INTO t VALUES('into the old file')")
        new = connect(self.file)
        sync(new)
        new.execute("INSERT INTO t VALUES('and on')")
        sync(new)
        self.assertTrue(ask(new, "SELECT replica_verify('main', 'full')")["ok"])
        self.assertEqual(self.restored_rows(self.url()), "new,and on")
        new.close()
        old.close()


class CopiedVolume(TrustCase):
    def setUp(self):
        super().setUp()
        os.mkdir(self.path("production"))
        self.production = self.path("production", "app.db")
        db = connect(self.production)
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("CREATE TABLE t(a)")
        db.execute("INSERT INTO t VALUES('production')")
        one(db, "SELECT replica_attach(?)", self.url())
        sync(db)
        db.close()

    def work(self, path, row, **options):
        db = connect(path)
        try:
            db.execute("INSERT INTO t VALUES(?)", (row,))
            one(db, "SELECT replica_attach(?, ?)", self.url(), json.dumps(options))
            return sync(db, timeout_ms=20000)
        finally:
            db.close()

    def copy(self):
        subprocess.run(["cp", "-a", self.path("production"), self.path("staging")], check=True)
        return self.path("staging", "app.db")

    def test_elsewhere_is_refused_when_production_went_on(self):
        """It took production's history, and production was fenced."""
        staging = self.copy()
        self.work(self.production, "more")
        with self.assertRaisesRegex(sqlite3.OperationalError, "has gone on since .* was copied .*claimed by .*production"):
            self.work(staging, "staging")
        self.work(self.production, "and more")
        self.assertEqual(self.restored_rows(self.url()), "production,more,and more")
        self.work(staging, "takes over", takeover=True)
        self.assertIn("takes over", self.restored_rows(self.url()))

    @unittest.skipUnless(os.geteuid() == 0 and subprocess.run(["unshare", "-m", "true"]).returncode == 0,
                         "needs root and mount namespaces")
    def test_at_the_same_path_of_another_mount_namespace_is_refused(self):
        self.copy()
        self.work(self.production, "more")
        code = ("from harness import *\ndb = connect(%r)\none(db, 'SELECT replica_attach(?)', %r)\n"
                "db.execute(\"INSERT INTO t VALUES('staging')\")\nprint(sync(db, timeout_ms=20000))\n" % (self.production, self.url()))
        done = subprocess.run(["unshare", "-m", "sh", "-c", "mount --bind %s %s && exec %s -c \"$CODE\"" %
                               (self.path("staging"), self.path("production"), sys.executable)],
                              env=dict(os.environ, CODE=code, PYTHONPATH=HERE), capture_output=True, text=True, timeout=120)
        self.assertIn("has gone on since", done.stderr)
        self.work(self.production, "and more")
        self.assertEqual(self.restored_rows(self.url()), "production,more,and more")

    def test_where_nothing_newer_lies_one_of_the_two_goes_on(self):
        staging = self.copy()
        self.work(staging, "staging")
        told = [e["message"] for e in self.events(staging) if e["kind"] == "copy"]
        self.assertEqual(len(told), 1)
        self.assertIn(self.production, told[0])
        self.assertIn(staging, told[0])
        with self.assertRaisesRegex(sqlite3.OperationalError, "another writer.*staging"):
            self.work(self.production, "too late")
        self.assertEqual(self.restored_rows(self.url()), "production,staging")

    def test_the_same_folder_under_another_path_goes_on(self):
        os.symlink(self.path("production"), self.path("link"))
        self.work(self.path("link", "app.db"), "by a link")
        if os.geteuid() == 0 and subprocess.run(["unshare", "-m", "true"]).returncode == 0:
            os.mkdir(self.path("mounted"))
            code = ("from harness import *\ndb = connect(%r)\none(db, 'SELECT replica_attach(?)', %r)\n"
                    "db.execute(\"INSERT INTO t VALUES('by a mount')\")\nsync(db, timeout_ms=20000)\n" %
                    (self.path("mounted", "app.db"), self.url()))
            subprocess.run(["unshare", "-m", "sh", "-c", "mount --bind %s %s && exec %s -c \"$CODE\"" %
                            (self.path("production"), self.path("mounted"), sys.executable)],
                           env=dict(os.environ, CODE=code, PYTHONPATH=HERE), check=True, timeout=120)
        self.work(self.production, "by itself")
        self.assertIn("by itself", self.restored_rows(self.url()))
        self.assertEqual([e for e in self.events(self.production) if e["kind"] in ("fenced", "copy")], [])


class Fence(TrustCase):
    def make(self, path, page_size=4096):
        db = connect(path)
        db.execute("PRAGMA page_size=%d" % page_size)
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("CREATE TABLE t(a)")
        return db

    def attach(self, db, **options):
        one(db, "SELECT replica_attach(?, ?)", self.url(), json.dumps(options))

    def test_an_old_image_does_not_take_a_takeover_for_its_own_past(self):
        """It met its own old object, adopted the head, which was the other writer's, and fenced that one."""
        os.mkdir(self.path("a"))
        path = self.path("a", "app.db")
        a = self.make(path)
        self.attach(a)
        sync(a)
        a.close()
        shutil.copytree(self.path("a"), self.path("image"))
        a = connect(path)
        a.execute("INSERT INTO t VALUES('after the image')")
        self.attach(a)
        sync(a)
        a.close()
        b = self.make(self.path("b.db"))
        self.attach(b, takeover=True)
        b.execute("INSERT INTO t VALUES('b')")
        sync(b)
        # The machine comes back with its old disk: the same folder, with what was in it then.
        for name in ("app.db", "app.db-replica/state", "app.db-replica/state-redo"):
            if os.path.exists(self.path("image", name)):
                with open(self.path("image", name), "rb") as old, open(self.path("a", name), "r+b") as file:
                    file.truncate()
                    file.write(old.read())
        for name in glob.glob(path + "-wal") + glob.glob(path + "-shm"):
            os.remove(name)
        image_db = connect(path)
        image_db.execute("INSERT INTO t VALUES('image')")
        self.attach(image_db)
        with self.assertRaisesRegex(sqlite3.OperationalError, "another writer"):
            sync(image_db, timeout_ms=20000)
        b.execute("INSERT INTO t VALUES('b goes on')")
        sync(b)
        self.assertEqual(self.restored_rows(self.url()), "b,b goes on")
        image_db.close()
        b.close()

    def test_a_takeover_that_begins_a_generation_fences_the_old_writer(self):
        """The old one went on being acknowledged, in a generation that nobody reads."""
        a = self.make(self.path("a.db"))
        self.attach(a)
        sync(a)
        b = self.make(self.path("b.db"), page_size=8192)
        self.attach(b, takeover=True)
        b.execute("INSERT INTO t VALUES('b')")
        sync(b)
        a.execute("INSERT INTO t VALUES('a')")
        with self.assertRaisesRegex(sqlite3.OperationalError, "another writer"):
            sync(a, timeout_ms=20000)
        self.assertEqual(self.restored_rows(self.url()), "b")
        a.close()
        b.close()


class Hosts(TrustCase):
    def host(self, what, path, environment=None, **options):
        program = self.build("host.c", "-lsqlite3", "-lpthread")
        return subprocess.run([program, what, path, LIBRARY], capture_output=True, text=True, timeout=60,
                              env=environment or dict(os.environ), **options)

    def test_a_vfs_that_transforms_is_left_alone(self):
        """The shim's methods stood in front of an encrypting VFS's: plain text in its files."""
        path = self.path("app.db")
        done = self.host("transform", path)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertIn("cannot be replicated: the connection uses the VFS \"transform\"", done.stdout)
        for name in (path, path + "-wal"):
            with open(name, "rb") as file:
                data = file.read()
            self.assertNotIn(b"the load", data)
            self.assertNotIn(b"in the WAL", data)
        self.assertFalse(os.path.exists(path + "-replica"))
        # A required replica makes the load fail.
        done = self.host("transform", self.path("other.db"), clean_environment(REPLICA_URL=self.url(), REPLICA_REQUIRED="1"))
        self.assertIn("libreplica: a replica is required, and the connection uses the VFS", done.stdout)

    def test_an_open_reads_nothing(self):
        """sqlite3_open ran PRAGMAs: BUSY for a locked file, NOTADB for one that is not a database (yet)."""
        with open(self.path("other.db"), "wb") as file:
            file.write(b"garbage!" * 512)
        locked = sqlite3.connect(self.path("locked.db"), isolation_level=None)
        locked.execute("CREATE TABLE t(a)")
        locked.execute("BEGIN EXCLUSIVE")
        for name in ("other.db", "locked.db"):
            self.assertEqual(self.host("open", self.path(name)).stdout, "0\n", name)
        locked.execute("COMMIT")

    def left(self, what, url):
        path = self.path(what + ("-replicated" if url else "") + ".db")
        environment = clean_environment(REPLICA_CONFIG="off", **({"REPLICA_URL": url} if url else {}))
        done = self.host(what, path, environment)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return {suffix: os.path.getsize(path + suffix) for suffix in ("", "-wal", "-shm") if os.path.exists(path + suffix)}

    def test_Invariant_SQLiteUntouched_persist_wal_and_no_checkpoint_on_close(self):
        """The leader's connection closed last, without these settings."""
        for what in ("persist", "persist-limit", "no-checkpoint"):
            plain, replicated = self.left(what, ""), self.left(what, self.url())
            self.assertEqual(replicated, plain, what)
            self.assertEqual(self.restored_rows(self.url() + "/%s-replicated.db" % what), "1")
        # And the history goes on.
        for what in ("persist", "persist-limit", "no-checkpoint"):
            path = self.path(what + "-replicated.db")
            run_sql(path, "INSERT INTO t VALUES(2)", "SELECT replica_sync()",
                    environment=clean_environment(REPLICA_CONFIG="off", REPLICA_URL=self.url()))
            self.assertEqual(self.restored_rows(self.url() + "/%s-replicated.db" % what), "1,2")

    def test_Invariant_SQLiteUntouched_a_reader_of_a_read_only_wal_index(self):
        """Each of its locks failed: "attempt to write a readonly database", with and without a replica."""
        path = self.path("app.db")
        writer = sqlite3.connect(path, isolation_level=None)
        writer.execute("PRAGMA journal_mode=WAL")
        writer.execute("CREATE TABLE t AS SELECT 1 AS a")
        code = ("from harness import *\nload(sqlite3.connect(':memory:'))\n"
                "c = sqlite3.connect('file:%s?readonly_shm=1', uri=True)\n"
                "print(c.execute('SELECT a FROM t').fetchall())\nc.close()\n" % path)
        for environment in ({}, {"REPLICA_URL": self.url()}):
            done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                                  env=clean_environment(REPLICA_CONFIG="off", PYTHONPATH=HERE, LIBREPLICA=LIBRARY,
                                                        **environment))
            self.assertEqual(done.stdout.strip(), "[(1,)]", done.stderr)
        writer.close()

    def test_Invariant_SQLiteUntouched_a_reader_writes_nothing(self):
        """A process with mode=ro checkpointed and removed the WAL, and made a replica folder."""
        path = self.path("app.db")
        code = ("import sqlite3, os\nc = sqlite3.connect(%r, isolation_level=None)\nc.execute('PRAGMA journal_mode=WAL')\n"
                "c.execute('CREATE TABLE t(a)')\nc.execute('INSERT INTO t VALUES(1)')\nos._exit(0)\n" % path)
        subprocess.run([sys.executable, "-c", code], check=True)

        def state():
            return {name: os.path.getsize(os.path.join(self.folder, name)) for name in sorted(os.listdir(self.folder))
                    if not name.endswith("-shm")}
        before = state()
        code = ("from harness import *\nload(sqlite3.connect(':memory:'))\nc = sqlite3.connect('file:%s?mode=ro', uri=True)\n"
                "print(c.execute('SELECT a FROM t').fetchall())\nc.close()\n" % path)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                              env=clean_environment(REPLICA_URL=self.url(), REPLICA_CONFIG="off", PYTHONPATH=HERE,
                                                    LIBREPLICA=LIBRARY))
        self.assertEqual(done.stdout.strip(), "[(1,)]")
        self.assertEqual(state(), before)

    def test_locking_mode_exclusive_is_refused_as_the_first_statement(self):
        """It was not refused then, and nothing was replicated, without a word."""
        path = self.path("app.db")
        environment = clean_environment(REPLICA_URL=self.url(), REPLICA_CONFIG="off")
        run_sql(path, "PRAGMA journal_mode=WAL", "CREATE TABLE t(a)", environment=environment)
        for pragma in ("locking_mode=EXCLUSIVE", "main.locking_mode=exclusive", "journal_mode=DELETE"):
            done = run_sql(path, "PRAGMA " + pragma, environment=environment, check=False)
            self.assertIn("is replicated, so", done.stderr, pragma)

    @unittest.skipIf(SANITIZED, "a sanitizer that is preloaded cannot follow an exception of a library that came later")
    def test_no_thread_can_be_started(self):
        """std::system_error left through SQLite's C frames: the application was aborted at its first statement."""
        path = self.path("app.db")
        out = run_sql(path, "PRAGMA journal_mode=WAL", "CREATE TABLE t(a)", "INSERT INTO t VALUES(1)",
                      "SELECT a FROM t", "SELECT replica_status()",
                      environment=self.preload(NO_THREADS="1", REPLICA_URL=self.url(), REPLICA_CONFIG="off"))
        self.assertIn("(1,)", out)
        self.assertIn("cannot start the thread", out)
        # The next process goes on where this one stood.
        run_sql(path, "INSERT INTO t VALUES(2)", "SELECT replica_sync()",
                environment=clean_environment(REPLICA_URL=self.url(), REPLICA_CONFIG="off"))
        self.assertEqual(self.restored_rows(self.url() + "/app.db"), "1,2")

    def test_main_that_ends_by_pthread_exit(self):
        """Our threads kept the process alive for ever, and blocked SIGTERM."""
        program = self.build("host.c", "-lsqlite3", "-lpthread")
        environment = clean_environment(REPLICA_URL=self.url(), REPLICA_CONFIG="off")
        process = subprocess.Popen([program, "pthread-exit", self.path("app.db"), LIBRARY], env=environment,
                                   stdout=subprocess.PIPE)
        self.addCleanup(process.stdout.close)
        self.assertEqual(process.stdout.readline(), b"ready\n")
        self.assertEqual(process.wait(timeout=30), 0)
        self.assertEqual(self.restored_rows(self.url() + "/app.db"), "1")

    def test_few_descriptors(self):
        """Eight descriptors a database: the application's own opens failed."""
        code = ("from harness import *\nimport resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))\n"
                "load(sqlite3.connect(':memory:'))\nopen_ones = []\n"
                "for i in range(60):\n"
                "    c = sqlite3.connect(%r %% i, isolation_level=None)\n    c.execute('PRAGMA journal_mode=WAL')\n"
                "    c.execute('CREATE TABLE t(a)')\n    c.execute('INSERT INTO t VALUES(1)')\n    open_ones.append(c)\n"
                "print(len(open_ones))\nfor c in open_ones: c.close()\n" % self.path("app%d.db"))
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120,
                              env=dict(clean_environment(REPLICA_URL=self.url(), REPLICA_CONFIG="off"), PYTHONPATH=HERE))
        self.assertEqual(done.stdout.strip(), "60", done.stderr[-2000:])

    def test_at_most_three_descriptors_a_database(self):
        db = connect(self.path("app.db"))
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("CREATE TABLE t(a)")

        def descriptors():
            out = []
            for name in os.listdir("/proc/self/fd"):
                try:
                    out.append(os.readlink("/proc/self/fd/" + name))
                except OSError:
                    pass
            return sorted(name for name in out if name.startswith(self.path("app.db")))
        plain = descriptors()
        one(db, "SELECT replica_attach(?)", self.url())
        sync(db)
        self.assertLessEqual(len(descriptors()) - len(plain), 3, descriptors())
        db.close()


class Closes(TrustCase):
    def descriptors(self):
        out = []
        for name in os.listdir("/proc/self/fd"):
            try:
                out.append(os.readlink("/proc/self/fd/" + name))
            except OSError:
                pass
        return [name for name in out if name.startswith(self.path("app.db")) and "-replica" not in name]

    def test_the_last_close_of_a_connection_that_was_never_used(self):
        """The leader went on for it, and the files stayed open until the process ended."""
        first = connect(self.path("app.db"))
        first.execute("PRAGMA journal_mode=WAL")
        first.execute("CREATE TABLE t(a)")
        one(first, "SELECT replica_attach(?)", self.url())
        unused = sqlite3.connect(self.path("app.db"))
        first.close()
        unused.close()
        self.assertEqual(self.descriptors(), [])
        self.assertFalse(os.path.exists(self.path("app.db-wal")))

    def test_a_closed_file_may_be_moved_with_the_store_down(self):
        """The close returned while the leader's connection was open: the moved file was empty, its rows in an orphaned
        WAL."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        options = {"endpoint": "http://127.0.0.1:%d" % port, "access_key_id": "a", "secret_access_key": "b"}
        code = ("import shutil\nfrom harness import *\nfor i in range(3):\n"
                "    c = connect(%r)\n    c.execute('PRAGMA journal_mode=WAL')\n    c.execute('PRAGMA wal_autocheckpoint=0')\n"
                "    one(c, 'SELECT replica_attach(?, ?)', 's3://b/x', %r)\n"
                "    c.execute('CREATE TABLE t(a)')\n    c.execute('BEGIN')\n"
                "    for k in range(400): c.execute('INSERT INTO t VALUES(randomblob(20000))')\n"
                "    c.execute('COMMIT')\n    c.close()\n    shutil.move(%r, %r %% i)\n"
                "    print(sqlite3.connect(%r %% i).execute('SELECT count(*) FROM t').fetchone()[0])\n" %
                (self.path("app.db"), json.dumps(options), self.path("app.db"), self.path("moved-%d.db"), self.path("moved-%d.db")))
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120,
                              env=dict(clean_environment(REPLICA_SHUTDOWN_TIMEOUT="1s", REPLICA_CONFIG="off"), PYTHONPATH=HERE))
        self.assertEqual(done.stdout.split(), ["400", "400", "400"], done.stderr)

    def test_readers_that_hold_every_read_mark_delay_no_commit(self):
        """A snapshot that was due waited for them, and capture with it: with sync=commit COMMITs failed."""
        db = connect(self.path("app.db"))
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("CREATE TABLE t(a, b)")
        one(db, "SELECT replica_attach(?, ?)", self.url(), json.dumps({"sync": "commit", "sync_interval_ms": 0}))
        sync(db)
        readers = []
        for i in range(6):
            db.execute("INSERT INTO t VALUES(?, randomblob(3000))", (i,))
            reader = sqlite3.connect(self.path("app.db"), isolation_level=None)
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM t").fetchall()
            readers.append(reader)
        db.execute("INSERT INTO t VALUES(1, randomblob(3000000))")  # the log outgrows the snapshot: another is due
        slowest = 0
        for i in range(200):
            start = time.monotonic()
            db.execute("INSERT INTO t VALUES(1, 1)")
            slowest = max(slowest, time.monotonic() - start)
        self.assertLess(slowest, 5)
        for reader in readers:
            reader.close()
        one(db, "SELECT replica_snapshot()")
        db.close()

    def test_workers_that_boot_together_with_restore_auto(self):
        """One of them removed the control block of another between the file and its state."""
        path, url = self.path("app.db"), self.url()
        db = connect(path)
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("CREATE TABLE t(a)")
        db.executemany("INSERT INTO t VALUES(?)", [("x" * 300,) for _ in range(300)])
        one(db, "SELECT replica_attach(?)", url + "/app.db")
        sync(db)
        db.close()
        environment = dict(clean_environment(REPLICA_URL=url, REPLICA_CONFIG="off", REPLICA_RESTORE="auto",
                                             REPLICA_SYNC_INTERVAL="10ms"), PYTHONPATH=HERE)
        code = ("from harness import *\nsys.stdin.readline()\nload(sqlite3.connect(':memory:'))\n"
                "c = sqlite3.connect(%r, isolation_level=None, timeout=20)\nc.execute(\"INSERT INTO t VALUES('w')\")\n"
                "sync(c, timeout_ms=20000)\nprint(status(c)['state'])\nsys.stdout.flush()\nsys.stdin.readline()\nc.close()\n" % path)
        for _ in range(6):
            for name in glob.glob(path + "*"):
                shutil.rmtree(name) if os.path.isdir(name) else os.remove(name)
            workers = [subprocess.Popen([sys.executable, "-c", code], env=environment, stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(8)]
            for worker in workers:
                worker.stdin.write("\n")
                worker.stdin.flush()
            states = [worker.stdout.readline().strip() for worker in workers]
            answers = [worker.communicate("\n", timeout=60) for worker in workers]
            self.assertEqual(states, ["streaming"] * 8, answers)
        db = connect(path)
        one(db, "SELECT replica_attach(?)", url + "/app.db")
        sync(db)
        self.assertEqual([e["message"] for e in self.events(path) if "pages differ" in e["message"]], [])
        self.assert_restores(url + "/app.db", "latest", image(db), 4096)
        db.close()

    def test_a_replica_folder_that_is_removed_has_one_leader(self):
        """The old service went on beside the new one: two leaders in one process, and an event against ourselves."""
        path = self.path("app.db")
        environment = dict(clean_environment(REPLICA_URL=self.url(), REPLICA_CONFIG="off"), PYTHONPATH=HERE)
        code = ("import shutil\nfrom harness import *\nload(sqlite3.connect(':memory:'))\n"
                "c = sqlite3.connect(%r, isolation_level=None)\nc.execute('PRAGMA journal_mode=WAL')\n"
                "c.execute('CREATE TABLE t(a)')\nsync(c)\nshutil.rmtree(%r)\n"
                "d = sqlite3.connect(%r, isolation_level=None)\nd.execute('SELECT * FROM t').fetchall()\n"
                "print(sync(d, timeout_ms=20000), status(d)['state'])\n"
                "names = [open('/proc/self/task/%%s/comm' %% t).read().strip() for t in os.listdir('/proc/self/task')]\n"
                "print(names.count('replica-lead'))\nc.close()\nd.close()\nprint(os.path.exists(%r))\n" %
                (path, path + "-replica", path, path + "-wal"))
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 0, done.stderr)
        lines = done.stdout.split("\n")
        self.assertTrue(lines[0].endswith("streaming"), done.stdout)
        self.assertEqual(lines[1:3], ["1", "False"])
        self.assertEqual([e for e in self.events(path) if e["kind"] == "fenced"], [])


class Strangers(TrustCase):
    def test_a_check_constraint_calls_nothing(self):
        """SQLITE_DIRECTONLY is not obeyed there before SQLite 3.50: a file of somebody else's wrote files."""
        source = connect(self.path("source.db"))
        source.execute("PRAGMA journal_mode=WAL")
        source.execute("CREATE TABLE t(a)")
        one(source, "SELECT replica_attach(?)", self.url())
        sync(source)
        source.close()
        target = self.path("written.db")
        plain = sqlite3.connect(self.path("given.db"))
        plain.execute("CREATE TABLE k(x)")
        plain.execute("INSERT INTO k VALUES(1)")
        plain.execute("PRAGMA writable_schema=1")
        plain.execute("UPDATE sqlite_schema SET sql = ?", (
            "CREATE TABLE k(x CHECK(replica_restore('%s','%s') IS NOT NULL))" % (self.url(), target),))
        plain.commit()
        plain.close()
        for sql in ("INSERT INTO k VALUES(2)", "PRAGMA quick_check", "PRAGMA integrity_check", " /* x */ pragma quick_check",
                    "SELECT * FROM pragma_quick_check", "-- a\nPRAGMA integrity_check", "\ufeff ;\ufeffPRAGMA quick_check"):
            db = connect(self.path("given.db"))
            try:
                db.execute(sql).fetchall()
            except sqlite3.Error:
                pass
            self.assertFalse(os.path.exists(target), sql)
            db.close()
        # And by itself it is a person's own.
        db = connect(self.path("given.db"))
        one(db, "SELECT replica_restore(?, ?)", self.url(), target)
        db.close()

    @unittest.skipUnless(os.geteuid() == 0, "needs a second user")
    def test_a_planted_replica_folder_is_refused(self):
        """A link as its spool made the victim remove every file of any folder."""
        os.chmod(self.folder, 0o1777)
        home = self.path("home")
        os.mkdir(home)
        for name in ("thesis.txt", "log-0000000000000001"):
            with open(os.path.join(home, name), "w") as file:
                file.write("precious")
        nobody = pwd.getpwnam("nobody").pw_uid
        path = self.path("app.db")
        os.mkdir(path + "-replica")
        os.symlink(home, path + "-replica/spool")
        os.chown(path + "-replica", nobody, -1)
        os.lchown(path + "-replica/spool", nobody, -1)
        environment = clean_environment(REPLICA_URL=self.url(), REPLICA_CONFIG="off")
        out = run_sql(path, "PRAGMA journal_mode=WAL", "CREATE TABLE t(a)", "SELECT replica_status()", environment=environment)
        self.assertIn("is not used: it belongs to user", out)
        self.assertEqual(sorted(os.listdir(home)), ["log-0000000000000001", "thesis.txt"])
        # Also a link that only the spool is, or a folder that everybody may write to.
        os.chown(path + "-replica", 0, -1)
        self.assertIn("is not used: it is a link", run_sql(path, "SELECT replica_status()", "SELECT count(*) FROM t",
                                                           "SELECT replica_status()", environment=environment))
        os.remove(path + "-replica/spool")
        os.chmod(path + "-replica", 0o777)
        self.assertIn("is not used: everybody can write to it",
                      run_sql(path, "SELECT count(*) FROM t", "SELECT replica_status()", environment=environment))
        self.assertEqual(sorted(os.listdir(home)), ["log-0000000000000001", "thesis.txt"])
        # A required replica stops the application rather than leave it unprotected.
        done = run_sql(path, "SELECT count(*) FROM t", environment=dict(environment, REPLICA_REQUIRED="1"), check=False)
        self.assertIn("unable to open database file", done.stderr)
        self.assertIn("is not used: everybody can write to it", done.stderr)

    @unittest.skipUnless(os.geteuid() == 0, "needs a second user")
    def test_what_root_makes_belongs_to_the_databases_owner(self):
        """Root opened the database once, and the application's user went on unprotected."""
        nobody = pwd.getpwnam("nobody")
        os.chmod(self.folder, 0o755)
        home = self.path("data")
        os.mkdir(home)
        os.chown(home, nobody.pw_uid, nobody.pw_gid)
        path = os.path.join(home, "app.db")
        url = "file://" + os.path.join(home, "replica")
        environment = clean_environment(REPLICA_URL=url, REPLICA_CONFIG="off")
        sqlite3.connect(path).close()
        with open(path, "w"):
            pass
        os.chown(path, nobody.pw_uid, nobody.pw_gid)
        run_sql(path, "PRAGMA journal_mode=WAL", "CREATE TABLE t(a)", "SELECT replica_sync()", environment=environment)
        owners = {os.lstat(os.path.join(folder, name)).st_uid for folder, folders, files in os.walk(home)
                  for name in folders + files}
        self.assertEqual(owners, {nobody.pw_uid})

    def test_a_pipe_in_the_place_of_a_file_holds_nobody_up(self):
        os.mkfifo(self.path("replica.yml"))
        done = subprocess.run([COMMAND, "config"], cwd=self.folder, env=clean_environment(), capture_output=True, text=True,
                              timeout=20)
        self.assertEqual(done.returncode, 2)
        self.assertIn("is not a regular file", done.stderr)
        os.remove(self.path("replica.yml"))
        path = self.path("app.db")
        os.mkdir(path + "-replica", 0o700)
        os.mkfifo(path + "-replica/state")
        run_sql(path, "PRAGMA journal_mode=WAL", "CREATE TABLE t(a)", timeout=60,
                environment=clean_environment(REPLICA_URL=self.url(), REPLICA_CONFIG="off", REPLICA_SHUTDOWN_TIMEOUT="1s"))
        os.mkdir(self.path("claimed"))
        os.mkfifo(self.path("claimed/claim"))
        db = connect(self.path("other.db"))
        db.execute("PRAGMA journal_mode=WAL")
        one(db, "SELECT replica_attach(?)", "file://" + self.path("claimed"))
        with self.assertRaises(sqlite3.OperationalError):
            sync(db, timeout_ms=3000)
        db.close()

    def test_events_of_wrong_types_are_passed_over(self):
        db = connect(self.path("app.db"))
        db.execute("PRAGMA journal_mode=WAL")
        one(db, "SELECT replica_attach(?)", self.url())
        sync(db)
        with open(self.path("app.db-replica/events"), "a") as file:
            file.write('{"time": 1, "kind": 2, "message": 3}\n[]\n"x"\n')
        self.assertGreater(len(db.execute("SELECT * FROM replica_events").fetchall()), 0)
        db.close()

    def test_results_are_told_by_their_code(self):
        """A timeout of replica_sync was SQLITE_ERROR, though it was documented as SQLITE_BUSY."""
        db = connect(self.path("app.db"))
        db.execute("PRAGMA journal_mode=WAL")
        with socket.socket() as silent:
            silent.bind(("127.0.0.1", 0))
            silent.listen()
            one(db, "SELECT replica_attach('s3://b/x', ?)",
                json.dumps({"endpoint": "http://127.0.0.1:%d" % silent.getsockname()[1], "access_key_id": "a",
                            "secret_access_key": "b"}))
            with self.assertRaisesRegex(sqlite3.OperationalError, "not acknowledged within 100 ms") as caught:
                sync(db, timeout_ms=100)
            self.assertEqual(getattr(caught.exception, "sqlite_errorcode", 5), 5)
            one(db, "SELECT replica_detach()")
        for sql in ("SELECT replica_restore(x'ff', 'a')", "SELECT replica_restore('file:///a', 'a'||char(0)||'b')",
                    "SELECT replica_restore('file:///a', '%s')" % self.path("a.db-journal"), "SELECT replica_sync(1.5)"):
            with self.assertRaises(sqlite3.OperationalError, msg=sql):
                db.execute(sql)
        db.close()


class Outage(ReplacedFile):
    """`replica replicate` beside a program without libreplica, as Litestream is used."""
    test_removed_and_made_anew_while_a_process_replicates = None
    test_another_file_moved_into_its_place = None
    test_of_another_page_size = None
    test_a_connection_on_the_old_file_is_told = None

    def status_of(self):
        return json.loads(self.replica("--json", "status", self.file, environment=self.environment, code=None))["databases"][0]

    def test_commits_of_an_outage_are_seen_when_they_are_made(self):
        """They were seen minutes later, all with one time: a restore by time was useless for just that hour."""
        self.make(self.file, "0")
        self.replicate()
        os.rename(self.path("replica"), self.path("away"))
        with open(self.path("replica"), "w"):
            pass
        plain = sqlite3.connect(self.file, isolation_level=None)
        moments = []
        before = self.status_of()["txid"]["committed"]
        for i in range(1, 5):
            plain.execute("INSERT INTO t VALUES(?)", (str(i),))
            start = time.monotonic()
            self.wait_for(lambda: self.status_of()["txid"]["committed"] == before + i, 5)
            self.assertLess(time.monotonic() - start, 2)
            # Two seconds lie between the commits, so that a time between them means one state.
            moments.append(time.time() + 1)
            time.sleep(2)
        os.remove(self.path("replica"))
        os.rename(self.path("away"), self.path("replica"))
        self.replica("sync", self.file, environment=self.environment)
        plain.close()
        for i, moment in enumerate(moments, 1):
            out = self.path("to-%d.db" % i)
            restore(self.url(), out, time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment)))
            rows = sqlite3.connect("file:%s?immutable=1" % out, uri=True).execute("SELECT group_concat(a) FROM t").fetchone()
            self.assertEqual(rows[0], ",".join(str(n) for n in range(i + 1)))

    def test_lag_is_unknown_and_the_end_is_no_success_when_the_store_was_never_reached(self):
        """status said 0.0 s, no alert fired, and replicate ended with 0."""
        self.make(self.file, "0")
        with open(self.path("replica"), "w"):
            pass
        process = subprocess.Popen([COMMAND, "replicate"], env=dict(self.environment, REPLICA_SHUTDOWN_TIMEOUT="500ms"),
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.addCleanup(process.stdout.close)
        report = self.wait_for(lambda: (lambda s: s if s.get("last_error") else None)(self.status_of()))
        self.assertIsNone(report["lag"]["seconds"])
        self.assertIsNone(report["lag"]["txids"])
        self.assertIn(" – ", self.replica("status", self.file, environment=self.environment, code=None))
        process.terminate()
        self.assertEqual(process.wait(timeout=30), 3)


class HostileStore(TrustCase):
    """Answers of a store that means ill end in words, soon, and in little memory."""

    def restore_from(self, endpoint):
        """What a restore says; it must not take more than half a gigabyte."""
        code = ("import resource\nresource.setrlimit(resource.RLIMIT_AS, (1 << 29, 1 << 29))\nfrom harness import *\n"
                "db = load(sqlite3.connect(':memory:'))\none(db, \"SELECT replica_restore('s3://b/x', '%s')\")\n" % self.path("out.db"))
        environment = clean_environment(REPLICA_ENDPOINT=endpoint, REPLICA_ACCESS_KEY_ID="theaccesskey",
                                        REPLICA_SECRET_ACCESS_KEY="thesecretkey", REPLICA_SESSION_TOKEN="thesessiontoken",
                                        REPLICA_CONFIG="off", PYTHONPATH=HERE, LIBREPLICA=LIBRARY)
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 1, done.stderr[-2000:])
        self.assertIn("OperationalError: libreplica: ", done.stderr)
        self.assertLess(len(done.stderr), 5000)
        return done.stderr

    @staticmethod
    def page(token, *keys):
        return ("<ListBucketResult><IsTruncated>true</IsTruncated><NextContinuationToken>%s</NextContinuationToken>%s"
                "</ListBucketResult>" % (token, "".join("<CommonPrefixes><Prefix>x/%s/</Prefix></CommonPrefixes>" % key
                                                        for key in keys))).encode()

    @unittest.skipIf(SANITIZED, "a sanitizer takes more address space than the test allows")
    def test_listings_that_never_end(self):
        """Two tokens in turns went on for ever; a new token each time took all memory."""
        tokens = iter(range(10**9))
        for keys in ((), ("a",), ("b", "a")):
            endpoint = self.serve(lambda request: request.say(200, self.page(next(tokens), *keys)))
            self.assertIn("lists without getting on", self.restore_from(endpoint))
        endpoint = self.serve(lambda request: request.say(
            200, self.page("a" if "token=b" in request.path else "b", "k")))
        self.assertIn("lists without getting on", self.restore_from(endpoint))

    @unittest.skipIf(SANITIZED, "a sanitizer takes more address space than the test allows")
    def test_texts_without_a_bound_and_with_our_secrets(self):
        """A region of 10 MB was an event of 10 MB, and the log then read as empty; keys that a store echoes were logged."""
        redirect = b"<Error><Code>PermanentRedirect</Code><Region>" + b"r" * 10000000 + b"</Region></Error>"
        said = self.restore_from(self.serve(lambda request: request.say(301, redirect)))
        self.assertIn("the bucket is in another region", said)

        def echo(request):
            request.say(400, ("<Error><Code>Bad\x1b[8m</Code><Message>%s thesecretkey %s theaccesskey</Message></Error>" %
                              ("m" * 50, request.headers.get("x-amz-security-token"))).encode())
        said = self.restore_from(self.serve(echo))
        for secret in ("thesecretkey", "thesessiontoken", "theaccesskey", "\x1b"):
            self.assertNotIn(secret, said)

    @unittest.skipIf(SANITIZED, "a sanitizer takes more address space than the test allows")
    def test_a_body_that_never_ends(self):
        """It was gathered until the memory ended; the exception then left through libcurl on a thread of ours."""
        endpoint = self.serve(lambda request: request.say(200, b"<x>" * 10000000))
        self.assertRegex(self.restore_from(endpoint), "sent more than|out of memory|bad_alloc|not S3's")


if __name__ == "__main__":
    harness.main()

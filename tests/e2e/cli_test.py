"""The replica command, as a person or a script uses it."""
import json
import os
import pty
import re
import shutil
import socket
import signal
import sqlite3
import subprocess
import sys
import time

import harness
from harness import COMMAND, S3, clean_environment, connect, one, sync

SOURCE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


class CommandTest(harness.TestCase):
    def configure(self, text=None, name="replica.yml"):
        with open(self.path(name), "w") as file:
            file.write(text or "dbs:\n  - path: a.db\n    replica:\n      url: %s\n" % self.url())
        os.chmod(self.path(name), 0o600)

    def make(self, rows=30, name="a.db"):
        """A database that was replicated and closed; its rows were committed one by one."""
        db = sqlite3.connect(self.path(name), isolation_level=None)
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("CREATE TABLE t(x)")
        db.close()
        self.replica("sync", self.path(name))
        connection = sqlite3.connect(self.path(name), isolation_level=None)
        harness.load(connection)
        connection.execute("SELECT replica_attach(?, '{\"sync_interval_ms\":0}')", (self.url(),))
        for i in range(rows):
            connection.execute("INSERT INTO t VALUES (?)", (i,))
            if i % 10 == 0:
                sync(connection)
        txid = sync(connection)
        connection.close()
        return txid

    # --- looking

    def test_databases_and_status(self):
        self.configure("dbs:\n  - path: a.db\n    replica:\n      url: %s\n  - path: none.db\n    replica:\n"
                       "      url: %s\n" % (self.url(), self.url("other")))
        txid = self.make()
        listed = self.replica_json("databases")["databases"]
        self.assertEqual([(os.path.basename(d["database"]), d["exists"], d["replica"]) for d in listed],
                         [("a.db", True, self.url()), ("none.db", False, self.url("other"))])
        self.assertIn("no such file", self.replica("databases"))
        # A warning once crashed every command but config: SQLite's log was called before SQLite was known.
        self.replica("databases", environment=clean_environment(REPLICA_FOO="1"))
        status = json.loads(self.replica("--json", "status", "a.db"))["databases"][0]
        self.assertEqual(status["txid"]["acknowledged"], txid)
        self.assertIsNone(status["problem"])
        out = self.replica("status", code=1)
        self.assertIn("the database does not exist", out)
        self.assertNotIn("\x1b", out, "no colours when it is not a terminal")
        self.assertIn("\x1b[", self.replica("--color", "always", "status", "a.db"))

    def test_status_watches_until_interrupted(self):
        self.configure()
        self.make(3)
        process = subprocess.Popen([COMMAND, "--json", "status", "--watch", "--interval", "0.1"], stdout=subprocess.PIPE,
                                   text=True, cwd=self.folder, env=clean_environment())
        self.addCleanup(process.stdout.close)
        lines = [json.loads(process.stdout.readline()) for _ in range(3)]
        process.send_signal(signal.SIGINT)
        self.assertEqual(process.wait(20), 130)
        self.assertEqual(lines[0]["databases"][0]["database"], self.path("a.db"))

    def test_colours_and_progress_on_a_terminal(self):
        self.configure()
        self.make(3)
        main, other = pty.openpty()
        process = subprocess.Popen([COMMAND, "restore", "a.db", "-o", "r.db"], stdout=other, stderr=other, cwd=self.folder,
                                   env=clean_environment(TERM="xterm"))
        self.assertEqual(process.wait(60), 0)
        os.close(other)
        shown = os.read(main, 65536).decode()
        os.close(main)
        self.assertIn("\x1b[32mrestored", shown)
        self.assertRegex(shown, r"restoring \[[#-]{30}\] +\d+%")

    def test_snapshot_and_sync_are_called_off_by_ctrl_c(self):
        """They wait for a store that never answers; on a terminal they show for how long."""
        with socket.socket() as silent:
            silent.bind(("127.0.0.1", 0))
            silent.listen(50)
            self.configure()
            self.make(3)
            os.remove(self.path("replica.yml"))
            environment = clean_environment(REPLICA_URL="s3://b/p", REPLICA_ACCESS_KEY_ID="k", REPLICA_SECRET_ACCESS_KEY="s",
                                            REPLICA_ENDPOINT="http://127.0.0.1:%d" % silent.getsockname()[1],
                                            REPLICA_SHUTDOWN_TIMEOUT="100ms", TERM="xterm")
            shutil.rmtree(self.path("a.db-replica"))
            for command in ("snapshot", "sync"):
                main, other = pty.openpty()
                process = subprocess.Popen([COMMAND, command, "a.db"], stdout=other, stderr=other, cwd=self.folder,
                                           env=environment)
                os.close(other)
                shown = ""
                while not re.search(r"a\.db  \d\.\d s", shown):
                    shown += os.read(main, 65536).decode()
                process.send_signal(signal.SIGINT)
                self.assertEqual(process.wait(30), 130, command)
                os.close(main)

    def test_what_litestreams_users_type(self):
        for arguments, text in ((["replicate", "-exec", "true"], "--exec"), (["-config", "f", "status"], "--config"),
                                (["restore", "a.db", "-timestamp", "x"], "--to"), (["resotre", "a.db"], "did you mean restore"),
                                (["restore", "a.db", "-dry-run"], "--dry-run")):
            self.assertIn(text, self.replica(*arguments, code=2))

    def test_wrong_arguments_in_json(self):
        done = subprocess.run([COMMAND, "--json", "restore", "a.db", "--nonsense"], capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 2)
        self.assertIn("nonsense", json.loads(done.stdout)["error"])

    def test_history_and_events(self):
        self.configure()
        txid = self.make()
        for name in ("a.db", self.url()):
            history = self.replica_json("history", name)
            self.assertEqual(history["segments"][0]["kind"], "snapshot")
            self.assertEqual(max(s["max_txid"] for s in history["segments"]), txid)
            self.assertEqual(history["objects"], len(history["segments"]))
        sampled = self.replica_json("history", "a.db", "--most", "2")
        self.assertTrue(sampled["sampled"])
        logs = [s for s in sampled["segments"] if s["kind"] == "log"]
        self.assertEqual((len(logs), logs[-1]["max_txid"]), (2, txid), "first and last")
        self.assertIn("RESTORABLE", self.replica("history", "a.db"))
        events = self.replica_json("events", "-n", "2")["events"]
        self.assertEqual(len(events), 2)
        self.assertIn("there is no replica", self.replica("history", self.url("nothing"), code=2))

    # --- restoring

    def test_restore(self):
        self.configure()
        txid = self.make()
        plan = self.replica_json("restore", "a.db", "-o", "r.db", "--to", "7", "--dry-run")
        self.assertEqual(plan["txid"], 7)
        self.assertFalse(os.path.exists(self.path("r.db")))
        done = self.replica_json("restore", "a.db", "-o", "r.db", "--to", "7")
        self.assertEqual((done["txid"], done["time"], done["generation"]), (7, plan["time"], plan["generation"]))
        with sqlite3.connect(self.path("r.db")) as db:
            self.assertEqual(one(db, "SELECT count(*) FROM t"), 6, "TXID 1 is the table")
        db.close()
        self.assertEqual(self.replica_json("restore", "a.db", "-o", "x.db", "--dry-run")["txid"], txid)
        self.assertEqual(self.replica_json("restore", "a.db", "-o", "x.db", "--dry-run", "--to", done["time"])["txid"], 7)
        self.assertIn("exists", self.replica("restore", "a.db", code=2))
        self.replica("restore", "a.db", "--if-db-not-exists")
        for name in os.listdir(self.folder):
            if name.startswith("a.db"):
                path = self.path(name)
                shutil.rmtree(path) if os.path.isdir(path) else os.remove(path)
        self.replica("restore", "a.db")  # to its own place, from the configuration
        self.assertEqual(harness.check_file(self.path("a.db")), "ok")
        self.replica("restore", self.url(), "-o", "u.db")

    def test_plan_and_restore_agree_everywhere(self):
        """A dry run says what the restore then does: at every TXID and at every time."""
        self.configure()
        txid = self.make(12)
        times = {}
        for target in range(1, txid + 1):
            plan = self.replica_json("restore", "a.db", "-o", "p.db", "--dry-run", "--to", str(target))
            self.assertEqual(plan["txid"], target)
            times[target] = plan["time"]
        for target, moment in times.items():
            plan = self.replica_json("restore", "a.db", "-o", "p.db", "--dry-run", "--to", moment)
            done = self.replica_json("restore", "a.db", "-o", "%d.db" % target, "--to", moment)
            self.assertEqual((plan["txid"], plan["time"]), (done["txid"], done["time"]))

    def test_restore_errors_change_nothing(self):
        self.configure()
        txid = self.make()
        before = sorted(os.listdir(self.folder))
        for arguments, text in ((["--to", "soon"], "soon"), (["--to", str(txid + 1)], "not in the history"),
                                (["--to", "0"], "count from 1"), (["--to", "2001-01-01T00:00:00Z"], "at or before")):
            self.assertIn(text, self.replica("restore", "a.db", "-o", "r.db", *arguments, code=2))
            self.assertIn(text, self.replica("restore", "a.db", "-o", "r.db", "--dry-run", *arguments, code=2))
        self.assertIn("give --output", self.replica("restore", self.url(), code=2))
        self.assertIn("no replica", self.replica("restore", self.url("none"), "-o", "r.db", code=2))
        self.replica("restore", self.url("none"), "-o", "r.db", "--if-replica-exists")
        self.assertIn("does not exist", self.replica("restore", "a.db", "-o", "no/folder/r.db", code=2))
        log = [s for s in self.replica_json("history", "a.db")["segments"] if s["kind"] == "log"]
        os.remove(log[1]["object"][len("file://"):])
        self.assertIn("hole", self.replica("restore", "a.db", "-o", "r.db", code=1))
        self.assertIn("hole", self.replica("restore", "a.db", "-o", "r.db", "--dry-run", code=1))
        self.assertEqual(sorted(os.listdir(self.folder)), before)

    def test_history_names_what_is_missing(self):
        self.configure()
        self.make(60)
        history = self.replica_json("history", "a.db")
        self.assertEqual(history["holes"], [])
        log = [s for s in history["segments"] if s["kind"] == "log"]
        for gone in (log[0], log[2], log[3]):
            os.remove(gone["object"][len("file://"):])
        holes = self.replica_json("history", "a.db")["holes"]
        self.assertCountEqual([(h["first"], h["last"]) for h in holes],
                              [(log[0]["sequence"],) * 2, (log[2]["sequence"], log[3]["sequence"])])
        self.assertEqual({h["generation"] for h in holes}, {log[0]["generation"]})
        self.assertIn("log segments %d to %d of" % (log[2]["sequence"], log[3]["sequence"]), self.replica("history", "a.db"))

    def test_an_interrupt_ends_what_waits_for_a_store(self):
        self.configure()
        self.make()
        with socket.socket() as silent:
            silent.bind(("127.0.0.1", 0))
            silent.listen(50)
            silent.settimeout(30)
            environment = clean_environment(
                REPLICA_ACCESS_KEY_ID="k", REPLICA_SECRET_ACCESS_KEY="s", REPLICA_REGION="x",
                REPLICA_ENDPOINT="http://127.0.0.1:%d" % silent.getsockname()[1])
            for command in (["restore", "s3://b/p", "-o", "r.db"], ["restore", "s3://b/p", "-o", "r.db", "--dry-run"],
                            ["history", "s3://b/p"], ["check", "s3://b/p"]):
                process = subprocess.Popen([COMMAND, *command], cwd=self.folder, env=environment,
                                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                self.addCleanup(process.kill)
                with silent.accept()[0]:
                    process.send_signal(signal.SIGINT)
                    self.assertEqual(process.wait(15), 130, command)

    # --- working

    def test_verify_sync_snapshot(self):
        self.configure()
        self.make()
        for depth in ("quick", "full", "objects"):
            report = self.replica_json("verify", "--depth", depth)["databases"][0]
            self.assertTrue(report["ok"], report)
        self.assertIn("equal at TXID", self.replica("verify"))
        self.assertIn("give quick, full", self.replica("verify", "--depth", "deep", code=2))
        self.assertIn("snapshot stored", self.replica("snapshot"))
        self.assertEqual(len([s for s in self.replica_json("history", "a.db")["segments"] if s["kind"] == "snapshot"]), 2)
        segment = self.replica_json("history", "a.db")["segments"][-1]["object"][len("file://"):]
        with open(segment, "r+b") as file:
            file.seek(100)
            file.write(b"damage")
        report = json.loads(self.replica("--json", "verify", "--depth", "objects", code=1))["databases"][0]
        self.assertFalse(report["ok"])
        self.assertIn(os.path.basename(segment), report["errors"][0])

    def test_with_an_application_that_uploads(self):
        """The command asks the application's uploader, and leaves the leadership where it is."""
        self.configure()
        db = connect(self.path("a.db"))
        self.addCleanup(db.close)
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("SELECT replica_attach(?)", (self.url(),))
        db.execute("CREATE TABLE t(x)")
        self.replica("sync", "a.db")
        self.assertTrue(self.replica_json("verify", "--depth", "full")["databases"][0]["ok"])
        status = self.replica_json("status")["databases"][0]
        self.assertEqual((status["leader_pid"], status["uploader"]), (os.getpid(), "thread"))

    def test_store_that_does_not_answer(self):
        self.configure("dbs:\n  - path: a.db\n    replica:\n      url: s3://b/a\n      endpoint: http://127.0.0.1:9\n"
                       "      access-key-id: k\n      secret-access-key: s\n")
        sqlite3.connect(self.path("a.db")).execute("PRAGMA journal_mode=WAL").close()
        self.assertIn("127.0.0.1", self.replica("history", "a.db", code=3))
        out = self.replica("sync", "a.db", "--timeout", "0.5", environment=clean_environment(REPLICA_SHUTDOWN_TIMEOUT="0.2s"),
                           code=4)
        self.assertIn("not acknowledged within 500 ms", out)

    # --- settings

    def test_config_says_where_each_value_comes_from_and_no_secret(self):
        self.configure("region: eu-north-1\nretention: 24h\ndbs:\n  - path: a.db\n    replica:\n      url: s3://b/a\n"
                       "      access-key-id: ${KEPT_ID}\n      secret-access-key: ${KEPT}\n      sync-interval: 5s\n")
        environment = clean_environment(KEPT_ID="id-not-to-be-shown", KEPT="secret-not-to-be-shown", REPLICA_GUARD="true",
                                        REPLICA_EXEC="serve --password=not-to-be-shown", REPLICA_SYNK="commit")
        for arguments in (["config"], ["config", "--all"], ["--json", "config"]):
            out = self.replica(*arguments, environment=environment)
            self.assertNotIn("not-to-be-shown", out)
            for text in ("replica.yml:1", "replica.yml:2: retention", "REPLICA_GUARD", "replica.yml:9", "REPLICA_SYNK"):
                self.assertIn(text, out)
        report = self.replica_json("config", environment=environment)
        region = [s for s in report["settings"] if s["key"] == "region"][0]
        self.assertEqual((region["value"], region["source"]), ("eu-north-1", "replica.yml:1"))
        self.assertIn("missing: REPLICA_SECRET_ACCESS_KEY", self.replica("config", environment=clean_environment(
            REPLICA_ACCESS_KEY_ID="x"), code=1))
        # Half of a pair is not completed from another place.
        del environment["KEPT_ID"]
        environment.update(AWS_ACCESS_KEY_ID="another", AWS_SECRET_ACCESS_KEY="another")
        out = self.replica("config", environment=environment, code=1)
        self.assertIn("missing: REPLICA_ACCESS_KEY_ID", out)
        self.assertIn("replica.yml:7: access-key-id: the variable KEPT_ID is not set", out)

    def test_wrong_configuration_is_told_with_file_and_line(self):
        self.configure("dbs:\n  - path: a.db\n    replika:\n      url: x\n")
        for command in (["config"], ["status"], ["sync"], ["replicate"], ["dashboard"], ["check"], ["databases"]):
            self.assertIn("replica.yml:3: there is no setting \"replika\"", self.replica(*command, code=2))
        self.assertIn("none.yml", self.replica("--config", self.path("none.yml"), "status", code=2))
        os.chmod(self.path("replica.yml"), 0o666)
        self.assertIn("chmod", self.replica("config", code=2))
        self.configure()
        self.assertIn("there is no database", self.replica("verify", "gone.db", code=2))
        self.assertIn("no database", self.replica("status", environment=clean_environment(REPLICA_CONFIG="off"), code=2))
        self.assertEqual(os.listdir(self.folder), ["replica.yml"], "nothing was changed")

    def test_the_extension_reads_the_file_too(self):
        self.configure()
        environment = clean_environment(REPLICA_CONFIG=self.path("replica.yml"))
        # Before the first scan, which may begin between two commits.
        subprocess.run(["sqlite3", self.path("a.db"), "PRAGMA journal_mode=WAL; CREATE TABLE t(x)"], check=True,
                       stdout=subprocess.DEVNULL)
        done = subprocess.run(["sqlite3", "-batch", self.path("a.db"), "-cmd", ".load " + harness.LIBRARY[:-3]],
                              input="PRAGMA journal_mode; SELECT replica_sync();", text=True,
                              capture_output=True, env=environment, cwd=self.folder, timeout=60)
        self.assertEqual(done.stdout.split(), ["wal", "1"], done.stderr)
        self.configure("dbs:\n  - path: a.db\n    replica:\n      type: s3\n      bucket: ${NO_SUCH_BUCKET}\n")
        done = self.shell(":memory:", "SELECT 1;", environment=dict(environment, RAILS_ENV="production"), check=False)
        self.assertIn("NO_SUCH_BUCKET (%s:5: bucket)" % self.path("replica.yml"), done.stderr)
        self.configure("dbz: []\n")
        done = self.shell(":memory:", "SELECT 1;", environment=environment, check=False)
        self.assertIn("replica.yml:1: there is no setting", done.stderr)

    def test_check_tries_everything(self):
        s3 = S3()
        s3.make_bucket("check")
        def settings(bucket="check", secret=harness.SECRET_KEY):
            self.configure("dbs:\n  - path: a.db\n    replica:\n      type: s3\n      bucket: %s\n      path: %s\n"
                           "      endpoint: %s\n      access-key-id: %s\n      secret-access-key: %s\n"
                           % (bucket, os.path.basename(self.folder), harness.S3_ENDPOINT, harness.ACCESS_KEY, secret))
        settings()
        report = self.replica_json("check")
        outcomes = {step["step"]: step["outcome"] for step in report["checks"][0]["steps"]}
        self.assertEqual(outcomes.pop("database"), "skipped", "it does not exist yet")
        self.assertEqual(outcomes, dict.fromkeys(["settings", "clock", "list", "put", "get", "conditional-put", "delete"],
                                                 "passed"))
        self.assertEqual(s3.keys("check", os.path.basename(self.folder)), [], "it leaves nothing behind")
        settings(secret="wrong")
        self.assertIn("REPLICA_SECRET_ACCESS_KEY", self.replica("check", code=1))
        settings(bucket="there-is-none")
        self.assertIn("no bucket", self.replica("check", code=1))
        self.configure("dbs:\n  - path: a.db\n    replica:\n      url: s3://b/a\n")
        self.assertIn("missing: REPLICA_ACCESS_KEY_ID", self.replica("check", code=1))
        sqlite3.connect(self.path("a.db")).execute("CREATE TABLE t(x)").connection.close()
        self.configure()
        self.assertIn("not in WAL mode", self.replica("check", code=1))
        with open(self.path("text.db"), "w") as file:
            file.write("no database at all" * 100)
        self.configure("url: %s\ndbs:\n  - path: text.db\n" % self.url())
        self.assertIn("no SQLite database", self.replica("check", code=1))

    # --- the command itself

    def test_arguments(self):
        self.assertIn("Usage", self.replica("--help"))
        self.assertIn("--dry-run", self.replica("restore", "--help"))
        self.assertRegex(self.replica("--version"), r"^replica \d+\.\d+\.\d+\n$")
        for wrong in ([], ["frobnicate"], ["status", "--no-such-option"], ["restore"], ["sync", "--timeout", "soon"],
                      ["history"], ["replicate", "only-a-database"], ["completion", "csh"]):
            self.replica(*wrong, code=2)
        error = json.loads(subprocess.run([COMMAND, "--json", "sync", self.path("gone.db")], capture_output=True, text=True,
                                          env=clean_environment(), cwd=self.folder, timeout=60).stdout)
        self.assertEqual(error["code"], "not-found")

    def test_manual_and_completions_know_every_command_and_option(self):
        manual = self.replica("manual").replace("\\-", "-")
        helped = self.replica("--help")
        commands = re.findall(r"^  ([a-z]+)  ", helped[helped.index("Subcommands:"):], re.M)
        self.assertGreater(len(commands), 12)
        scripts = {shell: self.replica("completion", shell) for shell in ("bash", "zsh", "fish")}
        for command in commands:
            self.assertIn(".SS replica " + command, manual)
            for option in set(re.findall(r"--([a-z-]+)", self.replica(command, "--help"))):
                self.assertIn("--" + option, manual)
                self.assertTrue(all(option in script for script in scripts.values()), option)
        for script in scripts.values():
            self.assertTrue(all(command in script for command in commands))
        done = subprocess.run(["bash", "-c", "source /dev/stdin; COMP_WORDS=(replica restore --d) COMP_CWORD=2; _replica; "
                               "echo ${COMPREPLY[@]}; COMP_WORDS=(replica st) COMP_CWORD=1; _replica; echo ${COMPREPLY[@]}"],
                              input=scripts["bash"], capture_output=True, text=True, timeout=30,
                              env={k: v for k, v in os.environ.items() if k != "LD_PRELOAD"})  # bash knows no sanitizer
        self.assertEqual(done.stdout.split(), ["--dry-run", "status"], done.stderr)

    def test_every_setting_is_documented(self):
        with open(os.path.join(SOURCE, "docs", "configuration.md")) as file:
            documented = file.read()
        for setting in self.replica_json("config", "--all", environment=clean_environment(
                REPLICA_URL=self.url()))["settings"]:
            for name in (setting["name"], setting["key"].split(".")[-1]):
                self.assertIn("`%s`" % name, documented)
        with open(os.path.join(SOURCE, "docs", "cli.md")) as file:
            cli = file.read()
        for command in re.findall(r"^  ([a-z]+)  ", self.replica("--help").split("Subcommands:")[1], re.M):
            self.assertIn("replica %s" % command, cli)


if __name__ == "__main__":
    harness.main()

"""Configuration by the environment and by URI; fail-fast in production; status when nothing is configured."""
import os
import sqlite3
import subprocess
import sys

import harness
from harness import LIBRARY, clean_environment


class Configuration(harness.TestCase):
    def test_production_without_settings_does_not_load(self):
        for variable in ("RAILS_ENV", "RACK_ENV", "NODE_ENV", "APP_ENV"):
            done = self.shell(":memory:", "SELECT 1;", environment=clean_environment(**{variable: "production"}), check=False)
            for name in ("REPLICA_URL", "LITESTREAM_REPLICA_BUCKET", "LITESTREAM_ACCESS_KEY_ID", "LITESTREAM_SECRET_ACCESS_KEY"):
                self.assertIn(name, done.stderr)
        done = self.shell(":memory:", "SELECT 1;", environment=clean_environment(REPLICA_REQUIRED="1"), check=False)
        self.assertIn("a replica is required (REPLICA_REQUIRED=1) and not configured", done.stderr)

    def test_production_with_settings_loads(self):
        environment = clean_environment(RAILS_ENV="production", REPLICA_URL=self.url())
        self.assertEqual(self.shell(":memory:", "SELECT 1;", environment=environment), "1")

    def test_not_configured_is_said(self):
        out = self.shell(self.path("a.db"), "SELECT json_extract(replica_status(), '$.state', '$.message');",
                         environment=clean_environment())
        self.assertIn("not configured", out)

    def test_wrong_setting_names_the_variable(self):
        done = self.shell(":memory:", "SELECT 1;", environment=clean_environment(REPLICA_SYNC_INTERVAL="soon"), check=False)
        self.assertIn("REPLICA_SYNC_INTERVAL", done.stderr)

    def test_every_wal_database_below_the_prefix(self):
        environment = clean_environment(REPLICA_URL=self.url())
        for name in ("one.db", "two.db"):
            self.shell(self.path(name), "PRAGMA journal_mode=WAL; CREATE TABLE t(x);", environment=environment)
        self.shell(self.path("three.db"), "CREATE TABLE t(x);", environment=environment)
        self.assertEqual(sorted(os.listdir(self.path("replica"))), ["one.db", "two.db"], "three.db is not in WAL mode")

    def test_databases_narrow(self):
        environment = clean_environment(REPLICA_URL=self.url(), REPLICA_DATABASES="one.db")
        for name in ("one.db", "two.db"):
            self.shell(self.path(name), "PRAGMA journal_mode=WAL; CREATE TABLE t(x);", environment=environment)
        self.assertEqual(os.listdir(self.path("replica")), ["one.db"])

    def test_uri_parameter(self):
        uri = "file:%s?replica=%s" % (self.path("a.db"), self.url())
        self.shell(":memory:", "ATTACH '%s' AS a;" % uri, "PRAGMA a.journal_mode=WAL;", "CREATE TABLE a.t(x);",
                   environment=clean_environment())
        self.assertEqual(len(self.generations()), 1)

    def test_restore_missing_database_at_open(self):
        environment = clean_environment(REPLICA_URL=self.url(), REPLICA_RESTORE="auto")
        self.shell(self.path("a.db"), "PRAGMA journal_mode=WAL; CREATE TABLE t(x); INSERT INTO t VALUES ('kept');",
                   environment=environment)
        subprocess.run(["rm", "-r", self.path("a.db"), self.path("a.db-replica")], check=True)
        # The shell opens its database before the load: open a second one after it.
        out = self.shell(":memory:", "ATTACH '%s' AS a;" % self.path("a.db"), "SELECT x FROM a.t;", environment=environment)
        self.assertEqual(out, "kept")

    def test_restore_never_begins_anew_in_an_empty_file(self):
        """An application that opens its database before the load has created an empty file by then."""
        environment = clean_environment(REPLICA_URL=self.url(), REPLICA_RESTORE="auto")
        self.shell(self.path("a.db"), "PRAGMA journal_mode=WAL; CREATE TABLE t(x); INSERT INTO t VALUES ('kept');",
                   environment=environment)
        subprocess.run(["rm", "-r", self.path("a.db"), self.path("a.db-replica")], check=True)
        open(self.path("a.db"), "w").close()
        done = self.shell(self.path("a.db"), "SELECT 1;", environment=environment, check=False)
        self.assertIn("is empty although", done.stderr)
        done = self.shell(":memory:", "ATTACH '%s' AS a;" % self.path("a.db"), "SELECT last_error FROM replica_databases;",
                          environment=environment, check=False)
        self.assertIn("is empty although", done.stderr)
        self.assertIn("remove the empty file", done.stdout)
        self.assertEqual(os.path.getsize(self.path("a.db")), 0)


if __name__ == "__main__":
    harness.main()

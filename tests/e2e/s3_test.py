"""The S3 store against Ceph's RADOS gateway, which checks every signature: addressing, credentials, names, many objects."""
import json
import os
import sqlite3
import subprocess
import tempfile
import urllib.parse

import harness
from harness import S3, S3_ENDPOINT, ask, connect, image, one, sync

BUCKET = "s3-test"
S3_SCRIPTS = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "s3")


class Base(harness.TestCase):
    endpoint = S3_ENDPOINT

    def setUp(self):
        super().setUp()
        self.s3 = S3(self.endpoint)
        self.s3.make_bucket(BUCKET)
        self.prefix = self.id().split(".")[-1]
        self.bucket_url = "s3://%s/%s" % (BUCKET, self.prefix)

    def attach(self, url=None, **options):
        options = {"endpoint": self.endpoint, "access_key_id": harness.ACCESS_KEY,
                   "secret_access_key": harness.SECRET_KEY, "sync_interval_ms": 0, **options}
        db = connect(self.path("app.db"))
        one(db, "SELECT replica_attach(?, ?)", url or self.bucket_url, json.dumps(options))
        return db

    def work(self, db):
        db.execute("CREATE TABLE t(x)")
        for i in range(20):
            db.execute("INSERT INTO t VALUES (randomblob(5000))")
        txid = sync(db)
        self.assertTrue(ask(db, "SELECT replica_verify('main', 'full')")["ok"])
        self.assertTrue(ask(db, "SELECT replica_verify('main', 'objects')")["ok"])
        return txid


class S3Store(Base):
    def test_virtual_host_style(self):
        # *.localhost is the loopback (RFC 6761); the gateway takes the bucket from the host name.
        endpoint = S3_ENDPOINT.replace("127.0.0.1", "localhost")
        db = self.attach(endpoint=endpoint, path_style=False)
        self.work(db)
        self.assertTrue(self.s3.keys(BUCKET, self.prefix + "/"))
        self.assert_restores(self.bucket_url, "latest", image(db), 4096,
                             harness.s3_environment(REPLICA_ENDPOINT=endpoint, REPLICA_FORCE_PATH_STYLE="false"))

    def test_names_that_need_encoding(self):
        url = "s3://%s/%s/a b+c/é~%%25&=;" % (BUCKET, self.prefix)
        db = self.attach(url)
        self.work(db)
        self.assert_restores(url, "latest", image(db), 4096, harness.s3_environment())
        self.assertTrue(all(urllib.parse.unquote(k).startswith(self.prefix + "/a b+c/é~")
                            for k in self.s3.keys(BUCKET, self.prefix + "/")))

    def test_more_objects_than_one_listing(self):
        db = self.attach()
        db.execute("CREATE TABLE t(x)")
        sync(db)
        key = self.s3.keys(BUCKET, self.prefix + "/")[0]
        # Objects that are not ours, sorted before and among ours, over the 1000 of one answer.
        for i in range(1100):
            self.s3.put(BUCKET, "%s/log/%04d.txt" % (key.rsplit("/", 2)[0], i), b"")
        for i in range(5):
            db.execute("INSERT INTO t VALUES (?)", (i,))
            sync(db)
        self.assert_restores(self.bucket_url, "latest", image(db), 4096, harness.s3_environment())
        self.assertTrue(ask(db, "SELECT replica_verify('main', 'full')")["ok"])

class TemporaryCredentials(Base):
    """A gateway of its own: with the token service on, it gives other answers to unknown keys."""
    endpoint = "http://127.0.0.1:7493"

    @classmethod
    def setUpClass(cls):
        cls.server = dict(os.environ, S3_DIR=tempfile.mkdtemp(prefix="libreplica-s3-"), S3_PORT="7493",
                          S3_MON_PORT="16793", S3_OSD_PORT_MIN="17000", S3_OSD_PORT_MAX="17099",
                          S3_RGW_ARGS="--rgw-sts-key=teststskey000000 --rgw-s3-auth-use-sts=true")
        cls.server.pop("LD_PRELOAD", None)
        cls.addClassCleanup(subprocess.run, [os.path.join(S3_SCRIPTS, "stop.sh")], env=cls.server)
        subprocess.run([os.path.join(S3_SCRIPTS, "start.sh")], env=cls.server, check=True)

    def test_session_token(self):
        access, secret, token = self.s3.session()
        db = self.attach(access_key_id=access, secret_access_key=secret, session_token=token)
        self.work(db)
        self.assert_restores(self.bucket_url, "latest", image(db), 4096,
                             harness.s3_environment(REPLICA_ENDPOINT=self.endpoint, REPLICA_ACCESS_KEY_ID=access,
                                                    REPLICA_SECRET_ACCESS_KEY=secret, REPLICA_SESSION_TOKEN=token))
        with open(self.path("app.db-replica", "events")) as events:
            self.assertNotIn(token, events.read())

    def test_session_token_that_is_not_valid(self):
        access, secret, token = self.s3.session()
        for wrong in (token[:-8] + "AAAAAAA=", ""):
            db = self.attach(access_key_id=access, secret_access_key=secret, session_token=wrong)
            with self.assertRaisesRegex(sqlite3.OperationalError, "HTTP 403"):
                sync(db, timeout_ms=5000)
            one(db, "SELECT replica_detach()")
            db.close()


if __name__ == "__main__":
    harness.main()

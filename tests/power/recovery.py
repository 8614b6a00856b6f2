"""After the power is back: the application starts again and works, and what was promised is restored and compared.

The answer of `recover`:
  problems   what must not be: a list of {"kind", …}
  refused    what libreplica says when it wants a person to decide, else null
  unusable   SQLite itself cannot use the database
  remarks    what is no violation and yet worth to be counted
  live       digest of the database as SQLite recovered it
  events     libreplica's events since
"""
import datetime
import json
import os
import shutil
import sqlite3
import time

from disk import digest
from harness import ask, first_difference, one, status
from workload import Application, restore_by_command, url

SETTLED = ("streaming", "error", "fenced")


class Refused(Exception):
    """libreplica wants a person to decide."""


class Recovery:
    def __init__(self, job):
        self.job = job
        self.answer = {"problems": [], "remarks": [], "refused": None, "unusable": None, "live": None, "settled": None}
        # So that the marks of Application go nowhere: the log is closed by now.
        self.app = Application(job)
        self.keeper = self.app.keeper
        self.rng = self.app.rng
        self.promised = []  # [generation, TXID, digest] of this start
        self.states = set(job["states"])  # digests of all states that the database ever had
        self.committed = False  # since this start
        self.number = 0
        self.restored_bytes = b""  # of the last restore
        self.since = datetime.datetime.utcnow().isoformat()

    @property
    def db(self):
        return self.app.db

    def problem(self, kind, **values):
        self.answer["problems"].append(dict(values, kind=kind))

    def restored(self, target):
        """The digest of a restored state, or None and the error."""
        self.number += 1
        path = os.path.join(self.job["out"], "%d.db" % self.number)
        try:
            one(self.keeper, "SELECT replica_restore(?, ?, ?)", url(self.job), path, target)
            with open(path, "rb") as file:
                self.restored_bytes = file.read()
            return digest(self.restored_bytes), None
        except sqlite3.OperationalError as error:
            return None, str(error)
        finally:
            shutil.rmtree(path + "-replica", True)
            if os.path.exists(path):
                os.remove(path)

    def live(self):
        value = self.app.digest()
        self.states.add(value)
        return value

    def transactions(self, most):
        """Some commits, each of which is a state that may be restored later."""
        for _ in range(self.rng.randint(1, 3)):
            before = self.live()
            self.app.transaction(self.rng.choice((1, 3, most)))
            self.committed = self.committed or self.live() != before

    # ---- Steps

    def restore_missing(self):
        """A person, or a start script, restores a database that is not there."""
        path = self.app.path
        if self.job.get("restore") in (None, "auto") or os.path.exists(path):
            return
        try:
            if self.job["restore"] == "command":
                restore_by_command(self.job)
            else:
                one(self.keeper, "SELECT replica_restore(?, ?)", url(self.job), path)
        except (RuntimeError, sqlite3.OperationalError) as error:
            raise Refused("restoring: %s" % error) from error

    def open(self):
        """Opens the database as an application does. False when SQLite cannot use it."""
        try:
            self.app.open(checkpoint=1000)
            check = one(self.db, "PRAGMA integrity_check")
            if check == "ok":
                return True
            self.answer["unusable"] = check[:200]
        except sqlite3.DatabaseError as error:
            if self.job.get("restore") == "auto" and "unable to open" in str(error):
                raise Refused("REPLICA_RESTORE=auto: %s" % error) from error
            self.answer["unusable"] = str(error)
        return False

    def settle(self):
        """Waits until it is decided how the history goes on."""
        deadline = time.monotonic() + 25
        while True:
            now = status(self.db)
            if now["state"] in SETTLED or time.monotonic() > deadline:
                break
            time.sleep(0.003)
        self.answer["settled"] = now["state"]
        if now["state"] in ("error", "fenced"):
            raise Refused(now.get("last_error") or now.get("message") or json.dumps(now))
        if now["state"] != "streaming":
            self.problem("does-not-settle", state=now["state"], error=now.get("last_error"))
            return False
        return True

    def sync(self, step):
        """What is committed is acknowledged now, and `latest` is the live database. False when it is not."""
        try:
            txid = one(self.db, "SELECT replica_sync('main', 20000)")
        except sqlite3.OperationalError as error:
            now = status(self.db)
            if now["state"] in ("error", "fenced"):
                raise Refused("later (%s): %s" % (step, now.get("last_error"))) from error
            self.problem("sync-failed", step=step, error=str(error), state=now["state"])
            return False
        live = self.live()
        found, error = self.restored("latest")
        longer = found != live and found is not None and self.restored_bytes.startswith(self.db.serialize())
        if not longer:
            self.promised.append([status(self.db)["generation"], txid, live])
        if found == live:
            return True
        if longer and self.job["synchronous"] == "OFF":
            # Without any fsync the power loss can leave the file longer than its header says. SQLite passes over the rest,
            # and counts it when it commits; the restored file is as long, and SQLite reads the same from both.
            self.answer["remarks"].append("the database file, and the restored one, are longer than their header says")
            return True
        if found in self.states and not self.committed and self.job["synchronous"] != "FULL":
            # Without fsync at each commit SQLite forgot commits that the replica has. That is found at the next
            # commit; until then nothing that was acknowledged is missing.
            self.answer["remarks"].append("the replica's newest state is one that SQLite lost, until the next commit")
        else:
            difference = None
            if found:
                page_size = one(self.db, "PRAGMA page_size")
                difference = first_difference(self.restored_bytes, self.db.serialize(), page_size)
            kind = "latest-is-longer" if longer else "latest-is-wrong" if found else "latest-unrestorable"
            self.problem(kind, step=step, txid=txid, error=error, difference=difference)
        return True

    def verify(self, depth):
        try:
            report = ask(self.db, "SELECT replica_verify('main', ?)", depth)
        except sqlite3.OperationalError as error:
            self.problem("verify-failed", depth=depth, error=str(error))
            return
        if not report["ok"]:
            self.problem("verify-finds-damage", depth=depth, errors=report["errors"])

    def work(self):
        """The application goes on: commits, acknowledgements, a checkpoint, verify at every depth."""
        for step in range(self.job["rounds"]):
            if step > 0 or not self.job["idle_first"]:
                self.transactions(12)
            if not self.sync(step):
                return
            if self.answer["problems"]:
                return  # what follows would only repeat it
        self.verify("quick")
        self.verify("full")
        if self.rng.random() < 0.3:
            self.db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        self.transactions(6)
        if self.sync("last"):
            self.verify("objects")

    def compare_promises(self):
        """Every acknowledged TXID is restorable and is the state that it was."""
        for kind, promises in (("acknowledged-lost", self.job["promises"]), ("new-acknowledged-lost", self.promised)):
            for generation, txid, wanted in promises:
                found, error = self.restored("%s/%d" % (generation, txid))
                if found != wanted:
                    self.problem(kind, generation=generation, txid=txid, wanted=wanted, found=found, error=error)

    def compare_history(self):
        """Whatever else is restorable is a state that the database had."""
        if self.job["history"] == 0:
            return
        rows = self.db.execute("SELECT generation, min_txid, max_txid, restorable FROM replica_history").fetchall()
        oldest = dict(self.db.execute("SELECT generation, min(max_txid) FROM replica_history WHERE kind = 'snapshot'"
                                      " GROUP BY generation").fetchall())
        targets = [(generation, txid) for generation, low, high, restorable in rows
                   for txid in (range(low, high + 1) if restorable == "all" else [high])
                   if txid >= oldest.get(generation, 1 << 62)]
        for generation, txid in self.rng.sample(targets, min(self.job["history"], len(targets))):
            found, error = self.restored("%s/%d" % (generation, txid))
            if found is None:
                self.problem("history-unrestorable", generation=generation, txid=txid, error=error)
            elif found not in self.states:
                self.problem("state-never-was", generation=generation, txid=txid, found=found)

    def events(self):
        path = self.app.path + "-replica/events"
        if not os.path.exists(path):
            return []
        found = []
        with open(path, errors="replace") as file:
            for line in file:
                try:
                    event = json.loads(line)
                    if event["time"] >= self.since:
                        found.append("%s: %s" % (event["kind"], event["message"][:300]))
                except (ValueError, KeyError, TypeError):
                    continue  # a line that the power loss tore
        return found

    def run(self):
        try:
            self.restore_missing()
            if not self.open():
                return
            self.answer["live"] = self.app.found
            self.states.add(self.app.found)
            self.live()
            if self.job["write_first"]:
                self.transactions(6)
            if self.job.get("restore") != "auto":
                self.app.attach(sync_interval_ms=0)
            if self.settle():
                self.work()
        except Refused as refused:
            self.answer["refused"] = str(refused)
            if self.job["takeover"] and self.answer["live"]:
                self.take_over()
        self.compare_promises()
        if self.answer["refused"] is None:
            self.compare_history()

    def take_over(self):
        """What a person would do who was told so."""
        try:
            self.app.attach(sync_interval_ms=0, takeover=True)
            if self.settle():
                self.sync("takeover")
        except (Refused, sqlite3.OperationalError) as error:
            self.problem("takeover-refused", error=str(error))


def recover(job):
    recovery = Recovery(job)
    recovery.run()
    recovery.answer["events"] = recovery.events()
    return recovery.answer

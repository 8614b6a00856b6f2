"""Lives of an application that lead to one fault each, for the pinned states of power_test.py."""
from recorder import mark
from workload import Application


def journal_ahead(job):
    """More frames than the leader leaves in the WAL wait for the next PUT: it copies them to its journal."""
    app = Application(job)
    app.open(checkpoint=0)
    app.attach(sync_interval_ms=30000)
    app.sync()
    for _ in range(5):
        app.transaction(rolls_back=0)
    app.sync()
    # What comes now waits for half a minute.
    for _ in range(40):
        app.transaction(rolls_back=0)
    mark("journal", ready=bool(app.until(lambda: any(size > 0 for size in app.journals()), 5)))
    return {}


def acknowledged(job):
    """Everything is acknowledged, at several times, once with a snapshot. checkpoint: nothing is left in the WAL."""
    app = Application(job)
    app.open()
    app.attach(sync_interval_ms=0)
    app.sync()
    for _ in range(4):
        app.transaction(rolls_back=0)
        app.sync()
    app.snapshot()
    app.transaction(rolls_back=0)
    app.sync()
    if job["checkpoint"]:
        app.db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    return {}


def unsent(job):
    """Commits are acknowledged; then the store is down, and others are captured and not sent."""
    app = Application(job)
    app.open()
    app.attach(sync_interval_ms=0)
    app.sync()
    for _ in range(3):
        app.transaction(rolls_back=0)
        app.sync()
    app.store_down(True)
    app.transaction(rolls_back=0)
    mark("captured", ready=app.until(app.captured, 5))
    app.transaction(rolls_back=0)
    mark("end")
    return {}


def snapshot_first(job):
    """A snapshot is asked for, and the store takes it before the log segments that it includes (by FakeS3.hold)."""
    app = Application(job)
    app.open()
    app.attach(sync_interval_ms=0)
    app.sync()
    app.transaction(rolls_back=0)
    app.sync()
    for _ in range(5):
        app.transaction(rolls_back=0)
    app.db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()  # so that the WAL cannot give the same commits again
    app.snapshot()
    return {}


def unsynced_checkpoint(job):
    """A checkpoint writes changed rows to the file, then the WAL is restarted. Every commit is acknowledged."""
    app = Application(job)
    app.open(checkpoint=0)
    app.attach(sync_interval_ms=0)
    for _ in range(20):
        app.db.execute("INSERT INTO t(v) VALUES(?)", (app.rng.randbytes(3000),))
    app.db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    app.note_commit()
    app.sync()
    for change in range(2):
        app.db.execute("UPDATE t SET v=? WHERE id=?", (app.rng.randbytes(3000), 5 + change))
        app.note_commit()
        app.sync()
        if change == 0:
            app.db.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()
    return {}


def short_visits(job):
    """The database is opened, written to and closed again at once, many times in one process."""
    app = Application(job)
    for visit in range(job["visits"]):
        app.open()
        app.attach(sync_interval_ms=app.rng.choice((0, 1000, 30000)), guard=visit % 2 == 1)
        if visit % 2 == 0:
            app.sync()
        for _ in range(4):
            app.transaction(rolls_back=0)
        app.db.close()
    return {}

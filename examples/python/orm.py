#!/usr/bin/env python3
"""SQLAlchemy (1.4 or 2) with libreplica: an event listener prepares each connection of the pool.

    REPLICA_URL=s3://bucket/orm-example orm.py [FOLDER]         the replica lies at <REPLICA_URL>/blog.db

Loads LIBREPLICA, else the extension of the PyPI package libreplica. Exits non-zero on any difference.
"""
import glob
import json
import os
import shutil
import sqlite3
import sys
import tempfile

from sqlalchemy import Column, Integer, String, create_engine, event, text
from sqlalchemy.orm import Session, declarative_base

from app import load

Base = declarative_base()


class Post(Base):
    __tablename__ = "posts"
    id = Column(Integer, primary_key=True)
    title = Column(String, nullable=False)


def make_engine(path):
    engine = create_engine("sqlite:///" + path)

    @event.listens_for(engine, "connect")
    def prepare(connection, _record):
        # WAL is kept in the file, the extension by the process; both cost next to nothing here.
        connection.execute("PRAGMA journal_mode=WAL")

    return engine


def contents(engine):
    with Session(engine) as session:
        return [(post.id, post.title) for post in session.query(Post).order_by(Post.id)]


def main():
    if not os.environ.get("REPLICA_URL"):
        sys.exit("set REPLICA_URL")
    path = os.path.join(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp(), "blog.db")
    os.environ["REPLICA_RESTORE"] = "auto"
    load(sqlite3.connect(":memory:"))       # before the first engine connects

    engine = make_engine(path)
    Base.metadata.create_all(engine)
    with engine.connect() as connection:    # from here on each commit has a TXID of its own
        first = connection.execute(text("SELECT replica_sync()")).scalar()
    for i in range(100):
        with Session(engine) as session, session.begin():
            session.add_all([Post(title="post %d, part %d" % (i, part)) for part in range(5)])
    with engine.connect() as connection:
        last = connection.execute(text("SELECT replica_sync()")).scalar()
        print("acknowledged: TXID %d to %d" % (first, last))
        status = json.loads(connection.execute(text("SELECT replica_status()")).scalar())
        proof = json.loads(connection.execute(text("SELECT replica_verify('main', 'full')")).scalar())
    if (last - first, status["state"], status["lag"]["txids"], proof["ok"]) != (100, "streaming", 0, True):
        sys.exit("the replica is not in order: %s %s" % (status, proof))
    before = contents(engine)
    engine.dispose()                        # closes the pool's connections; the last close flushes

    for file in glob.glob(path + "*"):
        (shutil.rmtree if os.path.isdir(file) else os.remove)(file)
    after = contents(make_engine(path))     # opening restores
    if len(before) != 500 or after != before:
        sys.exit("%d rows before, %d after" % (len(before), len(after)))
    print("restored:", len(after), "rows")


if __name__ == "__main__":
    main()

"""libreplica for Python: the SQLite extension that keeps a live, verifiable copy of databases in S3 or a folder.

    import sqlite3, libreplica
    libreplica.load()                   # once a process, before the databases are opened
    db = sqlite3.connect("app.db")      # from here on every connection is seen
"""
import os
import sqlite3
from typing import Any, Optional

from ._version import __version__

__all__ = ["__version__", "command_path", "load", "loadable_path"]

_FOLDER = os.path.dirname(os.path.abspath(__file__))


def loadable_path() -> str:
    """The extension's path as SQLite's load_extension wants it: without the .so."""
    return os.path.join(_FOLDER, "libreplica")


def command_path() -> str:
    """The path of the `replica` command."""
    return os.path.join(_FOLDER, "replica")


def load(connection: Optional[Any] = None) -> None:
    """Loads the extension on a connection; without one, into the process, by a connection to :memory:.

    It stays for the life of the process, and every connection opened afterwards has its functions. Raises
    sqlite3.OperationalError, with the missing settings by name, where a replica is required and not configured;
    sqlite3.NotSupportedError where this Python cannot load extensions. Loading of other extensions is disabled afterwards.
    """
    own = sqlite3.connect(":memory:") if connection is None else None
    target = connection if own is None else own
    try:
        if not hasattr(target, "enable_load_extension"):
            raise sqlite3.NotSupportedError(
                "this Python's sqlite3 module was built without loadable extensions (docs/python.md): use the system's"
                " Python, or build it with --enable-loadable-sqlite-extensions")
        target.enable_load_extension(True)
        try:
            target.load_extension(loadable_path())
        finally:
            target.enable_load_extension(False)
    finally:
        if own is not None:
            own.close()

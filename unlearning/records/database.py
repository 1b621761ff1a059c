"""A connection to SQLite as the history's index and the ledger use it, and its transactions."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from unlearning.errors import FedUnlearnError
from unlearning.records.files import room

__all__ = ["acquire", "connect", "create", "transaction", "unread", "version_of"]

_BROKEN = (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN)
_PASSING = (*_BROKEN, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_READONLY)
_PATIENCE_S = 30.0  # how long to wait for another process's transaction


class _InMemory(sqlite3.Connection):
    """Closes itself with the last who holds it: nothing can be lost, and Python 3.13 would warn."""

    def __del__(self) -> None:
        self.close()


def connect(path: Path | None, *, readonly: bool = False) -> sqlite3.Connection:
    """Return a connection to a file, made if missing; None: to a database in memory.

    With ``readonly`` the file must exist, and nothing is ever written to it.

    Transactions are begun by :func:`transaction` alone. Flower runs its server in a thread of its
    own, so the connection may change threads; callers keep turns apart where it matters.
    """
    place = ":memory:" if path is None else str(path)
    if readonly and path is not None:
        place = f"{path.absolute().as_uri()}?mode=ro"
    return sqlite3.connect(
        place,
        timeout=_PATIENCE_S,
        isolation_level=None,
        check_same_thread=False,
        uri=readonly and path is not None,
        factory=_InMemory if path is None else sqlite3.Connection,
    )


def acquire(path: Path, error: type[FedUnlearnError]) -> sqlite3.Connection | None:
    """Return a connection that holds ``path`` alone until it is closed.

    None if another does, or where the folder is read-only; ``error`` is raised where neither is so,
    and the disk is full or broken.
    """
    connection = None
    try:
        connection = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
        connection.execute("BEGIN EXCLUSIVE")
    except sqlite3.OperationalError as fault:
        if connection is not None:
            connection.close()
        kind = fault.sqlite_errorcode & 0xFF
        if kind not in _BROKEN or not os.access(path.parent, os.W_OK):
            return None
        raise error(
            f"cannot write {path}: {fault}{room(path)}; remove the cause and run it again"
        ) from fault
    return connection


@contextmanager
def transaction(db: sqlite3.Connection, place: str, error: type[FedUnlearnError]) -> Iterator[None]:
    """Keep everyone else from writing until the block ends; undo all of it on an exception.

    Parameters
    ----------
    db : Connection
        As :func:`connect` gives it.
    place : str
        Where it lies, for the message.
    error : type
        What to raise where the database cannot be written: locked for too long, disk full,
        read-only.
    """
    try:
        db.execute("BEGIN IMMEDIATE")
        yield
        db.execute("COMMIT")
    except sqlite3.OperationalError as fault:
        raise error(
            f"cannot write {place}: {fault}{room(place)}; remove the cause and run it again"
        ) from fault
    finally:
        if db.in_transaction:
            db.execute("ROLLBACK")


def unread(
    place: str,
    error: sqlite3.Error,
    otherwise: str = "restore it from a backup",
    what: str = "cannot be read",
) -> str:
    """Return in words that a database cannot be read, and what to do about it.

    A disk that is full or broken (what was begun is undone before anything is read), a lock, no
    permission: nothing is wrong with the file. Then there is nothing to restore, whatever
    ``otherwise`` says of a damaged one.
    """
    if getattr(error, "sqlite_errorcode", 0) & 0xFF in _PASSING:  # its lowest byte says the kind
        return f"{place} cannot be read: {error}{room(place)}; remove the cause and run it again"
    return f"{place} {what}: {error}; {otherwise}"


def create(db: sqlite3.Connection, schema: Iterable[str], version: int) -> None:
    """Make tables and note the version of their format (inside a transaction)."""
    for statement in schema:
        db.execute(statement)
    db.execute(f"PRAGMA user_version={version}")


def version_of(db: sqlite3.Connection) -> int:
    """Return the version of the format, 0 for a new file."""
    return int(db.execute("PRAGMA user_version").fetchone()[0])

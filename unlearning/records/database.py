"""A connection to SQLite as the history's index and the ledger use it, and its transactions."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from unlearning.errors import FedUnlearnError
from unlearning.records.files import room

__all__ = ["connect", "create", "transaction", "version_of"]

_PATIENCE_S = 30.0  # how long to wait for another process's transaction


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
    )


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


def create(db: sqlite3.Connection, schema: Iterable[str], version: int) -> None:
    """Make tables and note the version of their format (inside a transaction)."""
    for statement in schema:
        db.execute(statement)
    db.execute(f"PRAGMA user_version={version}")


def version_of(db: sqlite3.Connection) -> int:
    """Return the version of the format, 0 for a new file."""
    return int(db.execute("PRAGMA user_version").fetchone()[0])

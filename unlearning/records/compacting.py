"""Rewriting a history's index whole, so that no value deleted from it is left between its rows.

SQLite overwrites a row that it deletes, but not what rows left behind where they were moved from,
so the index is built anew. The new one is written to a file beside it and then taken over, page by
page, in one transaction: SQLite's own VACUUM would hold it in memory, or in a folder for temporary
files on a disk that nobody chose.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from unlearning.errors import HistoryError
from unlearning.records.database import connect, transaction
from unlearning.records.files import room
from unlearning.records.sealing import Sealing

__all__ = ["STALE", "compact", "is_small", "take_over"]

_SMALL = 2**20  # bytes
STALE = "stale"  # the setting that says that rows were deleted and the index not built anew since


def compact(db: sqlite3.Connection, path: Path | None, sealing: Sealing) -> None:
    """Build an index anew, without the setting ``STALE``.

    A crash leaves the old one, which says that it is stale, or the new one.

    Parameters
    ----------
    db : Connection
        The index.
    path : Path or None
        Its file; None: in memory.
    sealing : Sealing
        Of its rows.

    Raises
    ------
    HistoryError
        If it cannot be written; it is then as it was.
    """
    if path is None:
        db.execute("VACUUM")
        db.execute("DELETE FROM settings WHERE key = ?", (STALE,))
        return
    fresh = path.with_name(f"{path.stem}.fresh")
    try:
        fresh.unlink(missing_ok=True)
        if is_small(db):
            db.execute("VACUUM")
            with transaction(db, str(path), HistoryError):
                db.execute("DELETE FROM settings WHERE key = ?", (STALE,))
                sealing.close()
            return
        db.execute("VACUUM INTO ?", (str(fresh),))
        with closing(connect(fresh)) as made:
            made.execute("PRAGMA cache_size=-200")  # kB; every page is read once
            made.execute("PRAGMA synchronous=OFF")  # it is flushed where it is taken over
            made.execute("PRAGMA secure_delete=ON")
            with transaction(made, str(fresh), HistoryError):
                made.execute("DELETE FROM settings WHERE key = ?", (STALE,))
                sealing.of(made).close()
            made.backup(db)
        fresh.unlink()
    except (OSError, sqlite3.Error) as error:
        said = error.strerror if isinstance(error, OSError) else error
        raise HistoryError(
            f"cannot write {path}: {said}{room(path)}; remove the cause and run it again"
        ) from error


def is_small(db: sqlite3.Connection) -> bool:
    """Return whether an index is so small that SQLite may well hold a copy of it in memory."""
    (pages,), (size,) = (
        db.execute(f"PRAGMA {name}").fetchone() for name in ("page_count", "page_size")
    )
    return int(pages) * int(size) <= _SMALL


def take_over(made: sqlite3.Connection, db: sqlite3.Connection, place: str) -> None:
    """Replace an index by another one, page by page, in one transaction.

    Raises
    ------
    HistoryError
        If it cannot be written; it is then as it was.
    """
    try:
        made.backup(db)
    except sqlite3.Error as error:
        raise HistoryError(
            f"cannot write {place}: {error}{room(place)}; remove the cause and run it again"
        ) from error

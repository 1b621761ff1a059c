"""The ledger's file: its tables, its transactions, and the signed head that follows every event."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
import uuid
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from unlearning.errors import LedgerError
from unlearning.records.database import connect, create, transaction, unread, version_of
from unlearning.records.files import room
from unlearning.records.head import Head
from unlearning.records.heads import Heads
from unlearning.records.merkle import Tree

__all__ = ["GENESIS", "VERSION", "Book", "Row", "canonical", "hash_of", "now"]

GENESIS = "0" * 64
Row = tuple[object, ...]

VERSION = 2  # 1 had no signed heads
_SCHEMA = (
    "CREATE TABLE events (seq INTEGER PRIMARY KEY, utc TEXT NOT NULL, request_id TEXT NOT NULL,"
    " branch TEXT NOT NULL, event TEXT NOT NULL, facts TEXT NOT NULL, previous TEXT NOT NULL,"
    " hash TEXT NOT NULL)",
    "CREATE UNIQUE INDEX received_once ON events (request_id) WHERE event = 'received'",
    "CREATE TRIGGER never_changed BEFORE UPDATE ON events"
    " BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END",
    "CREATE TRIGGER never_deleted BEFORE DELETE ON events"
    " BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END",
)
_HEAD_SCHEMA = (
    "CREATE TABLE head (place INTEGER PRIMARY KEY CHECK (place = 1), facts TEXT NOT NULL)",
    "CREATE TABLE identity (place INTEGER PRIMARY KEY CHECK (place = 1), name TEXT NOT NULL)",
)


class Book:
    """The file and its connection, shared by the views of all branches."""

    def __init__(self, path: Path | None, anchor: Path | None, readonly: bool) -> None:
        self.place = "the ledger in memory" if path is None else str(path)
        self.turn = threading.RLock()
        self.heads = None if path is None else Heads(path, anchor)
        self.readonly, self.version = readonly, 0
        self._tree, self._last = Tree(), GENESIS
        self._head: Head | None = None  # of the tree, as it was written last
        self._unchanged_at: int | None = None
        self._is_writing = False
        self._changes = 0  # events that this process has added or undone
        self._name = ""
        if self.heads is not None and path is not None and not path.exists():
            self.heads.check_free(self.place)
        try:
            self.db = connect(path, readonly=readonly)
        except sqlite3.Error as error:
            raise LedgerError(
                f"cannot open {self.place}: {error}{room(self.place)}; check that its folder "
                "exists and is writable"
            ) from error
        self.close = weakref.finalize(self, self.db.close)
        try:
            self._prepare()
        except BaseException:
            self.close()
            raise

    def _prepare(self) -> None:
        try:
            if not self.readonly:
                self.db.execute("PRAGMA journal_mode=TRUNCATE")  # emptied: cheaper than a new one
                self.db.execute("PRAGMA synchronous=EXTRA")  # FULL, and the folder of a new journal
                if version_of(self.db) < VERSION:
                    with self.transaction():  # another process may have been first
                        self._bring_up()
            self.version = version_of(self.db)
        except sqlite3.Error as error:
            otherwise = "restore it from a backup or choose another folder"
            what = "cannot be read as a ledger"
            raise LedgerError(unread(self.place, error, otherwise, what)) from error
        readable = range(1, VERSION + 1) if self.readonly else (VERSION,)
        if self.version == 0 and self._has_no_table():  # a reader; who writes makes them
            raise LedgerError(
                f"{self.place} is empty: a run is about to begin it, or was ended before it could; "
                "look again in a moment"
            )
        if self.version not in readable:
            raise LedgerError(
                f"{self.place} has format {self.version}, this version reads {VERSION}; use the "
                "version that wrote it"
            )

    def _has_no_table(self) -> bool:
        return not self.db.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0]

    def _bring_up(self) -> None:
        """Make the tables, or those that the first format had not."""
        version = version_of(self.db)
        if version == 0:
            if not self._has_no_table():
                raise LedgerError(
                    f"{self.place} is another program's database; choose another path"
                )
            create(self.db, (*_SCHEMA, *_HEAD_SCHEMA), VERSION)
        elif version == 1:
            create(self.db, _HEAD_SCHEMA, VERSION)
        else:
            return
        self.db.execute("INSERT INTO identity VALUES (1, ?)", (uuid.uuid4().hex,))
        if self.heads is not None:
            self._read_tree()
            self._sign(self.heads, is_new=True)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Keep everyone else from writing until the block ends; undo it on an exception.

        One inside another is part of it: what either adds is there when the outer one ends.
        """
        if self.readonly:
            raise LedgerError(f"{self.place} was opened to be read only")
        with self.turn:
            if self._is_writing:
                yield
                return
            self._is_writing = True
            try:
                with self._transaction():
                    yield
            finally:
                self._is_writing = False

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        # The head's file follows the ledger in the same order for all processes.
        turn = nullcontext() if self.heads is None else self.heads.turn()
        with turn:
            before: tuple[Tree, str, Head | None] = Tree(), GENESIS, None
            try:
                with transaction(self.db, self.place, LedgerError):
                    self._catch_up()
                    before = self._tree.copy(), self._last, self._head
                    yield
            except BaseException:
                self._tree, self._last, self._head = before  # what was added is undone
                self._unchanged_at = None
                self._changes += 1
                raise
            if self.heads is not None and self._head is not None:
                self.heads.write(self._head)

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Read the ledger as it is at one moment, whatever other processes add meanwhile."""
        with self.turn:
            is_inner = self.db.in_transaction
            if not is_inner:
                self.db.execute("BEGIN")
            try:
                yield
            finally:
                if not is_inner:
                    self.db.execute("ROLLBACK")

    def _catch_up(self) -> None:
        """Read what other processes added; refuse to vouch for what nobody signed.

        SQLite tells whether another connection has written since this one looked.
        """
        if self.heads is None or (self.version < VERSION and version_of(self.db) < VERSION):
            return
        now = self._data_version()
        if now == self._unchanged_at and self._head is not None:
            return
        self._read_tree()
        head = self.head()
        if head is None or (head.size, head.root) != (self._tree.size, self._tree.root.hex()):
            raise LedgerError(
                f"{self.place} does not hold what its signed head says; see "
                f"`fedunlearn verify` and restore it from a backup"
            )
        self._check_put_back(self.heads)
        self._head, self._unchanged_at = head, now

    def _check_put_back(self, heads: Heads) -> None:
        """Refuse to go on from an earlier state of this ledger: new events would hide what is gone.

        The head's file follows the ledger, so it is never ahead of a ledger that is whole.
        """
        known = heads.read()
        if known is None or not known.is_signed or known.ledger != self.name():
            return  # `verify` tells
        if known.size > self._tree.size:
            raise LedgerError(
                f"{self.place} holds {self._tree.size} event(s), {heads.file.name} vouches for "
                f"{known.size}: its end was cut off; restore it from a backup"
            )

    def _data_version(self) -> int:
        return int(self.db.execute("PRAGMA data_version").fetchone()[0])

    @property
    def stamp(self) -> tuple[int, int]:
        """What is another one whenever an event was added, by whomever, or undone."""
        try:
            with self.turn:
                return self._data_version(), self._changes
        except sqlite3.Error as error:
            raise LedgerError(unread(self.place, error)) from error

    def _read_tree(self) -> None:
        for row in self.rows("seq > ?", (self._tree.size,)):
            if row[6] != self._last or row[7] != hash_of(row[:7]):
                raise LedgerError(
                    f"event {row[0]} of {self.place} was changed after it was written; see "
                    "`fedunlearn verify` and restore it from a backup"
                )
            self._tree.add(str(row[7]).encode())
            self._last = str(row[7])

    @property
    def last(self) -> tuple[int, str]:
        """The number and the hash of the last event, inside a transaction."""
        if self.heads is not None:
            return self._tree.size, self._last
        rows = self.rows("seq = (SELECT MAX(seq) FROM events)")
        return (int(str(rows[0][0])), str(rows[0][7])) if rows else (0, GENESIS)

    def append(self, row: Row) -> None:
        """Add an event, and bring the head up to it, inside a transaction."""
        self.db.execute("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
        self._changes += 1
        if self.heads is not None:
            self._tree.add(str(row[7]).encode())
            self._last = str(row[7])
            self._sign(self.heads)

    def _sign(self, heads: Heads, *, is_new: bool = False) -> None:
        utc = now().isoformat(timespec="milliseconds")
        head = heads.sign(self.name(), self._tree, self._last, utc, is_new=is_new)
        self.db.execute("INSERT OR REPLACE INTO head VALUES (1, ?)", (json.dumps(head.to_json()),))
        self._head = head

    def name(self) -> str:
        """Return the random name of this ledger."""
        if not self._name:
            self._name = str(self.db.execute("SELECT name FROM identity").fetchone()[0])
        return self._name

    def head(self) -> Head | None:
        """Return the signed head that the ledger holds; None: an older format, or in memory."""
        if self.heads is None or (self.version < VERSION and version_of(self.db) < VERSION):
            return None
        row = self.db.execute("SELECT facts FROM head").fetchone()
        if row is None:
            return None
        try:
            return Head.parse(str(row[0]))
        except LedgerError as error:
            raise LedgerError(f"the signed head of {self.place} is damaged: {error}") from error

    @property
    def size(self) -> int:
        """The number of the last event."""
        found = self.rows("seq = (SELECT MAX(seq) FROM events)")
        return int(str(found[0][0])) if found else 0

    def rows(self, where: str = "1", values: tuple[object, ...] = ()) -> list[Row]:
        """Return the rows that fulfil a condition, in order."""
        try:
            with self.turn:
                return self.db.execute(
                    "SELECT seq, utc, request_id, branch, event, facts, previous, hash "
                    f"FROM events WHERE {where} ORDER BY seq",
                    values,
                ).fetchall()
        except sqlite3.Error as error:
            raise LedgerError(unread(self.place, error)) from error


def now() -> datetime:
    """Return the time, in UTC."""
    return datetime.now(UTC)


def canonical(value: object) -> str:
    """Return plain, finite JSON values as one text; LedgerError for anything else."""
    try:
        return json.dumps(
            value,
            sort_keys=True,
            separators=(",", ":"),
            ensure_ascii=False,
            allow_nan=False,
            default=_plain,
        )
    except (TypeError, ValueError) as error:
        raise LedgerError(
            f"the facts of an event must be plain, finite JSON values: {error}"
        ) from error


def _plain(value: object) -> object:
    if isinstance(value, np.generic):  # a measurement, not an array
        return value.item()
    raise TypeError(f"{type(value).__name__} is none")


def hash_of(fields: Row) -> str:
    """Return the hash of an event: all its fields but the last."""
    return hashlib.sha256(canonical(list(fields)).encode()).hexdigest()

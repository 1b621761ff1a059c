"""The append-only record of requests and their fate, each event chained to the one before.

An event's hash is the SHA-256 of its own fields and of the hash before it, so that an edit, an
insertion, a deletion or a new order breaks the chain at a place that :meth:`Ledger.verify` names.
Someone who noted a head earlier can also tell whether the end was cut off. No data and no arrays
are kept here.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

import numpy as np

from unlearning.errors import LedgerError, unknown
from unlearning.records.database import connect, create, transaction, version_of
from unlearning.request import Forgotten, Request

__all__ = ["ANSWER", "BATCH", "EVENTS", "GENESIS", "Event", "Ledger"]

EVENTS = ("received", "refused", "started", "fulfilled", "failed", "held", "released")
GENESIS = "0" * 64

_FINAL = ("refused", "fulfilled")
ANSWER, BATCH = "answer", "batch"  # what a hold keeps back: an answer, or a request, from serving
_VERSION = 1
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


@dataclass(frozen=True)
class Event:
    """One line of the ledger.

    Parameters
    ----------
    seq : int
        Counted from 1, without gaps; the order of events, whatever the clocks say.
    utc : str
        ISO 8601 time of writing.
    request_id : str
        The request it is about.
    branch : str
        The branch of a comparison; empty: the federation itself.
    event : str
        One of ``EVENTS``.
    facts : mapping
        Plain JSON values; of ``received``, the request itself.
    previous, hash : str
        Hex SHA-256 of the event before (``GENESIS`` for the first) and of this one.
    """

    seq: int
    utc: str
    request_id: str
    branch: str
    event: str
    facts: Mapping[str, object]
    previous: str
    hash: str


class _Book:
    """The file and its connection, shared by the views of all branches."""

    def __init__(self, path: Path | None) -> None:
        self.place = "the ledger in memory" if path is None else str(path)
        self.turn = threading.RLock()
        try:
            self.db = connect(path)
        except sqlite3.Error as error:
            raise LedgerError(
                f"cannot open {self.place}: {error}; check that its folder exists and is writable"
            ) from error
        self.close = weakref.finalize(self, self.db.close)
        try:
            self._prepare()
        except BaseException:
            self.close()
            raise

    def _prepare(self) -> None:
        try:
            self.db.execute("PRAGMA journal_mode=DELETE")
            self.db.execute("PRAGMA synchronous=EXTRA")  # FULL, and the folder after the journal
            if version_of(self.db) == 0:
                with self.transaction():
                    if version_of(self.db) == 0:  # another process may have been first
                        self._create()
            version = version_of(self.db)
        except sqlite3.Error as error:
            raise LedgerError(
                f"{self.place} cannot be read as a ledger: {error}; restore it from a backup or "
                "choose another folder"
            ) from error
        if version != _VERSION:
            raise LedgerError(
                f"{self.place} has format {version}, this version reads {_VERSION}; use the "
                "version that wrote it"
            )

    def _create(self) -> None:
        if self.db.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0]:
            raise LedgerError(f"{self.place} is another program's database; choose another path")
        create(self.db, _SCHEMA, _VERSION)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Keep everyone else from writing until the block ends; undo it on an exception."""
        with self.turn, transaction(self.db, self.place, LedgerError):
            yield

    def rows(self, where: str = "1", values: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
        """Return the rows that fulfil a condition, in order."""
        try:
            with self.turn:
                return self.db.execute(
                    "SELECT seq, utc, request_id, branch, event, facts, previous, hash "
                    f"FROM events WHERE {where} ORDER BY seq",
                    values,
                ).fetchall()
        except sqlite3.Error as error:
            raise LedgerError(
                f"{self.place} cannot be read: {error}; restore it from a backup"
            ) from error


class Ledger:
    """The requests of a federation and what became of them.

    Several processes may add to one file at the same time.

    Parameters
    ----------
    path : Path or None, default None
        SQLite file, made if missing; None: in memory.
    branch : str, default ""
        What this view writes to and judges by. A comparison serves one request once per strategy,
        each on a branch of its own; requests are received once, for all branches.

    Raises
    ------
    LedgerError
        If the file cannot be opened, is no ledger, or was written by another version.
    """

    def __init__(self, path: Path | None = None, *, branch: str = "") -> None:
        self._path = None if path is None else Path(path)
        self._branch = branch
        self._book = _Book(self._path)

    def on_branch(self, branch: str) -> Ledger:
        """Return a view of the same ledger that writes to another branch and judges by it."""
        view = Ledger.__new__(Ledger)
        view._path, view._branch, view._book = self._path, branch, self._book
        return view

    @property
    def path(self) -> Path | None:
        """The file; None: in memory."""
        return self._path

    @property
    def branch(self) -> str:
        """The branch this view writes to."""
        return self._branch

    # --- writing -------------------------------------------------------------------------------

    def receive(self, request: Request) -> bool:
        """Record that a request came in, for all branches.

        Returns
        -------
        bool
            False if a request with this id is known; then nothing is written.

        Raises
        ------
        LedgerError
            If the file cannot be written.
        """
        facts = _canonical(request.to_json())
        with self._book.transaction():
            if self._book.rows("request_id = ?", (request.id,)):
                return False
            self._append(request.id, "", "received", facts)
        return True

    def add(self, request_id: str, event: str, **facts: object) -> Event:
        """Append what happened to a request on this branch.

        Parameters
        ----------
        request_id : str
            A request received before.
        event : {"refused", "started", "fulfilled", "failed", "held", "released"}
            ``fulfilled`` needs ``started`` before it and ``released`` needs ``held``; nothing
            follows ``fulfilled`` or ``refused``, so that of two processes that serve one request
            only one succeeds.
        **facts : object
            Plain JSON values, finite: strategy, options, digests, scorecard ...

        Raises
        ------
        LedgerError
            If event or request is unknown, the event cannot follow, a fact is no plain JSON
            value, or the file cannot be written.
        """
        if event not in EVENTS[1:]:
            raise LedgerError(unknown("ledger event", event, EVENTS[1:]))
        text = _canonical(facts)
        with self._book.transaction():
            rows = self._book.rows("request_id = ?", (request_id,))
            if not rows:
                known = [request.id for request in self.requests()]
                raise LedgerError(unknown("request", request_id, known))
            past = [str(row[4]) for row in rows if row[3] == self._branch]
            where = f" on branch {self._branch!r}" if self._branch else ""
            if final := [name for name in past if name in _FINAL]:
                raise LedgerError(
                    f"request {request_id} was already {final[0]}{where}; {event!r} cannot follow, "
                    "send a new request"
                )
            if event == "fulfilled" and "started" not in past:
                raise LedgerError(f"request {request_id} cannot be fulfilled{where}: never started")
            if event == "released" and (past or [""])[-1] != "held":
                state = (past or ["received"])[-1]
                raise LedgerError(
                    f"request {request_id} cannot be released{where}: it is {state}, not held"
                )
            return self._append(request_id, self._branch, event, text)

    def _append(self, request_id: str, branch: str, event: str, facts: str) -> Event:
        last = self._book.db.execute("SELECT seq, hash FROM events ORDER BY seq DESC LIMIT 1")
        seq, previous = last.fetchone() or (0, GENESIS)
        utc = datetime.now(UTC).isoformat(timespec="milliseconds")
        fields = (seq + 1, utc, request_id, branch, event, facts, previous)
        row = (*fields, _hash(fields))
        self._book.db.execute("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
        return _event(row)

    # --- reading -------------------------------------------------------------------------------

    def events(self, request_id: str | None = None) -> list[Event]:
        """Return the events of all branches (of one request), in order."""
        if request_id is None:
            return [_event(row) for row in self._book.rows()]
        return [_event(row) for row in self._book.rows("request_id = ?", (request_id,))]

    def requests(self) -> list[Request]:
        """Return all requests, in the order received."""
        return [
            Request.from_json(_event(row).facts) for row in self._book.rows("event = 'received'")
        ]

    def state(self, request_id: str) -> str:
        """Return the last event of a request on this branch, ``received`` if there is none.

        Raises
        ------
        LedgerError
            If the request is unknown.
        """
        states = self._states()
        if request_id not in states:
            raise LedgerError(unknown("request", request_id, states))
        return states[request_id]

    def _states(self) -> dict[str, str]:
        rows = self._book.rows("event = 'received' OR branch = ?", (self._branch,))
        return {str(row[2]): str(row[4]) for row in rows}

    def waiting(self) -> list[Request]:
        """Return the requests neither fulfilled nor refused on this branch, in order received."""
        states = self._states()
        return [request for request in self.requests() if states[request.id] not in _FINAL]

    def due(self, completed_rounds: int) -> list[Request]:
        """Return the waiting requests to be served once ``completed_rounds`` have been learned.

        One whose answer is held is not served again before it is released.
        """
        held = self.held()
        return [
            request
            for request in self.waiting()
            if (request.at_round is None or request.at_round <= completed_rounds)
            and not (request.id in held and held[request.id].facts.get("stage") == ANSWER)
        ]

    def held(self) -> dict[str, Event]:
        """Return the requests that are held on this branch, by id: the event that says why."""
        last = {str(row[2]): row for row in self._book.rows("branch = ?", (self._branch,))}
        return {name: _event(row) for name, row in last.items() if row[4] == "held"}

    def is_released(self, request_id: str) -> bool:
        """Return whether the operator has let a held request go, and it was not held again."""
        rows = self._book.rows("request_id = ? AND branch = ?", (request_id, self._branch))
        return [row[4] for row in rows if row[4] in ("held", "released")][-1:] == ["released"]

    def forgotten(self) -> Forgotten:
        """Return what may never be trained on again: all requests started on this branch.

        A request that failed later counts too, and one that is held.
        """
        rows = self._book.rows("event IN ('started', 'held') AND branch = ?", (self._branch,))
        started = {row[2] for row in rows}
        return Forgotten(tuple(request for request in self.requests() if request.id in started))

    # --- proof ---------------------------------------------------------------------------------

    @property
    def head(self) -> str:
        """The hash of the last event; note it elsewhere to detect a cut-off end later."""
        rows = self._book.rows("seq = (SELECT MAX(seq) FROM events)")
        return str(rows[0][7]) if rows else GENESIS

    def verify(self, head: str | None = None) -> None:
        """Check the chain from the first event to the last.

        Parameters
        ----------
        head : str or None, default None
            A head noted earlier; the chain must still contain it.

        Raises
        ------
        LedgerError
            Naming the ``seq`` where the chain breaks, or saying that its end was cut off.
        """
        previous, found = GENESIS, head in (None, GENESIS)
        for place, row in enumerate(self._book.rows(), start=1):
            problem = None
            if row[0] != place:
                problem = f"event {place} is missing"
            elif row[6] != previous:
                problem = f"event {place} does not follow the event before it"
            elif row[7] != _hash(row[:7]):
                problem = f"event {place} was changed after it was written"
            if problem:
                raise LedgerError(
                    f"the chain of {self._book.place} breaks at seq {place}: {problem}; restore it "
                    "from a backup"
                )
            previous = str(row[7])
            found = found or previous == head
        if not found:
            raise LedgerError(
                f"{self._book.place} does not contain the head {head}: its end was cut off, or the "
                "head is another ledger's; restore it from a backup"
            )

    def close(self) -> None:
        """Close the file, for the views of all branches."""
        self._book.close()

    def __enter__(self) -> Ledger:
        """Return the ledger itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the file."""
        self.close()


def _canonical(value: object) -> str:
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


def _hash(fields: tuple[object, ...]) -> str:
    return hashlib.sha256(_canonical(list(fields)).encode()).hexdigest()


def _event(row: tuple[object, ...]) -> Event:
    seq, utc, request_id, branch, event, facts, previous, own = row
    return Event(
        int(str(seq)), str(utc), str(request_id), str(branch), str(event),
        json.loads(str(facts)), str(previous), str(own),
    )  # fmt: skip

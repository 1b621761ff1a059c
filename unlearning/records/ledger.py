"""The append-only record of requests and their fate, each event chained to the one before.

An event's hash is the SHA-256 of its own fields and of the hash before it, so that an edit, an
insertion, a deletion or a new order breaks the chain at a place that :meth:`Ledger.verify` names.
A Merkle tree over these hashes has a head that is signed at every event and kept in the ledger, in
``ledger.head`` beside it and, where one is named, in an anchor elsewhere: a cut end, an emptied
file and a forged addition show too. No data and no arrays are kept here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from unlearning.closing import Closing
from unlearning.errors import LedgerError, unknown
from unlearning.records import states
from unlearning.records.anchoring import Anchoring, Cover, cover
from unlearning.records.book import GENESIS, Book, Row, canonical, hash_of, now
from unlearning.records.docket import Docket
from unlearning.records.event import Event
from unlearning.records.head import Head
from unlearning.records.merkle import proof
from unlearning.records.proving import check_book
from unlearning.records.seal import Seal
from unlearning.records.states import EVENTS
from unlearning.request import Forgotten, Request

__all__ = [
    "ANSWER",
    "BATCH",
    "DUE_DAYS",
    "EVENTS",
    "EXTENSION_DAYS",
    "GENESIS",
    "Event",
    "Ledger",
]

DUE_DAYS, EXTENSION_DAYS = 30, 60  # one month, and two more, Art. 12(3) GDPR

ANSWER, BATCH = "answer", "batch"  # what a hold keeps back: an answer, or a request, from serving


class Ledger(Closing):
    """The requests of a federation and what became of them.

    Several processes may add to one file at the same time.

    Parameters
    ----------
    path : Path or None, default None
        SQLite file, made if missing; None: in memory.
    branch : str, default ""
        What this view writes to and judges by. A comparison serves one request once per strategy,
        each on a branch of its own; requests are received once, for all branches.
    anchor : Path or None, default None
        A file elsewhere that gets a line with every signed head.
    due_days : float, default 30
        Days from its reception until a request must be fulfilled.
    extension_days : float, default 60
        Days by which that may be put off in all.
    readonly : bool, default False
        Only read: the file must exist and is not changed, not even brought up to this format.

    Raises
    ------
    LedgerError
        If the file cannot be opened, is no ledger, or was written by another version.
    """

    def __init__(
        self,
        path: Path | None = None,
        *,
        branch: str = "",
        anchor: Path | None = None,
        due_days: float = DUE_DAYS,
        extension_days: float = EXTENSION_DAYS,
        readonly: bool = False,
    ) -> None:
        self._path = None if path is None else Path(path)
        self._branch = branch
        self._due_days, self._extension_days = due_days, extension_days
        self._drawn: Mapping[str, Request] = {}
        self._book = Book(self._path, anchor, readonly)
        self._docket = Docket(self._book, branch)
        self._anchoring = Anchoring(self._book)

    def on_branch(self, branch: str) -> Ledger:
        """Return a view of the same ledger that writes to another branch and judges by it."""
        view = Ledger.__new__(Ledger)
        view._path, view._branch, view._book = self._path, branch, self._book
        view._due_days, view._drawn = self._due_days, self._drawn
        view._extension_days = self._extension_days
        view._anchoring = self._anchoring
        view._docket = Docket(self._book, branch)
        return view

    def drawn(self, requests: Iterable[Request], **facts: object) -> Ledger:
        """Return a view in which these requests stand for those received under their ids.

        Where every seed shares the data out anew, one scheduled request names other positions at
        each. What is named in place of what was received is noted, once, with ``facts``.
        """
        known = {request.id: request for request in self.requests()}
        view = self.on_branch(self._branch)
        view._drawn = {one.id: one for one in requests if known.get(one.id) != one}
        noted = [event.facts for event in self.events("") if event.event == "drawn"]
        for request in view._drawn.values():
            said = {**facts, "request": request.to_json()}
            if said not in noted:
                self.note("drawn", **said)
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

    def receive(
        self,
        request: Request,
        *,
        check: Callable[[], object] | None = None,
        **facts: object,
    ) -> bool:
        """Record that a request came in, for all branches.

        Parameters
        ----------
        request : Request
            What is asked.
        check : callable or None
            Called before anything is written, while no other process can write; what it raises
            leaves the ledger as it was.
        **facts : object
            Plain JSON values beside it: whose signature it carries, for example.

        Returns
        -------
        bool
            False if a request with this id is known; then nothing is written.

        Raises
        ------
        LedgerError
            If the file cannot be written.
        """
        due = (now() + timedelta(days=self._due_days)).isoformat(timespec="milliseconds")
        text = canonical({**facts, **request.to_json(), "due": due})
        with self._writing():
            if check is not None:
                check()
            if self._docket.span(request.id):
                return False
            self._append(request.id, "", "received", text)
        return True

    def extend(self, request_id: str, due: datetime, reason: str) -> Event:
        """Give an open request a later due date.

        Raises
        ------
        LedgerError
            If it is unknown or closed, the date is not later, or later than may be, or no reason is
            given.
        """
        if not reason.strip():
            raise LedgerError("a due date is extended for a reason; say it")
        first, known = self._due_dates(request_id)
        if due <= known:
            raise LedgerError(
                f"request {request_id} is due {known:%Y-%m-%d} already; name a later day"
            )
        if due > (latest := first + timedelta(days=self._extension_days)):
            raise LedgerError(
                f"request {request_id} was due {first:%Y-%m-%d} and may be put off to "
                f"{latest:%Y-%m-%d} at the latest: by {self._extension_days:g} days in all, "
                "promise.extension_days (two months, Art. 12(3) GDPR); name a day until then"
            )
        text = due.astimezone(UTC).isoformat(timespec="milliseconds")
        return self.add(request_id, "extended", due=text, reason=reason)

    def rekey(self, reason: str) -> tuple[str, str]:
        """Sign with a new key from now on, because the old one is lost or known to others.

        Returns
        -------
        tuple of str
            The public key before (empty if its file is lost) and the new one; both stand in the
            ledger, with the reason.

        Raises
        ------
        LedgerError
            If the ledger is one in memory, or no reason is given.
        """
        heads = self._book.heads
        if heads is None or not reason.strip():
            raise LedgerError("a ledger with a file gets a new key, for a reason; say it")
        with self._book.transaction():  # without the old key nothing can be noted before
            before, after = heads.renew()
            facts = {"key_before": before, "key": after, "reason": reason}
            self._append("", "", "rekeyed", canonical(facts))
        return before, after

    def reanchor(self, reason: str) -> None:
        """Begin the anchor of the config anew because the one before is lost, and say why.

        Raises
        ------
        LedgerError
            If the ledger is one in memory, no reason is given, nothing was lost, or the anchor
            cannot be written.
        """
        self._anchoring.begin_anew(reason, self._note)

    def add(self, request_id: str, event: str, **facts: object) -> Event:
        """Append what happened to a request on this branch.

        Parameters
        ----------
        request_id : str
            A request received before.
        event : str
            One of ``EVENTS`` but the first, which may follow what was there before
            (:mod:`unlearning.records.states`); nothing follows an end, so that of two processes
            that serve one request only one succeeds.
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
        text = canonical(facts)
        with self._writing():
            past = self._docket.past(request_id)
            if past is None:
                known = [request.id for request in self.requests()]
                raise LedgerError(unknown("request", request_id, known))
            where = f" on branch {self._branch!r}" if self._branch else ""
            states.check(event, past, f"request {request_id}{where}")
            return self._append(request_id, self._branch, event, text)

    def restart(self) -> None:
        """Begin this branch of a comparison anew: nothing that happened on it counts any more.

        Raises
        ------
        LedgerError
            If this is the federation itself, whose past always counts.
        """
        if not self._branch:
            raise LedgerError("a federation is never begun anew; only branches of a comparison are")
        with self._writing():
            for row in self._book.rows("branch = ? GROUP BY request_id", (self._branch,)):
                self._append(str(row[2]), self._branch, "restarted", "{}")

    def note(self, event: str, **facts: object) -> None:
        """Append something that concerns no request but the run: who let what pass."""
        with self._writing():
            self._note(event, facts)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Write all that is added in a block at once: a crash leaves all of it or nothing.

        Nobody else can write meanwhile, so the block is to be short.
        """
        with self._writing():
            yield

    def _writing(self) -> AbstractContextManager[None]:
        """Keep everyone else from writing for the time of a block; the anchor comes first."""
        self._anchoring.settle(self._note)
        return self._book.transaction()

    def _note(self, event: str, facts: Mapping[str, object]) -> None:
        self._append("", "", event, canonical(facts))

    def _append(self, request_id: str, branch: str, event: str, facts: str) -> Event:
        seq, previous = self._book.last
        utc = now().isoformat(timespec="milliseconds")
        fields = (seq + 1, utc, request_id, branch, event, facts, previous)
        row = (*fields, hash_of(fields))
        self._book.append(row)
        return Event.of(row)

    # --- reading -------------------------------------------------------------------------------

    def events(self, request_id: str | None = None) -> list[Event]:
        """Return the events of all branches (of one request), in order."""
        rows = self._book.rows() if request_id is None else self._rows(request_id)
        return [Event.of(row) for row in rows]

    def rows_of(self, request_id: str) -> list[Row]:
        """Return the events of a request as they are hashed: all fields, in order.

        Raises
        ------
        LedgerError
            If the request is unknown.
        """
        if not (rows := self._rows(request_id)):
            raise LedgerError(unknown("request", request_id, [r.id for r in self.requests()]))
        return rows

    def _rows(self, request_id: str) -> list[Row]:
        """Return the rows of a request, or of the run itself; no index leads to them."""
        first, last = self._docket.span(request_id) or (1, self._book.size)
        return self._book.rows("request_id = ? AND seq BETWEEN ? AND ?", (request_id, first, last))

    @property
    def seal(self) -> Seal:
        """The key that signs the head.

        Raises
        ------
        LedgerError
            If it is lost, or the ledger is one in memory.
        """
        if self._book.heads is None:
            raise LedgerError("a ledger in memory has no key")
        return self._book.heads.seal(is_new=False)

    def requests(self) -> list[Request]:
        """Return all requests, in the order received."""
        return [self._drawn.get(request.id, request) for request in self._docket.received()]

    def state(self, request_id: str) -> str:
        """Return the state of a request on this branch; :mod:`unlearning.records.states`.

        Raises
        ------
        LedgerError
            If the request is unknown.
        """
        state = self._docket.state(request_id)
        if state is None:
            raise LedgerError(unknown("request", request_id, self._docket.states()))
        return state

    def waiting(self) -> list[Request]:
        """Return the requests that are still to be served on this branch, in order received.

        One whose model is made already waits for its owners alone; :meth:`pending` has it.
        """
        known = self._docket.states()
        done = (*states.FINAL, "unlearned", "deletion-pending")
        return [request for request in self.requests() if known[request.id] not in done]

    def pending(self) -> list[Request]:
        """Return the requests whose model is made and whose deletion is not confirmed by all."""
        known = self._docket.states()
        made = ("unlearned", "deletion-pending")
        return [request for request in self.requests() if known[request.id] in made]

    def answered(self) -> list[Request]:
        """Return the requests whose model is made and kept, in the order received."""
        known = self._docket.states()
        made = ("fulfilled", "deletion-pending")
        return [request for request in self.requests() if known[request.id] in made]

    def fulfilled(self) -> list[Request]:
        """Return the requests whose deletion all owners have confirmed, in the order received."""
        known = self._docket.states()
        return [request for request in self.requests() if known[request.id] == "fulfilled"]

    def due_date(self, request_id: str) -> datetime:
        """Return by when a request must be fulfilled.

        Raises
        ------
        LedgerError
            If the request is unknown.
        """
        return self._due_dates(request_id)[1]

    def _due_dates(self, request_id: str) -> tuple[datetime, datetime]:
        """Return by when a request had to be fulfilled as it came in, and by when it must be."""
        events = self.events(request_id)
        if not events:
            raise LedgerError(unknown("request", request_id, self._docket.states()))
        said = [str(event.facts["due"]) for event in events if "due" in event.facts]
        if said and "due" in events[0].facts:
            return datetime.fromisoformat(said[0]), datetime.fromisoformat(said[-1])
        # An older format
        first = datetime.fromisoformat(events[0].utc) + timedelta(days=DUE_DAYS)
        return first, datetime.fromisoformat(said[-1]) if said else first

    def overdue(self, at: datetime | None = None) -> list[Request]:
        """Return the requests that are open after their due date, in order received."""
        moment, known = at or now(), self._docket.states()
        return [
            request
            for request in self.requests()
            if known[request.id] not in states.FINAL and self.due_date(request.id) < moment
        ]

    def due(self, completed_rounds: int, again: Collection[str] = ()) -> list[Request]:
        """Return the waiting requests to be served once ``completed_rounds`` have been learned.

        One whose answer is held is not served again before it is released. ``again`` names further
        ones, whose model was made and lost.
        """
        held, waiting = self.held(), {request.id for request in self.waiting()} | set(again)
        return [
            request
            for request in self.requests()
            if request.id in waiting
            and (request.at_round is None or request.at_round <= completed_rounds)
            and not (request.id in held and held[request.id].facts.get("stage") == ANSWER)
        ]

    def held(self) -> dict[str, Event]:
        """Return the requests that are held on this branch, by id: the event that says why."""
        return self._docket.held()

    def is_released(self, request_id: str) -> bool:
        """Return whether the operator has let a held request go, and it was not held again."""
        return self._docket.is_released(request_id)

    def forgotten(self) -> Forgotten:
        """Return what may never be trained on again: all requests started on this branch.

        A request that failed later counts too, and one that is held.
        """
        started = self._docket.started()
        return Forgotten(tuple(request for request in self.requests() if request.id in started))

    # --- proof ---------------------------------------------------------------------------------

    @property
    def head(self) -> str:
        """The hash of the last event; note it elsewhere to detect a cut-off end later."""
        rows = self._book.rows("seq = (SELECT MAX(seq) FROM events)")
        return str(rows[0][7]) if rows else GENESIS

    @property
    def signed_head(self) -> Head | None:
        """The signed head; None: an older format that was only read, or a ledger in memory."""
        return self._book.head()

    def inclusion(self, seq: int) -> list[bytes]:
        """Return the proof that an event is in the ledger, for the present head.

        Raises
        ------
        IndexError
            If there is no such event.
        """
        return proof([str(row[7]).encode() for row in self._book.rows()], seq - 1)

    def verify(self, head: str | None = None) -> None:
        """Check the chain from the first event to the last, and every signed head.

        Parameters
        ----------
        head : str or None, default None
            A head noted earlier; the chain must still contain it.

        Raises
        ------
        LedgerError
            Naming the ``seq`` where the chain breaks, or saying that its end was cut off, that
            something was added by somebody without the key, or which head is missing.
        """
        check_book(self._book, head)
        self.anchored()

    def anchored(self) -> Cover:
        """Return how far the anchor vouches for this ledger, and what was lost of it.

        Raises
        ------
        LedgerError
            If the anchor is not there, was changed, or holds less than was noted of it.
        """
        return cover(self.events(""), self._book)

    def close(self) -> None:
        """Close the file, for the views of all branches."""
        self._book.close()

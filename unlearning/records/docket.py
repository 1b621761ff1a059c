"""What the events of a ledger come to on one branch: states, holds, who was started."""

from __future__ import annotations

from unlearning.records import states
from unlearning.records.book import Book, Row
from unlearning.records.event import Event
from unlearning.records.following import Following
from unlearning.request import Request

__all__ = ["Docket"]


class Docket:
    """Reads a book and judges by one branch; it writes nothing.

    Parameters
    ----------
    book : Book
        Of the ledger.
    branch : str
        Empty: the federation itself.
    """

    def __init__(self, book: Book, branch: str) -> None:
        self._book, self._branch = book, branch
        self._following = Following(book)
        self._begin()

    def _begin(self) -> None:
        self._received: list[Request] = []
        self._spans: dict[str, tuple[int, int]] = {}  # the first and the last event of each request
        self._events: dict[str, list[str]] = {}
        self._states: dict[str, str] = {}
        self._held: dict[str, Event] = {}  # the last time that each was held
        self._released: set[str] = set()
        self._started: set[str] = set()

    def counts(self, row: Row) -> bool:
        """Return whether an event concerns this branch: its own, or one for all branches."""
        return row[3] == self._branch or (row[3] == "" and row[4] in states.FOR_ALL)

    def received(self) -> list[Request]:
        """Return all requests, in the order received."""
        self._catch_up()
        return list(self._received)

    def states(self) -> dict[str, str]:
        """Return the state of every request, by id, in the order received."""
        self._catch_up()
        return dict(self._states)

    def state(self, request_id: str) -> str | None:
        """Return the state of a request; None: it is unknown."""
        self._catch_up()
        return self._states.get(request_id)

    def held(self) -> dict[str, Event]:
        """Return the requests that are held, by id: the event that says why."""
        self._catch_up()
        return {name: one for name, one in self._held.items() if self._states[name] == "held"}

    def is_released(self, request_id: str) -> bool:
        """Return whether a held request was let go and not held again."""
        self._catch_up()
        return request_id in self._released

    def started(self) -> set[str]:
        """Return the requests that were started or held, failed ones too, by id.

        One that was taken back is not among them.
        """
        self._catch_up()
        return set(self._started)

    def span(self, request_id: str) -> tuple[int, int] | None:
        """Return the numbers of a request's first and last event; None: it is unknown."""
        self._catch_up()
        return self._spans.get(request_id)

    def past(self, request_id: str) -> list[str] | None:
        """Return what happened to a request on this branch; None: it is unknown."""
        return None if self.span(request_id) is None else list(self._events.get(request_id, ()))

    def _catch_up(self) -> None:
        with self._book.turn:
            rows, anew = self._following.news()
            if anew:
                self._begin()
            for row in rows:
                if row[2]:
                    self._take(row)

    def _take(self, row: Row) -> None:
        seq, name, event = int(str(row[0])), str(row[2]), str(row[4])
        self._spans[name] = self._spans.get(name, (seq, seq))[0], seq
        if event == "received":
            self._received.append(Request.from_json(Event.of(row).facts))
        if not self.counts(row):
            return
        past = self._events.setdefault(name, [])
        past.append(event)
        self._states[name] = states.state_after(past)
        if event == "held":
            self._held[name] = Event.of(row)
            self._released.discard(name)
        elif event == "released":
            self._released.add(name)
        if event in ("started", "held"):
            self._started.add(name)
        elif event in ("restarted", "withdrawn"):
            self._started.discard(name)

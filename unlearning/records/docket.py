"""What the events of a ledger come to on one branch: states, holds, who was started."""

from __future__ import annotations

from unlearning.records import states
from unlearning.records.book import Book, Row
from unlearning.records.event import Event

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

    def counts(self, row: Row) -> bool:
        """Return whether an event concerns this branch: its own, or one for all branches."""
        return row[3] == self._branch or (row[3] == "" and row[4] in states.FOR_ALL)

    def states(self) -> dict[str, str]:
        """Return the state of every request, by id, in the order received."""
        events: dict[str, list[str]] = {}
        for row in self._book.rows("request_id != '' AND branch IN ('', ?)", (self._branch,)):
            if self.counts(row):
                events.setdefault(str(row[2]), []).append(str(row[4]))
        return {name: states.state_after(past) for name, past in events.items()}

    def held(self) -> dict[str, Event]:
        """Return the requests that are held, by id: the event that says why."""
        rows = self._book.rows("event = 'held' AND branch = ?", (self._branch,))
        last, known = {str(row[2]): row for row in rows}, self.states()
        return {name: Event.of(row) for name, row in last.items() if known[name] == "held"}

    def is_released(self, request_id: str) -> bool:
        """Return whether a held request was let go and not held again."""
        rows = self._book.rows("request_id = ? AND branch = ?", (request_id, self._branch))
        return [row[4] for row in rows if row[4] in ("held", "released")][-1:] == ["released"]

    def started(self) -> set[str]:
        """Return the requests that were started or held, failed ones too, by id.

        One that was taken back is not among them.
        """
        found: set[str] = set()
        for row in self._book.rows("branch IN ('', ?)", (self._branch,)):
            if row[4] in ("started", "held") and self.counts(row):
                found.add(str(row[2]))
            elif row[4] in ("restarted", "withdrawn") and self.counts(row):
                found.discard(str(row[2]))
        return found

"""What a ledger says of its anchor: since when, where it began anew, what it vouches for now.

Whoever can take the anchor away could also put an older ledger back. So the ledger notes where its
anchor lies and every time it was not there; what was lost stays a fault until the operator says
why.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from unlearning.errors import LedgerError
from unlearning.records.anchor import CHANGED
from unlearning.records.book import Book
from unlearning.records.event import Event
from unlearning.records.following import Following

__all__ = ["ANCHORED", "REANCHORED", "Anchoring", "Cover", "cover"]

log = logging.getLogger("fedunlearn")

ANCHORED, REANCHORED = "anchored", "reanchored"
_UNWRITABLE, _UNNAMED, _BEGUN = "not to be written", "named no more", "begun"
_LASTING = (_UNWRITABLE, CHANGED)  # noted once, however many events follow

Append = Callable[[str, dict[str, object]], object]


@dataclass(frozen=True)
class Cover:
    """How far an anchor vouches for a ledger.

    Parameters
    ----------
    place : str
        Where it lies; empty: there is none.
    words : str
        For how many events; empty: there is none.
    fault : str
        What was lost and nobody has explained; empty: nothing.
    """

    place: str = ""
    words: str = ""
    fault: str = ""

    @property
    def line(self) -> str:
        """Where it lies and for how much it vouches, in one line; empty: there is none."""
        return f"anchor {self.place}: it {self.words}" if self.place else ""


class Anchoring:
    """Looks at the anchor before something is written, and notes what is odd about it.

    Parameters
    ----------
    book : Book
        Of the ledger.
    """

    def __init__(self, book: Book) -> None:
        self._book = book
        self._following = Following(book)
        self._noted: Event | None = None

    def settle(self, append: Append) -> None:
        """Begin an anchor that is not there anew and say so in the ledger, before anything else.

        ``append`` adds an event of the run, by its name and facts, inside a transaction.
        """
        if self._book.heads is None or not self._odd():
            return
        with self._book.transaction():
            if not (odd := self._odd()):  # another process was first
                return
            anchor, size, head = self._book.heads.anchor, self._book.size, self._book.head()
            if anchor is not None and odd == _BEGUN:
                size = anchor.first(self._book.name())
            elif anchor is not None and head is not None and odd != CHANGED:
                try:
                    anchor.append(head)
                except OSError:
                    odd = _UNWRITABLE
            if not self._is_known(odd):
                append(ANCHORED, {"anchor": str(anchor or ""), "found": odd, "after": size})
        if odd not in (_BEGUN, _UNWRITABLE) and (lost := _lost(self._events(), self._book)):
            log.warning("%s", lost)

    def begin_anew(self, reason: str, append: Append) -> None:
        """Begin the anchor of the config anew, knowingly.

        Raises
        ------
        LedgerError
            If no reason is given, nothing was lost, or the anchor cannot be written.
        """
        if self._book.heads is None or not reason.strip():
            raise LedgerError("the anchor of a ledger with a file begins anew for a reason; say it")
        with self._book.transaction():
            anchor, size = self._book.heads.anchor, self._book.size
            if not _lost(self._events(), self._book) and not self._odd():
                raise LedgerError(
                    f"nothing is wrong with the anchor of {self._book.place}: nothing was written"
                )
            head = self._book.head()
            if anchor is not None and head is not None:
                try:
                    anchor.append(head)
                except OSError as error:
                    raise LedgerError(
                        f"the anchor {anchor} cannot be written: {error.strerror}; name another "
                        "file in the config, [ledger] anchor"
                    ) from error
            facts = {"anchor": str(anchor or ""), "after": size, "reason": reason}
            append(REANCHORED, facts)

    def _odd(self) -> str:
        """Return what is to be noted of the anchor; nothing: it is as the ledger says."""
        heads, noted = self._book.heads, self._last()
        anchor = None if heads is None else heads.anchor
        path = "" if noted is None else str(noted.facts.get("anchor"))
        if heads is None or (anchor is None and not path) or self._book.head() is None:
            return ""
        if anchor is None:
            return _UNNAMED if path else ""
        is_own = path == str(anchor)
        found = anchor.fault(self._book.name(), _begun(noted) if is_own else None)
        return "" if self._is_known(found) else found or ("" if is_own else _BEGUN)

    def _is_known(self, odd: str) -> bool:
        """Return whether the ledger says so already, of what stays so for long."""
        noted, heads = self._last(), self._book.heads
        return (
            odd in _LASTING
            and noted is not None
            and heads is not None
            and noted.facts.get("found") == odd
            and noted.facts.get("anchor") == str(heads.anchor)
        )

    def _last(self) -> Event | None:
        rows, anew = self._following.news()
        said = [row for row in rows if not row[2] and row[4] in (ANCHORED, REANCHORED)]
        self._noted = Event.of(said[-1]) if said else None if anew else self._noted
        return self._noted

    def _events(self) -> list[Event]:
        return [Event.of(row) for row in self._book.rows("request_id = ''")]


def cover(events: Sequence[Event], book: Book) -> Cover:
    """Return how far the anchor vouches for a ledger with these events of the run itself.

    Raises
    ------
    LedgerError
        If the anchor is not there, was changed, or holds less of the ledger than was noted.
    """
    anchor = None if book.heads is None else book.heads.anchor
    if anchor is None or book.head() is None:
        return Cover(fault=_lost(events, book))
    said = [event for event in events if event.event in (ANCHORED, REANCHORED)]
    own = said and said[-1].facts.get("anchor") == str(anchor)
    found = anchor.heads(book.name()) if anchor.is_there else []  # tells what was changed
    if fault := anchor.fault(book.name(), _begun(said[-1]) if own else None):
        raise LedgerError(
            f"the anchor {anchor} is {fault}: nothing elsewhere tells whether {book.place} was cut "
            "off; put it back, or say why it is so with `fedunlearn reanchor RUN --reason ...`"
        )
    words = f"vouches for {found[-1].size} of {book.size} event(s)"
    if begun := next((e for e in reversed(said) if e.facts.get("after")), None):
        words += f"; begun after event {begun.facts['after']}, on {begun.utc[:10]}"
    return Cover(str(anchor), words, _lost(events, book))


def _lost(events: Sequence[Event], book: Book) -> str:
    """Return what was lost of the anchor and nobody has explained; nothing: all is there."""
    lost = before = ""
    for event in events:
        found = event.facts.get("found")
        if event.event == REANCHORED:
            lost, before = "", str(event.facts.get("anchor"))
        elif event.event == ANCHORED and found != _UNWRITABLE:
            if before and found != _BEGUN:
                lost = (
                    f"the anchor {before} was {found} at event {event.seq} of {book.place}: what "
                    "was changed or cut off before it would not show; find out why, then say it "
                    "with `fedunlearn reanchor RUN --reason ...`"
                )
            before = str(event.facts.get("anchor"))
    if before and not lost and book.heads is not None and book.heads.anchor is None:
        return (
            f"the config names no anchor any more, and {book.place} was noted in {before}; name it "
            "again, or say why not with `fedunlearn reanchor RUN --reason ...`"
        )
    return lost


def _begun(noted: Event | None) -> int | None:
    """Return how many events the first head in the anchor may cover; None: nobody can tell."""
    if noted is None or noted.facts.get("found") in _LASTING:
        return None
    return int(str(noted.facts.get("after", 0)))

"""Every event of a ledger is read once: a run asks several times a round, and it only grows."""

from __future__ import annotations

from unlearning.records.book import Book, Row

__all__ = ["Following"]


class Following:
    """Where somebody who reads a book event by event has come to.

    Parameters
    ----------
    book : Book
        Of the ledger.
    """

    def __init__(self, book: Book) -> None:
        self._book = book
        self._last: Row | None = None  # that was read
        self._stamp: tuple[int, int] | None = None  # of the book, when it was

    def news(self) -> tuple[list[Row], bool]:
        """Return the events since the last look, in order, and whether these are all there are.

        They are where what was read before is there no more: it was read inside a transaction that
        was undone.
        """
        with self._book.turn:
            stamp = self._book.stamp
            if stamp == self._stamp:
                return [], False
            last = self._last
            rows = self._book.rows("seq >= ?", (0 if last is None else last[0],))
            anew = last is not None and rows[:1] != [last]
            if anew:
                rows = self._book.rows()
            elif last is not None:
                del rows[0]
            self._last = rows[-1] if rows else None if anew else last
            self._stamp = stamp
            return rows, anew

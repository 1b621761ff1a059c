"""Whether a ledger is what its chain, its signed heads and its anchor say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from unlearning.errors import LedgerError
from unlearning.records.book import GENESIS, VERSION, Book, Row, hash_of
from unlearning.records.event import Event
from unlearning.records.head import Head
from unlearning.records.merkle import Tree
from unlearning.records.seal import read_public

__all__ = ["check_book", "check_chain", "check_heads", "outside_heads"]


def check_book(book: Book, head: str | None) -> None:
    """Check the chain of a ledger, and every signed head of it, as they are at one moment.

    Parameters
    ----------
    book : Book
        Of the ledger.
    head : str or None
        Noted earlier; the chain must still contain it.

    Raises
    ------
    LedgerError
        As :func:`check_chain` and :func:`check_heads`.
    """
    # Outside first: a head is written there after its events, so what is read now is no newer.
    outside = outside_heads(book)
    with book.snapshot():
        rows = book.rows()
        check_chain(rows, book.place, head)
        renewed = [
            (e.seq, str(e.facts.get("key_before", "")), str(e.facts.get("key")))
            for e in map(Event.of, book.rows("event = 'rekeyed' AND request_id = ''"))
        ]
        check_heads(rows, book, renewed, outside)


def check_chain(rows: Sequence[Row], place: str, head: str | None) -> None:
    """Check the chain of events, and that it contains a head noted earlier.

    Raises
    ------
    LedgerError
        Naming the ``seq`` where it breaks.
    """
    previous, found = GENESIS, head in (None, GENESIS)
    for seq, row in enumerate(rows, start=1):
        problem = None
        if row[0] != seq:
            problem = f"event {seq} is missing"
        elif row[6] != previous:
            problem = f"event {seq} does not follow the event before it"
        elif row[7] != hash_of(row[:7]):
            problem = f"event {seq} was changed after it was written"
        if problem:
            raise LedgerError(
                f"the chain of {place} breaks at seq {seq}: {problem}; restore it from a backup"
            )
        previous = str(row[7])
        found = found or previous == head
    if not found:
        raise LedgerError(
            f"{place} does not contain the head {head}: its end was cut off, or the head is "
            "another ledger's; restore it from a backup"
        )


Outside = Sequence[tuple[str, Head]]


def outside_heads(book: Book) -> Outside:
    """Return the heads that are kept outside a ledger, each with the place where it stands.

    Raises
    ------
    LedgerError
        If the one beside it is missing, or one of them damaged.
    """
    if book.heads is None or book.version != VERSION:
        return []
    beside = book.heads.read()
    if beside is None:
        raise LedgerError(
            f"{book.heads.file} is missing or damaged: nothing beside {book.place} tells whether "
            "its end was cut off; restore it from a backup"
        )
    found = [(book.heads.file.name, beside)]
    anchor = book.heads.anchor
    if anchor is not None and anchor.is_there:  # what is missing is told beside
        found += [(f"the anchor {anchor}", head) for head in anchor.heads(book.name())]
    return found


def check_heads(
    rows: Sequence[Row],
    book: Book,
    renewed: Sequence[tuple[int, str, str]],
    outside: Outside,
) -> None:
    """Hold the events against the head in the ledger, the one beside it and the anchor's.

    Parameters
    ----------
    rows : sequence
        The events.
    book : Book
        Where they come from.
    renewed : sequence of (int, str, str)
        Where the ledger says that it got another key: the number of that event, the public key
        before (empty: its file was lost) and the one after.
    outside : sequence
        What :func:`outside_heads` returned before the events were read.

    Raises
    ------
    LedgerError
        Saying which head does not fit, and how.
    """
    if book.heads is None or book.version != VERSION:
        return
    tree, roots = Tree(), [Tree().root.hex()]
    for row in rows:
        tree.add(str(row[7]).encode())
        roots.append(tree.root.hex())
    keys = {read_public(book.heads.public): len(rows)}
    for place, (seq, before, after) in enumerate(renewed):
        # What is signed with a key that was given up counts for the events before that alone.
        following = renewed[place + 1][0] if place + 1 < len(renewed) else len(rows) + 1
        for key, last in ((before, seq - 1), (after, following - 1)):
            keys[key] = max(last, keys.get(key, 0))
    witness = _Witness(book.place, book.name(), roots, keys)
    inside = book.head()
    if inside is None:
        raise LedgerError(f"{book.place} has lost its signed head; restore it from a backup")
    witness.check(inside, "its signed head", is_last=True)
    for where, head in outside:
        witness.check(head, where)


class _Witness:
    """What the events of a ledger say, to hold heads against."""

    def __init__(self, place: str, name: str, roots: list[str], keys: Mapping[str, int]) -> None:
        self.place, self._name, self._roots, self._keys = place, name, roots, keys

    def check(self, found: Head, where: str, *, is_last: bool = False) -> None:
        """Refuse a head that the events do not bear out; the last one covers all of them."""
        held = len(self._roots) - 1
        is_ours = found.size <= self._keys.get(found.key, -1) or found.size > held
        is_ours = is_ours and found.key in self._keys and found.ledger == self._name
        if not found.is_signed or not is_ours:
            raise LedgerError(f"{where} is not signed by the key of {self.place}: it was changed")
        says = f"{self.place} holds {held} event(s), {where} vouches for {found.size}: "
        if found.size > held:
            raise LedgerError(f"{says}its end was cut off; restore it from a backup")
        if found.root != self._roots[found.size]:
            raise LedgerError(
                f"the first {found.size} event(s) of {self.place} are not those that {where} "
                "vouches for; restore it from a backup"
            )
        if is_last and found.size < held:
            raise LedgerError(f"{says}the rest was added by somebody without the key")

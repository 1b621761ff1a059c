"""The rows of a history's index, bound by digests: whatever is changed there later shows.

Every recorded round has two digests, of who took part and of the files it names, chained in order
of the rounds. A closing line covers the end of the chain, the settings and every other file, so
that rounds cut off at the end show as well; it is signed with the run folder's key where there is
one. All of it is written in the transaction that changes the rows. A new round costs its own rows
and the closing line, however many rounds there are.

Not found: an index put back whole, as it once was. Results and ledger tell how far a run was.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from heapq import merge
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from unlearning.errors import FedUnlearnError, HistoryError
from unlearning.records.seal import Seal, is_signed_by, read_public

__all__ = ["SCHEMA", "Sealing"]

SCHEMA = (
    "CREATE TABLE seals (round INTEGER PRIMARY KEY, people TEXT NOT NULL, files TEXT NOT NULL,"
    " chain TEXT NOT NULL)",
    "CREATE TABLE closing (place INTEGER PRIMARY KEY CHECK (place = 1), facts TEXT NOT NULL)",
)
_TAG = "fedunlearn-history-index-1"
_START = "0" * 64
_OF_ROUND = "kind IN ('global', 'update')"  # all other files belong to no round alone
# NOT of the above, in ranges: the index finds them without a look at every round.
_OF_NONE = " UNION ALL ".join(
    f"SELECT * FROM blobs INDEXED BY blobs_by_kind WHERE {where}"
    for where in ("kind < 'global'", "kind > 'global' AND kind < 'update'", "kind > 'update'")
)
_MEANING = {
    "rounds": "the number of its rounds",
    "chain": "the chain over its rounds",
    "settings": "a setting",
    "others": "an initial model, a contribution or a state",
}


class Sealing:
    """Writes and checks the digests over the rows of one index.

    Parameters
    ----------
    db : Connection
        The index; every writing method is called inside a transaction.
    place : str
        Where the index lies, for messages.
    name : str
        Of the history's folder; it is signed too, so that two histories cannot be exchanged.
    key : Path or None
        The private key to sign with, its public half and those before it beside it; None: the
        digests alone, which whoever changes the rows can make anew.
    """

    def __init__(
        self, db: sqlite3.Connection, place: str, name: str = "", key: Path | None = None
    ) -> None:
        self._db, self._place, self._name, self.key = db, place, name, key
        self._seal: Seal | None = None
        self._counted = (-1, 0)  # the last round, and how many there were with it

    def of(self, db: sqlite3.Connection) -> Sealing:
        """Return the sealing of a copy that is to take this index's place."""
        return Sealing(db, self._place, self._name, self.key)

    # --- writing -------------------------------------------------------------------------------

    def add(self, server_round: int) -> None:
        """Bind the rows of a round that is the latest."""
        last = self._last()
        count = 1 + self._count(last)
        people = self._db.execute(
            "SELECT * FROM participants WHERE round = ? ORDER BY client", (server_round,)
        ).fetchall()
        erased = self._db.execute("SELECT * FROM rounds WHERE round = ?", (server_round,))
        files = self._db.execute(
            f"SELECT * FROM blobs WHERE round = ? AND {_OF_ROUND} ORDER BY path", (server_round,)
        ).fetchall()
        pair = _digest([erased.fetchall(), people]), _digest(files)
        self._write(server_round, *pair, _chain(last[1] if last else _START, *pair))
        self._counted = server_round, count

    def redo(self) -> None:
        """Bind the rows of all rounds anew."""
        self._db.execute("DELETE FROM seals")
        chain = _START
        for server_round, people, files in self._found():
            chain = _chain(chain, people, files)
            self._write(server_round, people, files, chain)
        self._counted = (-1, 0)

    def close(self) -> None:
        """Write the closing line."""
        facts = {"tag": _TAG, "name": self._name, **self._facts(counted=True), "key": ""}
        seal = self._read_seal()
        signature = ""
        if seal is not None:
            facts["key"] = seal.public
            signature = seal.sign(facts)
        text = json.dumps({**facts, "signature": signature})
        self._db.execute("INSERT OR REPLACE INTO closing VALUES (1, ?)", (text,))

    def _write(self, *row: object) -> None:
        self._db.execute("INSERT INTO seals VALUES (?, ?, ?, ?)", row)

    def _read_seal(self) -> Seal | None:
        if self._seal is None and self.key is not None and self.key.exists():
            self._seal = Seal.read(self.key)
        return self._seal

    def _last(self) -> tuple[int, str] | None:
        """Return the last round that is bound, and the end of the chain."""
        query = "SELECT round, chain FROM seals ORDER BY round DESC LIMIT 1"
        found: tuple[int, str] | None = self._db.execute(query).fetchone()
        return found

    def _count(self, last: tuple[int, str] | None) -> int:
        """Return how many rounds are bound; counted anew if the last is not the one counted."""
        if last is None:
            return 0
        if last[0] != self._counted[0]:
            count = self._db.execute("SELECT COUNT(*) FROM seals").fetchone()[0]
            self._counted = last[0], int(count)
        return self._counted[1]

    def _facts(self, *, counted: bool = False) -> dict[str, object]:
        """Return what the closing line says; ``counted``: this object has counted the rounds."""
        last = self._last()
        if not counted:
            self._counted = (-1, 0)
        others = self._db.execute(_OF_NONE).fetchall()
        settings = self._db.execute("SELECT * FROM settings ORDER BY key")
        return {
            "rounds": self._count(last),
            "chain": last[1] if last else _START,
            "settings": _digest(settings.fetchall()),
            "others": _digest(sorted(others, key=_path)),
        }

    def _found(self) -> Iterator[tuple[object, str, str]]:
        """Yield each round that any row names, with the digests of its rows.

        One round after the other is read: of ten thousand with a hundred clients, whoever holds all
        rows at once takes hundreds of megabytes.
        """
        tables = [
            _grouped(number, self._db.execute(f"SELECT * FROM {query}"), at)
            for number, query, at in (
                (0, "rounds ORDER BY round", 0),
                (1, "participants ORDER BY round, client", 0),
                (2, "blobs WHERE kind = 'global' ORDER BY round", 2),
                (2, "blobs WHERE kind = 'update' ORDER BY round", 2),
            )
        ]
        for _, groups in groupby(merge(*tables, key=_place), key=_place):
            named: tuple[list[object], ...] = ([], [], [])
            first, *rest = groups
            for _, number, rows in (first, *rest):
                named[number].extend(rows)
            yield first[0], _digest(named[:2]), _digest(sorted(named[2], key=_path))

    # --- checking ------------------------------------------------------------------------------

    @property
    def is_there(self) -> bool:
        """Whether the rows are bound; those of an older format are not."""
        query = "SELECT 1 FROM sqlite_master WHERE name = 'closing'"
        return self._db.execute(query).fetchone() is not None

    @property
    def words(self) -> str:
        """How the rows are bound."""
        if not self.is_there:
            return "the rows of its index are not sealed (an older version recorded it)"
        try:
            signed = bool(self._closing().get("signature"))
        except HistoryError:
            signed = False
        return f"the rows of its index are sealed{' and signed' if signed else ', without a key'}"

    def problems(self) -> list[str]:
        """Return in words every row that is not as it was sealed; nothing of an older format."""
        try:
            if not self.is_there:
                return []
            return [f"{self._place}: {problem}" for problem in self._problems()]
        except (sqlite3.Error, HistoryError) as error:
            return [f"{self._place}: its seal cannot be read ({error})"]

    def _problems(self) -> Iterator[str]:
        rows = self._db.execute("SELECT * FROM seals ORDER BY round")
        sealed = {row[0]: row[1:] for row in rows}
        found = {at: (people, files) for at, people, files in self._found()}
        for at in found:
            if at not in sealed:
                yield f"round {at} was added after it was sealed"
        chain = _START
        for at, (people, files, after) in sealed.items():
            chain = _chain(chain, people, files)
            if chain != after:
                yield f"the seal of round {at} was changed, or one before it struck"
                chain = after
            if at not in found:
                yield f"round {at} was struck"
                continue
            if found[at][0] != people:
                yield f"who took part in round {at}, or with how many examples, was changed"
            if found[at][1] != files:
                yield f"which files hold round {at}, or whose they are, was changed"
        yield from self._problems_of_closing()

    def _problems_of_closing(self) -> Iterator[str]:
        closing = self._closing()
        for name, value in self._facts().items():
            if closing.get(name) != value:
                yield f"{_MEANING[name]} is not the one that was sealed"
        if self.key is None:
            return
        trusted = set(_public_keys(self.key))
        if not trusted:
            return
        signature = str(closing.pop("signature", ""))
        key = str(closing.get("key", ""))
        if key not in trusted or not is_signed_by(key, signature, closing):
            yield "its seal is not signed by the key of the run: it was changed"
        elif closing.get("name") != self._name:
            yield f"it was sealed as {closing.get('name')!r}: another history lies in its place"

    def _closing(self) -> dict[str, object]:
        row = self._db.execute("SELECT facts FROM closing").fetchone()
        try:
            closing: object = json.loads(row[0]) if row else None
        except (ValueError, TypeError):
            closing = None
        known = isinstance(closing, dict) and closing.get("tag") == _TAG
        if not known or json.dumps(closing) != row[0]:  # one closing line has one spelling
            raise HistoryError("its closing line is missing or damaged")
        return dict(closing) if isinstance(closing, dict) else {}


_Rows = tuple[object, int, list[tuple[object, ...]]]  # of one round: it, the table's number, rows
_KINDS = {type(None): 0, int: 1, float: 1, str: 2, bytes: 3}  # in SQLite's order


def _grouped(number: int, rows: Iterable[tuple[object, ...]], at: int) -> Iterator[_Rows]:
    for server_round, group in groupby(rows, key=itemgetter(at)):
        yield server_round, number, list(group)


def _place(found: _Rows) -> Any:
    """Return what SQLite orders a round by, of whatever kind somebody has made it."""
    server_round = found[0]
    return _KINDS[type(server_round)], 0 if server_round is None else server_round


def _path(row: object) -> str:
    return str(row[0]) if isinstance(row, tuple) else ""


def _digest(rows: Sequence[object]) -> str:
    return hashlib.sha256(json.dumps(rows, default=repr).encode()).hexdigest()


def _chain(before: object, people: object, files: object) -> str:
    return hashlib.sha256(f"{before}|{people}|{files}".encode()).hexdigest()


def _public_keys(key: Path) -> Iterator[str]:
    """Yield the public keys beside a private one: its own, and those before it was renewed."""
    for path in sorted(key.parent.glob(f"{key.stem}*.pub")):
        try:
            yield read_public(path)
        except FedUnlearnError:
            continue  # what is wrong with that file is told where the ledger is checked

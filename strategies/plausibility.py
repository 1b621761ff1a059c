"""Updates that are far longer than the others of their round, and what is kept until that is known.

A single client that answers with noise would otherwise take the model wherever it likes: the mean
has no bound. Honest updates of one round differ by how much data a client has, not by a factor of
ten from the median; where all of them are tiny, a longer one is harmless.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import replace
from typing import IO, Any, NamedTuple

import numpy as np

from strategies.wire import LARGE, length
from unlearning import arrays as named
from unlearning.arrays import Arrays
from unlearning.closing import Closing
from unlearning.packing import Piece
from unlearning.protocol import Reply
from unlearning.records.files import Tray, read_piece, write_pieces

__all__ = ["Spool", "of_one_kind", "without_outliers"]

_HARMLESS = 1e-3  # of the model's own length: no update shorter than this is an outlier
_LEAST = 3  # of two updates neither is ten times as long as their median
_TOWERING = 1e6  # no honest statistic is so many times the median of the others
# Below this the others may have sent what rounding left of zero, which is no measure of anything;
# an honest answer beside it is not taken for an attack before it is as large as the second number.
_NOISE, _ANYHOW = 1e-6, 1e3
_IN_MEMORY = 32 * 2**20  # bytes of replies held in memory before the rest goes to disk

_GONE = Reply(-1, 0, {})
_PAGE = mmap.ALLOCATIONGRANULARITY  # where a map may begin
_ALIGNED = 64  # bytes: where arrays begin in memory
_JOINED = 2**20  # bytes of a reply that are rather copied once more than written in many pieces


class _Place(NamedTuple):
    """Where an array lies in the scratch file, from the beginning of its reply."""

    offset: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]


class _Spilled(NamedTuple):
    """Where a reply lies in the scratch file, and its arrays and its update from there on."""

    begin: int
    size: int
    arrays: dict[str, _Place]
    update: dict[str, _Place]


class Spool(Closing):
    """The replies of a round, in memory while they are small, in an unnamed scratch file beyond.

    Parameters
    ----------
    budget : int
        Bytes that stay in memory.
    sent : callable or None
        The model that a client was sent, where every update leads from there to what it answered:
        a large one is then worked out, with the same bits, when its reply is taken. It need not
        be there before.
    """

    def __init__(
        self, budget: int = _IN_MEMORY, sent: Callable[[int], Arrays] | None = None
    ) -> None:
        self._left, self._sent = budget, sent
        self._replies: list[Reply] = []
        self._spilled: dict[int, _Spilled] = {}
        self._scratch: IO[bytes] | None = None
        self._tray = Tray()

    def close(self) -> None:
        """Let go of the replies."""
        self._replies.clear()
        if self._scratch is not None:
            self._scratch.close()

    @property
    def _file(self) -> IO[bytes]:
        """The scratch file, made when it is needed."""
        if self._scratch is None:
            self._scratch = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
        return self._scratch

    def append(self, reply: Reply) -> None:
        """Keep a reply."""
        if self._sent is not None and reply.update and named.nbytes(reply.update) >= LARGE:
            reply = replace(reply, update={})
        update = reply.update or {}
        size = named.nbytes(reply.arrays) + named.nbytes(update)
        if size <= self._left:
            self._left -= size
            reply = replace(reply, arrays=_own(reply.arrays))
        else:
            places: list[dict[str, _Place]] = []
            pieces: list[Piece] = []
            end = 0
            for arrays in (reply.arrays, update):
                found, end = _laid(arrays, end, pieces)
                places.append(found)
            pieces.append(bytes(-end % _PAGE))
            begin = self._file.seek(0, os.SEEK_END)
            write_pieces(self._file, pieces if end > _JOINED else [b"".join(pieces)])
            self._spilled[len(self._replies)] = _Spilled(begin, end, *places)
            reply = replace(reply, arrays={}, update=None if reply.update is None else {})
        self._replies.append(reply)

    def __iter__(self) -> Iterator[Reply]:
        """Yield the replies in the order they were kept in; each is let go when it is yielded.

        What the scratch file holds is mapped, not read: a page comes to memory when it is looked
        at, and goes with the reply. What an update is worked out from is read into its memory.
        """
        for number in range(len(self._replies)):
            yield self._taken(number)

    def _taken(self, number: int) -> Reply:
        reply = self._replies[number]
        self._replies[number] = _GONE
        spilled = self._spilled.get(number)
        if spilled is not None:
            update = None if reply.update is None else self._mapped(spilled, spilled.update)
            reply = replace(reply, arrays=self._mapped(spilled, spilled.arrays), update=update)
        if self._sent is not None and reply.update == {}:
            start, end = self._sent(reply.client), reply.arrays
            if spilled is not None:
                held = read_piece(self._file, spilled.size, spilled.begin, self._tray)
                end = _lying(spilled.arrays, held)
            with np.errstate(over="ignore"):
                update = named.delta(start, end, own=spilled is not None)
            reply = replace(reply, update=update, moved=None)
        return reply

    def _mapped(self, spilled: _Spilled, places: dict[str, _Place]) -> Arrays:
        # Of nothing there is no map. What is written to one of these stays with whoever writes.
        if not places or not spilled.size:
            return _lying(places, b"")
        mapped = mmap.mmap(
            self._file.fileno(), spilled.size, access=mmap.ACCESS_COPY, offset=spilled.begin
        )
        return _lying(places, mapped)


def _laid(arrays: Arrays, begin: int, pieces: list[Piece]) -> tuple[dict[str, _Place], int]:
    """Lay arrays behind some pieces; return where they lie, and where they end."""
    places: dict[str, _Place] = {}
    end = begin
    for name, array in arrays.items():
        gap = -end % _ALIGNED
        places[name] = _Place(end + gap, array.dtype, array.shape)
        flat = np.ascontiguousarray(array).reshape(-1)
        pieces += [bytes(gap), flat.view(np.uint8).data] if flat.size else [bytes(gap)]
        end += gap + flat.nbytes
    return places, end


def _lying(places: dict[str, _Place], memory: Piece | mmap.mmap) -> Arrays:
    return {
        name: np.ndarray(place.shape, place.dtype, memory, place.offset)
        for name, place in places.items()
    }


def _own(arrays: Arrays) -> Arrays:
    """Return arrays that can be written to; those that lie in a message's memory are copied."""
    return {n: a if a.flags.writeable else a.copy() for n, a in arrays.items()}


def without_outliers(
    replies: Iterable[Reply],
    model: Arrays,
    leave_out: Callable[[int, str], None],
    kind_of: Callable[[int], Hashable] = lambda client: None,
    factor: float = 10.0,
    sent: Callable[[int], Arrays] | None = None,
) -> Iterator[Reply]:
    """Yield the replies of a round, in order, without updates far longer than the others.

    Parameters
    ----------
    replies : iterable of Reply
        All of them are taken in before the first is passed on.
    model : Arrays
        What the clients were sent.
    leave_out : callable
        Told of each client that is left out, and why.
    kind_of : callable
        Updates are held against those of clients of the same kind only: who climbs moves farther
        than who learns.
    factor : float
        An update may be so many times as long (L2, float buffers included) as the median of the
        updates of its kind that are not zero.
    sent : callable or None
        As for :class:`Spool`.
    """
    lengths: dict[int, float] = {}
    groups: dict[Hashable, list[float]] = defaultdict(list)
    with Spool(sent=sent) as spool:
        for reply in replies:
            if reply.update is not None and (found := _moved(reply)):
                lengths[reply.client] = found
                groups[kind_of(reply.client)].append(found)
            spool.append(reply)
            del reply  # it may lie in the spool's file by now, while the next client works
        harmless = _HARMLESS * length(model)
        limits = {
            kind: max(factor * float(np.median(found)), harmless)
            for kind, found in groups.items()
            if len(found) >= _LEAST
        }
        for reply in spool:
            limit = limits.get(kind_of(reply.client), float("inf"))
            if (moved := lengths.get(reply.client, 0.0)) > limit:
                leave_out(
                    reply.client,
                    f"quarantined: it moved the model by {moved:.3g} (L2), more than {factor:g} "
                    "times the median of the round",
                )
            else:
                yield reply
            del reply  # large, and it would lie there while the next one is read


def _moved(reply: Reply) -> float:
    return length(reply.update or {}) if reply.moved is None else reply.moved


def of_one_kind(
    replies: Iterable[Reply],
    leave_out: Callable[[int, str], None],
    kind_of: Callable[[int], Hashable] = lambda client: None,
    *,
    same_form: bool = True,
) -> Iterator[Reply]:
    """Yield the replies of a round, in order, whose arrays are like most of the others'.

    For steps that answer with statistics: what combines them would stumble over another form, and
    with it the whole round, or follow a number that is a million times as large as all others.

    Parameters
    ----------
    replies : iterable of Reply
        All of them are taken in before the first is passed on.
    leave_out, kind_of : callable
        As for :func:`without_outliers`.
    same_form : bool
        Whether names, types and ranks must be those of most replies; sizes may differ.
    """
    forms: dict[Hashable, Counter[Hashable]] = defaultdict(Counter)
    heights: dict[tuple[Hashable, str], list[float]] = defaultdict(list)
    seen: list[tuple[Hashable, Hashable, dict[str, float]]] = []  # kind, form and heights of each
    with Spool() as spool:
        for reply in replies:
            kind, form = kind_of(reply.client), _form(reply.arrays)
            forms[kind][form] += 1
            own = {name: _height(array) for name, array in reply.arrays.items()}
            for name, height in own.items():
                if height:
                    heights[kind, name].append(height)
            seen.append((kind, form, own))
            spool.append(reply)
        limits = {key: _limit(others) for key, others in heights.items() if len(others) >= _LEAST}
        for reply, (kind, form, own) in zip(spool, seen, strict=True):
            why = ""
            usual, count = forms[kind].most_common(1)[0]
            total = forms[kind].total()
            clear = same_form and total >= _LEAST and 2 * count > total
            if clear and form != usual:
                why = "its answer has another form than the others'"
            for name, height in own.items():
                if height > limits.get((kind, name), float("inf")):
                    why = f"its {name!r} is a million times as large as the others'"
            if why:
                leave_out(reply.client, f"quarantined: {why}")
            else:
                yield reply


def _limit(others: list[float]) -> float:
    usual = float(np.median(others))
    return _TOWERING * usual if usual > _NOISE else _ANYHOW


def _form(arrays: Arrays) -> Hashable:
    return frozenset((name, array.dtype.str, array.ndim) for name, array in arrays.items())


def _height(array: named.Array) -> float:
    """Return the largest absolute value, 0 for none."""
    if not array.size or array.dtype.kind == "b":
        return 0.0
    return max(abs(float(array.max())), abs(float(array.min())))

"""The points of a timeline while a run goes on, small enough for as many rounds as it may have."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from typing import overload

from experiments.runs.details import Point

__all__ = ["Points"]

_MEASURES = tuple(name for name, field in Point.model_fields.items() if field.default is None)
_WIDTH = 3 + len(_MEASURES)  # who, the round, which measures are there, and the measures


class Points(Sequence[Point]):
    """Points, each kept as a few numbers and made when it is looked at.

    A run holds its timeline in memory from the first round to the last: as objects that is more
    than a kilobyte a round.

    Parameters
    ----------
    points : iterable of Point
        The first ones.

    Examples
    --------
    >>> points = Points()
    >>> points.append(Point(strategy="original", seed=0, phase="learn", round=1, wall_s=0.5))
    >>> before = points.so_far()
    >>> points.append(Point(strategy="original", seed=0, phase="learn", round=2))
    >>> len(before), len(points), points[-1].wall_s, before[0].wall_s
    (1, 2, None, 0.5)
    """

    def __init__(self, points: Iterable[Point] = ()) -> None:
        self._numbers = array("d")
        self._who: dict[tuple[str, int, str], int] = {}
        self._length: int | None = None  # of a view
        for point in points:
            self.append(point)

    def append(self, point: Point) -> None:
        """Add one.

        Raises
        ------
        TypeError
            If these are the points so far of others.
        """
        if self._length is not None:
            raise TypeError("the points so far of a timeline do not grow")
        who = self._who.setdefault((point.strategy, point.seed, point.phase), len(self._who))
        values = [getattr(point, name) for name in _MEASURES]
        there = sum(1 << place for place, value in enumerate(values) if value is not None)
        self._numbers.extend((who, point.round, there, *(value or 0.0 for value in values)))

    def so_far(self) -> Points:
        """Return the points that are there now; those that follow are not among them."""
        view = Points()
        view._numbers, view._who, view._length = self._numbers, self._who, len(self)
        return view

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._numbers) // _WIDTH if self._length is None else self._length

    @overload
    def __getitem__(self, place: int) -> Point: ...

    @overload
    def __getitem__(self, place: slice) -> tuple[Point, ...]: ...

    def __getitem__(self, place: int | slice) -> Point | tuple[Point, ...]:
        """Return one, or those of a slice."""
        found = range(len(self))[place]
        return self._made(found) if isinstance(found, int) else tuple(map(self._made, found))

    def _made(self, place: int) -> Point:
        begin = place * _WIDTH
        who, at, there, *values = self._numbers[begin : begin + _WIDTH]
        strategy, seed, phase = tuple(self._who)[int(who)]
        seen = {
            name: value
            for bit, (name, value) in enumerate(zip(_MEASURES, values, strict=True))
            if int(there) >> bit & 1
        }
        facts = {"strategy": strategy, "seed": seed, "phase": phase, "round": int(at)}
        return Point.model_validate({**facts, **seen})

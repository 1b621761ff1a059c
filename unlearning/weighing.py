"""How much each client counts in a mean: one weight per part of the model.

A model for several tasks consists of parts: a head per task, and the trunk that they share. A
client that lacks a task has nothing to say of its head, so a part is averaged over those who
trained it, by the examples it was trained on there. Any other model is one part.

Arrays called ``heads.<task>.<...>`` belong to one task and read the trunk, which they help to
train. Those called ``isolated.<task>.<...>`` read it too but never change it. Those called
``shards.<s>.<...>`` are the model of one group of clients, trained by nobody else, and
``sequences.<j>-<i>.<...>`` a module that some groups have trained, those called
``nodes.<l>-<i>.<...>`` a node of a tree of shards. Everything else is the trunk.
Task names contain no dot.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from unlearning.arrays import Array, Arrays, plus

__all__ = [
    "EXAMPLES",
    "HEADS",
    "ISOLATED",
    "NODES",
    "SEQUENCES",
    "SHARDS",
    "TRUNK",
    "Examples",
    "Mean",
    "mean",
    "part_of",
]

HEADS, ISOLATED, SHARDS, SEQUENCES, NODES = "heads", "isolated", "shards", "sequences", "nodes"
_KINDS = (HEADS, ISOLATED, SHARDS, SEQUENCES, NODES)
TRUNK = ""  # the part that is no task's
_COUNTED = (SHARDS, NODES)  # kinds of parts that keep on how many examples they rest
_COUNT = "examples"  # the name of that number in such a part
EXAMPLES = "examples-of/"  # prefix of the metrics that say how many examples a part rests on


def part_of(name: str) -> str:
    """Return the part an array belongs to: a task, a shard, a module, or :data:`TRUNK`.

    >>> part_of("heads.left.weight"), part_of("trunk.0.weight")
    ('left', '')
    """
    kind, _, rest = name.partition(".")
    return rest.partition(".")[0] if kind in _KINDS else TRUNK


@dataclass(frozen=True)
class Examples:
    """How many examples an update rests on.

    Parameters
    ----------
    total : int
        As a whole; 0 or more.
    parts : mapping of str to int
        By part, where they differ: 0 to ``total``. A part that is not named rests on all of them.
    """

    total: int
    parts: Mapping[str, int] = field(default_factory=dict)

    @staticmethod
    def from_metrics(total: int, metrics: Mapping[str, float]) -> Examples:
        """Return what a reply says: ``examples-of/<part>`` among its metrics, never over ``total``.

        >>> Examples.from_metrics(10, {"examples-of/left": 4.0, "loss": 0.5})
        Examples(total=10, parts={'left': 4})
        """
        parts = {
            key.removeprefix(EXAMPLES): int(min(max(value, 0), total))
            for key, value in metrics.items()
            if key.startswith(EXAMPLES)
        }
        return Examples(total, parts)

    def to_metrics(self) -> dict[str, float]:
        """Return what :meth:`from_metrics` reads."""
        return {f"{EXAMPLES}{part}": float(count) for part, count in self.parts.items()}

    def of(self, part: str) -> int:
        """Return how many examples a part rests on."""
        return self.parts.get(part, self.total)


class Mean:
    """A weighted mean of updates that come one at a time, each part by its own examples.

    Sums run in float64 and in the order given; two models are held, however many updates come. An
    integer buffer is that of the last update that trained its part; the one called ``examples`` of
    a shard, or of a node of a tree, is on how many examples the part's mean rests.
    """

    def __init__(self) -> None:
        self._sums: Arrays = {}
        self._idle: Arrays = {}  # of a part that nobody has trained so far: what does not move it
        self._masses: dict[str, int] = {}

    def add(self, examples: Examples, update: Mapping[str, Array]) -> None:
        """Take one more update."""
        for part in {part_of(name) for name in update}:
            self._masses[part] = self._masses.get(part, 0) + examples.of(part)
        for name, step in update.items():
            weight = examples.of(part_of(name))
            floating = np.issubdtype(step.dtype, np.floating)
            if not weight:
                self._idle[name] = np.zeros(step.shape) if floating else step
            elif not floating:
                self._sums[name] = step
            elif name in self._sums:
                self._sums[name] = plus(self._sums[name], step, weight)
            else:
                # Of an array without axes NumPy makes a number.
                self._sums[name] = np.asarray(np.multiply(step, weight, dtype=np.float64))

    def mass(self, part: str) -> int:
        """Return how many examples a part rests on so far, all updates together."""
        return self._masses.get(part, 0)

    def result(self) -> Arrays:
        """Return the mean, floats in float64; zero for a part that nobody trained.

        To be asked for once: the sums become the mean, so that no second model is held.

        Raises
        ------
        ValueError
            If there is no update, or no part rests on any example.
        """
        if not self._sums:
            raise ValueError("weights sum to 0, expected a positive number")
        found = {
            name: np.divide(total, self._masses[part_of(name)], out=total)
            if np.issubdtype(total.dtype, np.floating)
            else self._counter(name, total)
            for name, total in self._sums.items()
        }
        names = [*self._sums, *(name for name in self._idle if name not in self._sums)]
        return {name: found[name] if name in found else self._idle[name] for name in names}

    def _counter(self, name: str, last: Array) -> Array:
        kind, _, rest = name.partition(".")
        if kind in _COUNTED and rest.partition(".")[2] == _COUNT:
            return np.array(self._masses[part_of(name)], last.dtype)
        return last


def mean(terms: Iterable[tuple[Examples, Mapping[str, Array]]]) -> Arrays:
    """Return the mean of updates, each part weighted by its own examples; see :class:`Mean`.

    >>> one, two = {"heads.a.w": np.array([1.0])}, {"heads.a.w": np.array([9.0])}
    >>> mean([(Examples(3), one), (Examples(5, {"a": 1}), two)])
    {'heads.a.w': array([3.])}
    """
    total = Mean()
    for examples, update in terms:
        total.add(examples, update)
        del update  # large, and it would lie there while the next one is made
    return total.result()

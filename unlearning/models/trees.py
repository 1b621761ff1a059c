"""Trees whose split candidates come from a seed, not from data; sums of statistics at their nodes.

A node is (tree, path): the root's path is 1, the children of p are 2p and 2p + 1. Which features
and thresholds a node may split on depends on (seed, tree, path) alone, so that a tree grown again
on fewer examples meets the same candidates. Thresholds are edges of bins of equal width over fixed
public ranges. All statistics are integers: their sums do not depend on any order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from unlearning.arrays import Array, Arrays
from unlearning.errors import ConfigError
from unlearning.protocol import Scalar, Settings

__all__ = [
    "LEAF",
    "OPEN",
    "Plan",
    "closed_by_depth",
    "descend",
    "growing",
    "in_order",
    "last_rows",
    "left_counts",
    "left_sums",
    "level",
    "structure",
]

Integers = NDArray[np.int64]

LEAF, OPEN = -1, -2  # in place of a feature: no split; not decided yet
_CHUNK = 1 << 22  # entries of one temporary array


@dataclass(frozen=True)
class Plan:
    """What decides, together with the data, how trees grow.

    Parameters
    ----------
    seed : int
        Root of all candidates.
    inputs : int
        d, number of features.
    depth : int, default 10
        Largest number of splits on a path, 1 to 40.
    features : int, default 0
        Features tried at a node; 0: the square root of ``inputs``, rounded up.
    thresholds : int, default 8
        Thresholds tried per feature, spread over the range; ``bins - 1`` or more: all of them.
    bins : int, default 32
        Bins per feature, 2 to 256.
    low, high : float, default 0 and 1
        Public range of all features; values outside belong to the outermost bins.
    min_leaf : int, default 1
        Fewest examples on either side of a split.

    Raises
    ------
    ConfigError
        If a value is out of range.
    """

    seed: int
    inputs: int
    depth: int = 10
    features: int = 0
    thresholds: int = 8
    bins: int = 32
    low: float = 0.0
    high: float = 1.0
    min_leaf: int = 1

    def __post_init__(self) -> None:
        for name, least, most in (
            ("depth", 1, 40),
            ("features", 0, self.inputs),
            ("thresholds", 1, 255),
            ("bins", 2, 256),
            ("min_leaf", 1, 2**31),
        ):
            if not least <= getattr(self, name) <= most:
                raise ConfigError(
                    f"model.{name} is {getattr(self, name)!r}; it must be from {least} to {most}"
                )
        if not self.low < self.high:
            raise ConfigError(f"model.low = {self.low} is not below model.high = {self.high}")

    def to_settings(self) -> dict[str, Scalar]:
        """Return plain values that :meth:`of` reads."""
        return {f"plan_{field.name}": getattr(self, field.name) for field in fields(self)}

    @staticmethod
    def of(settings: Settings) -> Plan:
        """Return the plan that :meth:`to_settings` wrote among other settings."""
        floats = ("low", "high")
        found: dict[str, int | float] = {
            field.name: (float if field.name in floats else int)(settings[f"plan_{field.name}"])
            for field in fields(Plan)
        }
        return Plan(**found)  # type: ignore[arg-type]

    @property
    def width(self) -> int:
        """Number of candidates of a node."""
        return self._num_features * min(self.thresholds, self.bins - 1)

    @property
    def _num_features(self) -> int:
        return self.features or int(np.ceil(np.sqrt(self.inputs)))

    def binned(self, x: Array) -> Integers:
        """Return the bin of every value, 0 to ``bins - 1``, shape of ``x``."""
        scaled = (np.asarray(x, dtype=np.float64) - self.low) / (self.high - self.low)
        return np.clip(np.floor(scaled * self.bins), 0, self.bins - 1).astype(np.int64)

    def candidates(self, tree: Array, path: Array) -> tuple[Integers, Integers]:
        """Return features and thresholds tried at m nodes, each ``(m, width)``.

        An example goes left where its bin is at most the threshold.
        """
        here = _hashed(_hashed(_hashed(np.zeros(1), np.array([self.seed])), tree), path)[:, None]
        count = self._num_features
        if count == self.inputs:
            feature = np.broadcast_to(np.arange(count), (len(tree), count))
        else:
            draw = _hashed(here, np.arange(1, self.inputs + 1)[None])
            feature = np.argsort(draw, axis=1, kind="stable")[:, :count]
        tried = min(self.thresholds, self.bins - 1)
        edges = np.arange(tried + 1) * (self.bins - 1) // tried  # one threshold per stretch
        number = np.arange(1, count * tried + 1)[None] << 32
        span = np.tile(np.diff(edges), count).astype(np.uint64)
        offset = (_hashed(here, number) % span).astype(np.int64)
        return (
            np.repeat(feature, tried, axis=1).astype(np.int64),
            np.tile(edges[:-1], count) + offset,
        )


def _hashed(state: Array, value: Array) -> NDArray[np.uint64]:
    """Return 64 well-mixed bits of two numbers (the finaliser of SplitMix64)."""
    mixed = np.asarray(state).astype(np.uint64)
    mixed = mixed + (np.asarray(value).astype(np.uint64) + np.uint64(1)) * np.uint64(
        0x9E3779B97F4A7C15
    )
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(mixed ^ (mixed >> np.uint64(31)))


def level(path: Array) -> Integers:
    """Return how many splits lie above each node."""
    return np.frexp(np.asarray(path, dtype=np.float64))[1].astype(np.int64) - 1


def closed_by_depth(plan: Plan, path: Array) -> NDArray[np.bool_]:
    """Return which nodes may not be split because they lie deepest."""
    return np.asarray(level(path) >= plan.depth)


def in_order(tree: Array, path: Array) -> Integers:
    """Return the positions that put nodes into their one order: by tree, then by path."""
    return np.lexsort((path, tree)).astype(np.int64)


def descend(nodes: Mapping[str, Array], bins: Integers) -> Iterator[tuple[Integers, Integers]]:
    """Yield, level by level, the node each example stands at in each tree.

    Parameters
    ----------
    nodes : mapping
        ``tree``, ``path``, ``feature``, ``threshold``, in order.
    bins : array, (n, d)
        Examples.

    Yields
    ------
    tuple
        Rows of nodes and positions of examples, ``(num_pairs,)`` each: those that reached this
        level.
    """
    tree, path, feature = nodes["tree"], nodes["path"], nodes["feature"]
    span = 2 * int(path.max(initial=0)) + 2
    key = tree.astype(np.int64) * span + path
    inner = feature >= 0
    child = np.full(len(path), -1)
    child[inner] = np.searchsorted(key, key[inner] + path[inner])  # the sibling comes next
    roots = np.flatnonzero(path == 1)
    rows = np.repeat(roots, len(bins))
    examples = np.tile(np.arange(len(bins)), len(roots))
    while len(rows):
        yield rows, examples
        goes_on = inner[rows]
        rows, examples = rows[goes_on], examples[goes_on]
        right = bins[examples, feature[rows]] > nodes["threshold"][rows]
        rows = child[rows] + right


def last_rows(nodes: Mapping[str, Array], bins: Integers) -> Integers:
    """Return the node where each example ends up in each tree, ``(num_trees, n)``."""
    count = int((nodes["path"] == 1).sum())
    last = np.zeros((count, len(bins)), dtype=np.int64)
    number = np.cumsum(nodes["path"] == 1) - 1  # row -> tree, counted from 0
    for rows, examples in descend(nodes, bins):
        last[number[rows], examples] = rows
    return last


def left_counts(
    plan: Plan,
    nodes: Mapping[str, Array],
    rows: Array,
    at: Array,
    bins: Integers,
    labels: Array,
    num_classes: int,
) -> Integers:
    """Return, per node, candidate and class, how many examples go left.

    Parameters
    ----------
    plan : Plan
        Gives the candidates.
    nodes : mapping
        ``tree`` and ``path``.
    rows : array, (m,)
        Rows of the nodes in question.
    at : array, (num_pairs,)
        For each pair of node and example: position in ``rows``.
    bins : array, (num_pairs, d)
        The pair's example.
    labels : array, (num_pairs,)
        Its class.
    num_classes : int
        C.

    Returns
    -------
    array
        ``(m, width, C)``.
    """
    shape = (len(rows), plan.width, num_classes)
    total = np.zeros(int(np.prod(shape)), dtype=np.int64)
    for chosen, cell in _cells(plan, nodes, rows, at, bins):
        label = np.broadcast_to(labels[chosen][:, None], cell.shape)
        flat = (cell * num_classes + label)[cell >= 0]
        total += np.bincount(flat, minlength=len(total))
    return total.reshape(shape)


def left_sums(
    plan: Plan, nodes: Mapping[str, Array], rows: Array, at: Array, bins: Integers, values: Integers
) -> Integers:
    """Return, per node and candidate, the sums of ``values``, ``(num_pairs, s)``, that go left.

    Returns ``(m, width, s)``. Sums must stay below 2^53.
    """
    cells, count = len(rows) * plan.width, values.shape[1]
    total = np.zeros((cells, count), dtype=np.int64)
    for chosen, cell in _cells(plan, nodes, rows, at, bins):
        left = cell >= 0
        for s in range(count):
            weight = np.broadcast_to(values[chosen, s][:, None], cell.shape)[left]
            found = np.bincount(cell[left], weights=weight, minlength=cells)
            total[:, s] += found.astype(np.int64)
    return total.reshape(len(rows), plan.width, count)


def _cells(
    plan: Plan, nodes: Mapping[str, Array], rows: Array, at: Array, bins: Integers
) -> Iterator[tuple[slice, Integers]]:
    """Yield, for stretches of pairs, node times ``width`` plus candidate where left, else -1."""
    feature, threshold = plan.candidates(nodes["tree"][rows], nodes["path"][rows])
    step = max(1, _CHUNK // plan.width)
    for begin in range(0, len(at), step):
        chosen = slice(begin, begin + step)
        here = at[chosen]
        value = np.take_along_axis(bins[chosen], feature[here], axis=1)
        cell = here[:, None] * plan.width + np.arange(plan.width)
        yield chosen, np.where(value <= threshold[here], cell, -1)


def growing(arrays: Mapping[str, Array]) -> Arrays:
    """Return the nodes of those trees that have an open one."""
    chosen = np.isin(arrays["tree"], arrays["tree"][arrays["feature"] == OPEN])
    return {name: array[chosen] for name, array in structure(arrays).items()}


def structure(arrays: Mapping[str, Array]) -> Arrays:
    """Return what a client has to know of the trees."""
    return {name: arrays[name] for name in ("tree", "path", "feature", "threshold")}

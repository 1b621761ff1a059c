"""Sums over examples at the nodes of trees and left of their candidates: what a client counts.

All statistics are whole numbers: their sums do not depend on any order. A level of all trees is
counted in one pass over the examples, column by column.

References
----------
Ke et al., "LightGBM: A Highly Efficient Gradient Boosting Decision Tree", NeurIPS 2017: histograms
instead of sorted values. Here a histogram has as many cells as a node has thresholds.

Shapes: n examples, d features, T trees, m nodes, F features tried at a node, K candidates, C
classes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from functools import lru_cache
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from unlearning.arrays import Array
from unlearning.models.trees import (
    NOWHERE,
    OPEN,
    Integers,
    Links,
    Plan,
    Tried,
    ancestors,
    keys,
    level,
    stretches,
)

__all__ = [
    "Classes",
    "Standing",
    "Sums",
    "Table",
    "Values",
    "along",
    "left_by_pair",
    "passed",
    "reaching",
    "summed",
    "walks",
]

_CHUNK = 1 << 18  # entries of one temporary array: what a processor's cache holds
_STRETCHES = 16  # that are copied one by one


class Sums(NamedTuple):
    """Sums at m nodes, ``(m, s)``, and left of each of their candidates, ``(K, s)``."""

    total: Integers
    left: Integers


class Table:
    """A client's examples as bins.

    Parameters
    ----------
    plan : Plan
        Says where bins lie and which columns are binary.
    x : array, shape (n, d)
        Examples.
    """

    def __init__(self, plan: Plan, x: Array) -> None:
        self.plan, self.bins = plan, plan.binned(x)
        self._few: dict[int, tuple[Integers, bool]] = {}
        self._columns: NDArray[np.uint8] | None = None

    @property
    def columns(self) -> NDArray[np.uint8]:
        """The bins column by column, shape (d, n)."""
        if self._columns is None:
            self._columns = np.ascontiguousarray(self.bins.T)
        return self._columns

    def __len__(self) -> int:
        return len(self.bins)

    def taken(self, rows: Integers) -> Table:
        """Return the table of some of the examples, in ascending order, a copy."""
        found = Table.__new__(Table)
        found.plan, found.bins, found._few = self.plan, self.bins[rows], {}
        found._columns = None if self._columns is None else _columns_of(self._columns, rows)
        return found

    def few(self, column: int) -> tuple[Integers, bool]:
        """Return the examples on the rarer side of a binary column, and whether it is the lower."""
        if column not in self._few:
            above = self.bins[:, column] > self.plan.middle
            rows = np.flatnonzero(above)
            low = 2 * len(rows) > len(self)
            self._few[column] = (np.flatnonzero(~above) if low else rows), low
        return self._few[column]


def _columns_of(columns: NDArray[np.uint8], rows: Integers) -> NDArray[np.uint8] | None:
    """Return some columns, copied as stretches; None: there are too many to gain anything."""
    breaks = np.flatnonzero(np.diff(rows) != 1) + 1
    if len(breaks) > _STRETCHES or not len(rows):
        return None
    begins, ends = rows[np.append(0, breaks)], rows[np.append(breaks - 1, len(rows) - 1)] + 1
    pieces = [columns[:, a:b] for a, b in zip(begins.tolist(), ends.tolist(), strict=True)]
    return np.concatenate(pieces, axis=1)


class What(Protocol):
    """What is summed over pairs of example and tree; ``at`` is the node of each pair, (n, T)."""

    size: int

    def of_rows(self, at: Integers, rows: Integers | None, num_nodes: int) -> Integers:
        """Return the sums over some examples (None: all) by node, ``(num_nodes, size)``."""

    def of_pairs(self, cells: Integers, pairs: Integers, num_cells: int) -> Integers:
        """Return the sums over pairs, example times T plus tree, by cell."""


class Classes:
    """How many examples of each class; ``labels`` has shape (n,)."""

    def __init__(self, labels: Array, num_classes: int, num_trees: int) -> None:
        self.labels, self.size, self._num_trees = np.asarray(labels), num_classes, num_trees
        self._cells: tuple[Integers, Integers] | None = None

    def of_rows(self, at: Integers, rows: Integers | None, num_nodes: int) -> Integers:
        """Return counts by node, ``(num_nodes, C)``."""
        if self._cells is None or self._cells[0] is not at:
            self._cells = at, at * self.size + self.labels[:, None]
        cells = self._cells[1] if rows is None else self._cells[1].take(rows, axis=0)
        found = np.bincount(cells.ravel(), minlength=num_nodes * self.size)
        return found.reshape(num_nodes, self.size)

    def of_pairs(self, cells: Integers, pairs: Integers, num_cells: int) -> Integers:
        """Return counts by cell, ``(num_cells, C)``."""
        label = self.labels.take(pairs // self._num_trees)
        found = np.bincount(cells * self.size + label, minlength=num_cells * self.size)
        return found.reshape(num_cells, self.size)


class Values:
    """Sums of whole numbers below 2^53 in all; ``values`` has shape (n, T, s)."""

    def __init__(self, values: Integers) -> None:
        self.size = values.shape[2]
        self._values = [np.ascontiguousarray(values[..., s], np.float64) for s in range(self.size)]

    def of_rows(self, at: Integers, rows: Integers | None, num_nodes: int) -> Integers:
        """Return sums by node, ``(num_nodes, s)``."""
        here = (at if rows is None else at.take(rows, axis=0)).ravel()
        return self._summed(
            here,
            [(v if rows is None else v.take(rows, axis=0)).ravel() for v in self._values],
            num_nodes,
        )

    def of_pairs(self, cells: Integers, pairs: Integers, num_cells: int) -> Integers:
        """Return sums by cell, ``(num_cells, s)``."""
        return self._summed(cells, [v.take(pairs) for v in self._values], num_cells)

    def _summed(self, cells: Integers, weights: list[Array], size: int) -> Integers:
        found = [np.bincount(cells, weights=weight, minlength=size) for weight in weights]
        return np.stack(found, axis=1).astype(np.int64)


def summed(table: Table, tried: Tried, at: Integers, what: What) -> Sums:
    """Return sums at m nodes and left of their candidates.

    Parameters
    ----------
    table : Table
        The examples.
    tried : Tried
        The candidates of the nodes.
    at : array, shape (n, T)
        Which of the nodes each example stands at in each tree; m: at none.
    what : What
        What is summed.
    """
    num_nodes = len(tried.features)
    total = what.of_rows(at, None, num_nodes + 1)[:num_nodes]
    left = np.zeros((len(tried.threshold), what.size), dtype=np.int64)
    if not len(table) or not num_nodes:
        return Sums(total, left)
    is_binary = table.plan.is_binary[tried.features].ravel()
    if is_binary.any():
        _binary(table, tried, at, what, total, left, np.flatnonzero(is_binary))
    if not is_binary.all():
        _histograms(table, tried, at, what, left, np.flatnonzero(~is_binary))
    return Sums(total, left)


def _binary(
    table: Table,
    tried: Tried,
    at: Integers,
    what: What,
    total: Integers,
    left: Integers,
    slots: Integers,
) -> None:
    """Fill in the left sums of binary features: one sum over the rarer side of each column."""
    size = tried.features.shape[1]
    column = tried.features.ravel()[slots]
    order = np.argsort(column, kind="stable")
    slots, column = slots[order], column[order]
    begins = np.flatnonzero(np.diff(column, prepend=-1))
    for begin, end in zip(begins.tolist(), [*begins[1:].tolist(), len(column)], strict=True):
        mine = slots[begin:end]
        rows, low = table.few(int(column[begin]))
        nodes = mine // size
        found = total[nodes] if not low else np.zeros((len(mine), what.size), np.int64)
        if len(rows):
            found = found - what.of_rows(at, rows, len(total) + 1)[nodes] * (-1 if low else 1)
        left[tried.start[mine]] = found


def _histograms(
    table: Table, tried: Tried, at: Integers, what: What, left: Integers, slots: Integers
) -> None:
    """Fill in the left sums of other features: a histogram between the thresholds of each."""
    plan, (num_nodes, size) = table.plan, tried.features.shape
    num, width = plan.num_thresholds, plan.inputs
    place = tried.start[slots][:, None] + np.arange(num)
    threshold = np.full((len(slots), num + 1), 255, dtype=np.uint8)
    threshold[:, :num] = tried.threshold[place]
    feature = tried.features.ravel()[slots]
    per_node = np.bincount(slots // size, minlength=num_nodes + 1)
    first = np.cumsum(per_node) - per_node
    cells = len(slots) * (num + 1)
    histogram = np.zeros((cells, what.size), dtype=np.int64)
    values, flat_threshold, trees = table.bins.ravel(), threshold.ravel(), at.shape[1]
    for pairs, slot in _slots(at.ravel(), per_node, first, max(_CHUNK, cells * what.size)):
        value = values.take(pairs // trees * width + feature.take(slot))
        cell = plan.stretch.take(value) + slot * (num + 1)
        cell += value > flat_threshold.take(cell)
        histogram += what.of_pairs(cell, pairs, cells)
    sums = histogram.reshape(len(slots), num + 1, what.size)
    left[place] = np.cumsum(sums[:, :num], axis=1)


def _slots(
    at: Integers, per_node: Integers, first: Integers, step: int
) -> Iterator[tuple[Integers, Integers]]:
    """Yield pairs of example and tree with, in turn, each of the features at the pair's node."""
    for begin in range(0, len(at), step):
        here = at[begin : begin + step]
        many = per_node.take(here)
        chosen = np.flatnonzero(many)
        turn = 0
        while len(chosen):
            yield chosen + begin, first.take(here.take(chosen)) + turn
            turn += 1
            chosen = chosen[many.take(chosen) > turn]


class Standing:
    """Where the examples of a table stand in trees, followed as the trees grow.

    Parameters
    ----------
    table : Table
        The examples.
    """

    def __init__(self, table: Table) -> None:
        self.table = table
        self._links: Links | None = None
        self._at: Integers = np.zeros((len(table), 0), dtype=np.int64)
        self._is_blind = np.zeros(0, dtype=bool)  # nodes below which examples were lost sight of

    def at(self, nodes: Mapping[str, Array]) -> Integers:
        """Return the node where each example ends up in each tree, ``(n, T)``.

        The walk goes on from where the last one ended if the splits above are still the same.
        ``len(nodes["tree"])``: below a node that is no longer split, or is sent as a leaf since
        nothing below it is open.
        """
        links, is_open = Links.of(nodes), np.append(nodes["feature"] == OPEN, False)
        begin = self._carried(links, is_open)
        if begin is None:
            begin = np.tile(links.roots, (len(self.table), 1))
            self._is_blind = np.zeros(len(links.keys), dtype=bool)
        self._links, self._at = links, links.walked(begin, self.table.bins)
        return self._at

    def _carried(self, links: Links, is_open: NDArray[np.bool_]) -> Integers | None:
        """Return where the examples stand among other nodes; None where that cannot be told."""
        old = self._links
        if old is None:
            return None
        there = np.searchsorted(old.keys, links.keys)
        known = old.keys.take(there) == links.keys
        split = known & old.is_inner.take(there)
        differs = (links.feature != old.feature[there]) | (links.threshold != old.threshold[there])
        matters = links.is_inner | is_open
        blind = known & self._is_blind.take(there)
        if (matters & (blind | (split & (is_open | differs)))).any():
            return None
        roots, wanted = old.keys[old.roots], links.keys[links.roots]
        column = np.searchsorted(roots, wanted)
        if not len(roots) or (roots.take(column, mode="clip") != wanted).any():
            return None
        row = np.searchsorted(links.keys, old.keys)
        row[links.keys.take(row) != old.keys] = len(links.keys) - 1
        self._is_blind = blind | (split & ~matters)
        return row.take(self._at[:, column])


def passed(links: Links, table: Table, levels: Collection[int] | None = None) -> Integers:
    """Return the nodes that examples pass, ``(n, T times levels)``, level by level.

    ``levels``: those that are wanted, counted from the roots; None: all. Where an example has come
    to an end above, the last number of ``links`` stands, which is no node.
    """
    base = np.arange(len(table))[:, None] * table.plan.inputs
    here = np.tile(links.roots, (len(table), 1))
    found: list[Integers] = []
    depth = 0
    while levels is None or depth <= max(levels, default=-1):
        if levels is None or depth in levels:
            found.append(here)
        goes_on = links.is_inner.take(here)
        if levels is None and not goes_on.any():
            break
        value = table.bins.ravel().take(links.feature.take(here) + base)
        below = links.child.take(here) + (value > links.threshold.take(here))
        here, depth = np.where(goes_on, below, len(links.keys) - 1), depth + 1
    return np.concatenate([here[:, :0], *found], axis=1)


def reaching(plan: Plan, nodes: Mapping[str, Array], x: Array) -> tuple[Integers, Integers]:
    """Return the examples that stand at an open node of any tree, and where, ``(n', T)``.

    For few trees: values are looked at along the ways to open nodes only. ``len(nodes["tree"])``:
    at no open node.
    """
    links = Links.of(nodes)
    is_open = np.append(nodes["feature"] == OPEN, False)
    leads = np.append(ancestors(nodes, np.flatnonzero(is_open)), False)
    found: list[tuple[Integers, Integers, int]] = []
    for tree, root in enumerate(links.roots):
        examples = np.arange(len(x)) if leads[root] else np.zeros(0, dtype=np.int64)
        here = np.full(len(examples), root)
        while len(examples):
            arrived = is_open[here]
            if arrived.any():
                found.append((examples[arrived], here[arrived], tree))
                examples, here = examples[~arrived], here[~arrived]
            value = plan.binned(x[examples, links.feature[here]])
            here = links.child[here] + (value > links.threshold[here])
            goes_on = leads[here]
            examples, here = examples[goes_on], here[goes_on]
    rows = np.unique(np.concatenate([np.zeros(0, np.int64), *(part[0] for part in found)]))
    at = np.full((len(rows), len(links.roots)), len(links.keys) - 1)
    for examples, here, tree in found:
        at[np.searchsorted(rows, examples), tree] = here
    return rows, at


def along(table: Table, path: Array, ways: Array) -> tuple[Integers, Integers]:
    """Return the pairs of open node and example that reaches it: nodes, ascending, and examples.

    Parameters
    ----------
    table : Table
        The examples.
    path : array, shape (m,)
        Of the nodes.
    ways : array, shape (m, L, 2)
        As :func:`unlearning.models.trees.ways` gives them.
    """
    num_nodes, length, _ = ways.shape
    paths, splits = np.asarray(path, np.int64), np.asarray(ways, np.int32)
    turns = _turns(paths.tobytes(), splits.tobytes(), length)
    pairs: list[tuple[Integers, Integers]] = [(np.zeros(0, np.int64), np.zeros(0, np.int64))]
    step = max(1, _CHUNK // max(1, length * len(table)))
    for begin in range(0, num_nodes if len(table) else 0, step):
        some = slice(begin, begin + step)
        beyond = table.columns[turns.feature[some]] > turns.threshold[some]
        inside = np.logical_and.reduce(beyond == turns.right[some], axis=1)
        node, example = np.divmod(np.flatnonzero(inside), len(table))
        pairs.append((node + begin, example))
    return np.concatenate([one for one, _ in pairs]), np.concatenate([one for _, one in pairs])


class _Turns(NamedTuple):
    """The splits above m nodes, ``(m, L)``, and, ``(m, L, 1)``, which side of each leads there."""

    feature: Integers
    threshold: NDArray[np.uint8]
    right: NDArray[np.bool_]


@lru_cache(maxsize=4)  # all clients of one process are sent the same
def _turns(paths: bytes, splits: bytes, length: int) -> _Turns:
    path = np.frombuffer(paths, np.int64)[:, None]
    feature, threshold = np.moveaxis(np.frombuffer(splits, np.int32).reshape(-1, length, 2), 2, 0)
    after = level(path) - 1 - np.arange(length)  # splits that follow on the way
    is_there = (after >= 0) & (feature != NOWHERE)
    right = is_there & (path >> np.maximum(after, 0) & 1 == 1)
    found = _Turns(
        np.where(is_there, feature, 0).astype(np.int64),
        np.where(is_there, threshold, 255).astype(np.uint8)[..., None],  # nobody is beyond it
        right[..., None],
    )
    for array in found:
        array.flags.writeable = False
    return found


def left_by_pair(
    table: Table, tried: Tried, node: Integers, example: Integers, labels: Array, num_classes: int
) -> Integers:
    """Return the class counts left of the candidates of m nodes, shape (K, C), for few pairs.

    Parameters
    ----------
    table : Table
        The examples.
    tried : Tried
        The candidates of the nodes.
    node, example : array, shape (p,)
        Which examples stand at which nodes.
    labels : array, shape (n,)
        The classes of the examples.
    num_classes : int
        C.
    """
    num_nodes, num = len(tried.features), len(tried.threshold)
    cells = (num + tried.features.size) * num_classes
    if len(node) * num > num_nodes * cells:
        return _by_value(table, tried, node, example, labels, num_classes)
    return _by_candidate(table, tried, node, example, labels, num_classes)


def _by_value(
    table: Table, tried: Tried, node: Integers, example: Integers, labels: Array, num_classes: int
) -> Integers:
    """Count between the thresholds of each feature, where many examples stand at a node."""
    steps, size = tried.steps, tried.features.shape[1]
    flat, width, stretch = table.bins.ravel(), table.plan.inputs, table.plan.stretch
    found = np.zeros(len(steps.threshold) * num_classes, dtype=np.int64)
    step = max(1, _CHUNK // size)
    for begin in range(0, len(node), step):
        here, who = node[begin : begin + step], example[begin : begin + step]
        slot = (here * size)[:, None] + np.arange(size)
        value = flat.take(tried.features.take(here, axis=0) + (who * width)[:, None])
        cell = stretch.take(value)
        if steps.is_one is not None:
            cell[steps.is_one.take(slot)] = 0
        cell += steps.begin.take(slot)
        cell += value > steps.threshold.take(cell)
        cell *= num_classes
        cell += labels.take(who)[:, None]
        found += np.bincount(cell.ravel(), minlength=len(found))
    below = np.zeros((len(steps.threshold) + 1, num_classes), dtype=np.int64)
    np.cumsum(found.reshape(-1, num_classes), axis=0, out=below[1:])
    end = np.arange(len(steps.slot)) + steps.slot + 1  # of the cell below each threshold
    return below.take(end, axis=0) - below.take(steps.begin.take(steps.slot), axis=0)


def _by_candidate(
    table: Table, tried: Tried, node: Integers, example: Integers, labels: Array, num_classes: int
) -> Integers:
    """Hold each example against each candidate of its node, where few stand at a node."""
    num = len(tried.threshold)
    found = np.zeros(num * num_classes, dtype=np.int64)
    sizes, feature = np.diff(tried.begins), tried.feature
    flat, width = table.bins.ravel(), table.plan.inputs
    step = max(1, _CHUNK // max(1, int(sizes.max(initial=1))))
    for begin in range(0, len(node), step):
        here, who = node[begin : begin + step], example[begin : begin + step]
        size = sizes[here]
        candidate = stretches(tried.begins[here], size)
        value = flat.take(np.repeat(who * width, size) + feature.take(candidate))
        goes = value <= tried.threshold.take(candidate)
        cell = candidate * num_classes + np.repeat(labels[who], size)
        found += np.bincount(cell[goes], minlength=len(found))
    return found.reshape(num, num_classes)


def walks(nodes: Mapping[str, Array], table: Table) -> Integers:
    """Return the nodes that few examples pass, ``(n, T times levels)``, as :func:`passed` does.

    Only the nodes on their ways are looked at, wherever the others lie.
    """
    key = keys(nodes["tree"], nodes["path"])
    here = np.tile(np.flatnonzero(nodes["path"] == 1), (len(table), 1))
    found = [here]
    who, where = np.nonzero(nodes["feature"][here] >= 0)
    while len(who):
        at = here[who, where]
        value = table.bins[who, nodes["feature"][at]]
        below = key[at] + nodes["path"][at] + (value > nodes["threshold"][at])
        at = np.searchsorted(key, below)
        here = np.full(here.shape, len(key))  # which is no node
        here[who, where] = at
        found.append(here)
        goes_on = nodes["feature"][at] >= 0
        who, where = who[goes_on], where[goes_on]
    return np.concatenate(found, axis=1)

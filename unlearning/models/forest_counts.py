"""What a client counts for a forest: classes at open nodes, classes along forgotten examples' ways.

References
----------
Brophy, Lowd, "Machine Unlearning for Random Forests", ICML 2021 (arXiv 2009.05567).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from unlearning.arrays import Array
from unlearning.models.tree_sums import (
    Classes,
    Standing,
    Table,
    along,
    left_by_pair,
    passed,
    reaching,
    summed,
    walks,
)
from unlearning.models.trees import OPEN, Links, Plan
from unlearning.protocol import Settings

__all__ = [
    "Counts",
    "counts_along",
    "counts_of_change",
    "counts_of_forgotten",
    "counts_of_open",
    "is_sparse",
]

Integers = NDArray[np.int64]

_FEW = 50_000  # steps down a tree that are taken one by one without a look at the other nodes
_DEAR = 11  # columns that are binned in the time in which one tree is walked value by value


class Counts(NamedTuple):
    """Class counts of some examples at the nodes they pass."""

    rows: Integers
    total: Integers
    left: Integers


def is_sparse(plan: Plan, nodes: Mapping[str, Array]) -> bool:
    """Return whether so few trees have open nodes that not all examples need be binned."""
    return _DEAR * int((nodes["path"] == 1).sum()) < plan.inputs


def counts_of_open(
    settings: Settings,
    nodes: Mapping[str, Array],
    x: Array,
    labels: Array,
    standing: Standing | None = None,
) -> Counts:
    """Return the counts at every open node: rows, ``(m, C)`` and ``(m, width, C)``.

    Parameters
    ----------
    settings : mapping
        Those of the forest.
    nodes : mapping
        ``tree``, ``path``, ``feature``, ``threshold``, in order: open nodes and the ways to them.
    x : array, (n, d)
        Examples.
    labels : array, (n,)
        Their classes.
    standing : Standing or None
        Where the same examples stood in the last round, to go on from there.
    """
    plan, num_classes = Plan.of(settings), int(settings["num_classes"])
    rows = np.flatnonzero(nodes["feature"] == OPEN)
    number = np.full(len(nodes["feature"]) + 1, len(rows))
    number[rows] = np.arange(len(rows))
    if standing is None and is_sparse(plan, nodes):
        some, at = reaching(plan, nodes, x)
        table, labels = Table(plan, x[some]), labels[some]
    else:
        standing = standing or Standing(Table(plan, x))
        table, at = standing.table, standing.at(nodes)
    tried = plan.tried(nodes["tree"][rows], nodes["path"][rows])
    what = Classes(labels, num_classes, at.shape[1])
    found = summed(table, tried, number.take(at), what)
    return Counts(rows, found.total, plan.shaped(found.left))


def counts_of_forgotten(
    settings: Settings, nodes: Mapping[str, Array], x: Array, labels: Array
) -> Counts:
    """Return the counts at every node that an example passes.

    ``rows`` and ``total`` name all these nodes, ``left`` the inner ones among them, in order.
    """
    plan, num_classes = Plan.of(settings), int(settings["num_classes"])
    table, num_nodes = Table(plan, x), len(nodes["tree"])
    is_few = len(x) * plan.depth * int((nodes["path"] == 1).sum()) < _FEW
    at = walks(nodes, table) if is_few else passed(Links.of(nodes), table)
    rows = np.unique(at)
    rows = rows[rows < num_nodes]
    number = np.full(num_nodes + 1, len(rows))
    number[rows] = np.arange(len(rows))
    what = Classes(labels, num_classes, at.shape[1])
    total = what.of_rows(number.take(at), None, len(rows) + 1)[:-1]
    inner = rows[nodes["feature"][rows] >= 0]
    number = np.full(num_nodes + 1, len(inner))
    number[inner] = np.arange(len(inner))
    tried = plan.tried(nodes["tree"][inner], nodes["path"][inner])
    here = number.take(at)
    if is_few:
        example, place = np.nonzero(here < len(inner))
        left = left_by_pair(table, tried, here[example, place], example, labels, num_classes)
    else:
        left = summed(table, tried, here, what).left
    return Counts(rows, total, plan.shaped(left))


def counts_along(
    settings: Settings, opened: Mapping[str, Array], table: Table, labels: Array
) -> Counts:
    """Return the counts at few open nodes: their numbers, ``(m, C)`` and ``(m, width, C)``.

    Parameters
    ----------
    settings : mapping
        Those of the forest.
    opened : mapping
        ``tree`` and ``path`` of the nodes, in order, and ``ways``, the splits above each.
    table : Table
        Examples.
    labels : array, (n,)
        Their classes.
    """
    plan, num_classes = Plan.of(settings), int(settings["num_classes"])
    tried = plan.tried(opened["tree"], opened["path"])
    node, example = along(table, opened["path"], opened["ways"])
    size = len(opened["tree"])
    cells = node * num_classes + labels[example]
    total = np.bincount(cells, minlength=size * num_classes).reshape(size, num_classes)
    left = left_by_pair(table, tried, node, example, labels, num_classes)
    return Counts(np.arange(size), total, plan.shaped(left))


def counts_of_change(
    settings: Settings, nodes: Mapping[str, Array], before: Array, after: Array, labels: Array
) -> Counts:
    """Return by how much the counts at every node fall where rows are replaced; it may be below 0.

    Parameters
    ----------
    settings : mapping
        Those of the forest.
    nodes : mapping
        A complete forest.
    before, after : array, (n, d)
        The rows that go and those that come, in the same order.
    labels : array, (n,)
        Their classes, which stay.
    """
    plan, num_classes = Plan.of(settings), int(settings["num_classes"])
    gone, come = (counts_of_forgotten(settings, nodes, x, labels) for x in (before, after))
    inner = np.asarray(nodes["feature"]) >= 0
    sizes = np.zeros(len(inner), dtype=np.int64)
    both = np.union1d(gone.rows, come.rows)
    total = np.zeros((len(both), num_classes), dtype=np.int64)
    held = both[inner[both]]
    sizes[held] = np.diff(plan.tried(nodes["tree"][held], nodes["path"][held]).begins)
    begins = np.cumsum(sizes) - sizes
    left = np.zeros((int(sizes.sum()), num_classes), dtype=np.int64)
    for found, sign in ((gone, 1), (come, -1)):
        total[np.searchsorted(both, found.rows)] += sign * found.total
        own = found.rows[inner[found.rows]]
        shift = np.cumsum(sizes[own]) - sizes[own]
        place = np.repeat(begins[own] - shift, sizes[own]) + np.arange(int(sizes[own].sum()))
        left[place] += sign * found.left.reshape(-1, num_classes)
    return Counts(both, total, plan.shaped(left))

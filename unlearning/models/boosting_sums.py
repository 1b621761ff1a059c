"""What a client sums for boosted trees: gradient, curvature and number of examples at nodes.

g and h travel as whole numbers, so that sums do not depend on any order and two federations with
the same data agree bit for bit.

References
----------
Chen, Guestrin, "XGBoost: A Scalable Tree Boosting System", KDD 2016 (arXiv 1603.02754).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from unlearning.arrays import Array, Arrays
from unlearning.models import trees
from unlearning.models.tree_sums import Sums, Table, Values, passed, summed
from unlearning.models.trees import Bins, Links, Plan
from unlearning.protocol import Settings

__all__ = [
    "NODES",
    "UNIT",
    "Scored",
    "probabilities",
    "scores_of",
    "sums_at",
    "trees_per_iteration",
]

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]

UNIT = float(1 << 24)  # g and h, at most 1 each, as whole numbers: steps of 6e-8

NODES = ("tree", "path", "feature", "threshold", "value")


class Scored:
    """Examples with what the iterations so far say of them, followed as trees are added.

    Parameters
    ----------
    plan : Plan
        Says where bins lie.
    x : array, shape (n, d)
        Examples.
    num_classes : int
        C.
    """

    def __init__(self, plan: Plan, x: Array, num_classes: int) -> None:
        self.table, self._num_classes = Table(plan, x), num_classes
        self._known: Arrays = {}
        self._scores = _zeros(len(x), num_classes)

    def scores(self, nodes: Arrays) -> Floats:
        """Return the summed leaf weights of whole trees, shape (n, C); adds new trees to old ones.

        The sums run in the order of the trees, so that equal trees give equal bits.
        """
        size = len(self._known["tree"]) if self._known else 0
        if any(not np.array_equal(nodes[name][:size], self._known[name]) for name in self._known):
            self._scores, size = _zeros(len(self.table), self._num_classes), 0
        fresh = {name: nodes[name][size:] for name in NODES}
        if len(fresh["tree"]):
            self._scores = _added(self._scores, fresh, self.table.bins)
        self._known = {name: nodes[name] for name in NODES}
        return _of_classes(self._scores)


def trees_per_iteration(num_classes: int) -> int:
    """Return one for two classes, else one per class."""
    return 1 if num_classes == 2 else num_classes


def scores_of(nodes: Mapping[str, Array], bins: Bins, num_classes: int) -> Floats:
    """Return the summed leaf weights of every class, ``(n, C)``; class 0 of two has 0."""
    return _of_classes(_added(_zeros(len(bins), num_classes), nodes, bins))


def _zeros(size: int, num_classes: int) -> Floats:
    return np.zeros((size, trees_per_iteration(num_classes)))


def _added(scores: Floats, nodes: Mapping[str, Array], bins: Bins) -> Floats:
    """Return scores with the leaf weights of further trees added in order."""
    scores, width = scores.copy(), scores.shape[1]
    roots = nodes["tree"][np.asarray(nodes["path"]) == 1]
    for tree, rows in zip(roots.tolist(), trees.last_rows(nodes, bins), strict=True):
        scores[:, tree % width] += nodes["value"][rows]
    return scores


def _of_classes(scores: Floats) -> Floats:
    return np.hstack([np.zeros_like(scores), scores]) if scores.shape[1] == 1 else scores


def probabilities(scores: Floats) -> Floats:
    """Return the softmax of every row."""
    raised = np.exp(scores - scores.max(1, keepdims=True, initial=-np.inf))
    return np.asarray(raised / raised.sum(1, keepdims=True))


def sums_at(
    settings: Settings,
    nodes: Mapping[str, Array],
    rows: Integers,
    x: Array,
    labels: Array,
    scored: Scored | None = None,
) -> Sums:
    """Return a client's sums at some nodes of one iteration, ``(m, 3)`` and ``(m, width, 3)``.

    Gradients come from the iterations before it. With ``settings["of"]`` = ``"total"`` the sums of
    candidates are left out. ``scored`` is what is known of the same examples from earlier rounds.
    """
    plan, num_classes = Plan.of(settings), int(settings["num_classes"])
    width = trees_per_iteration(num_classes)
    if not len(rows):
        return Sums(np.zeros((0, 3), np.int64), plan.shaped(np.zeros((0, 3), np.int64)))
    scored = scored or Scored(plan, x, num_classes)
    first = int(nodes["tree"][rows].min()) // width * width
    before = {name: nodes[name][nodes["tree"] < first] for name in NODES}
    values = _derivatives(scored.scores(before), labels, width)
    mine = (nodes["tree"] >= first) & (nodes["tree"] < first + width)
    here = {name: nodes[name][mine] for name in NODES}
    links = Links.of(here)
    asked = rows - int(np.argmax(mine))
    number = np.full(len(links.keys), len(rows))
    number[asked] = np.arange(len(rows))
    levels = np.unique(trees.level(here["path"][asked])).tolist()
    at = number.take(passed(links, scored.table, levels))
    mine_first = values[here["tree"][links.roots] - first].transpose(1, 0, 2)
    what = Values(np.tile(mine_first, (1, len(levels), 1)))
    if settings.get("of") == "total":
        total = what.of_rows(at, None, len(rows) + 1)[:-1]
        return Sums(total, plan.shaped(np.zeros((0, 3), dtype=np.int64)))
    found = summed(scored.table, plan.tried(nodes["tree"][rows], nodes["path"][rows]), at, what)
    return Sums(found.total, plan.shaped(found.left))


def _derivatives(scores: Floats, labels: Array, width: int) -> Integers:
    """Return (g, h, 1) of every tree and example as whole numbers, ``(width, n, 3)``."""
    p = probabilities(scores)[:, -width:].T
    classes = np.arange(width)[:, None] if width > 1 else np.ones((1, 1), dtype=np.int64)
    g, h = p - (labels == classes), p * (1 - p)
    whole = [np.rint(part * UNIT).astype(np.int64) for part in (g, h)]
    return np.stack([*whole, np.ones(g.shape, dtype=np.int64)], axis=2)

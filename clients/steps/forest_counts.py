"""Count classes at the nodes of a growing forest: the client half of the histogram forest.

References
----------
Brophy, Lowd, "Machine Unlearning for Random Forests", ICML 2021 (arXiv 2009.05567).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from clients.remembered import Attached, Remembered
from clients.steps import Local, Outcome, Shard
from unlearning.arrays import Array, Arrays
from unlearning.models.forest_counts import (
    counts_along,
    counts_of_change,
    counts_of_forgotten,
    counts_of_open,
    is_sparse,
)
from unlearning.models.tree_sums import Standing, Table
from unlearning.models.trees import Plan
from unlearning.protocol import Settings

NEEDS_MODEL = DRAWS = False

_standing: Remembered[Standing] = Remembered()  # a round walks examples one level further


class _Binned:
    """What is left of a client's examples, as bins, and their classes.

    When some of them go, what stays is copied out of what was there, which is dropped: nothing is
    binned twice, and nothing is kept of what has gone.
    """

    def __init__(self) -> None:
        self._held: tuple[NDArray[np.int64], Table, Array] | None = None

    def narrowed(self, shard: Shard) -> None:
        """Drop what is no longer part of a shard."""
        if self._held is None:
            return
        positions, table, labels = self._held
        left = _positions(shard)
        if left is positions or np.array_equal(left, positions):
            return
        rows = np.searchsorted(positions, left)
        is_part = np.array_equal(positions.take(rows, mode="clip"), left)
        self._held = (left, table.taken(rows), labels[rows]) if is_part else None

    def of(self, plan: Plan, shard: Shard) -> tuple[Table, Array]:
        """Return the examples of a shard as bins, and their classes."""
        self.narrowed(shard)
        if self._held is None:
            x, labels = shard.table()
            self._held = _positions(shard), Table(plan, x), labels
        return self._held[1:]


_binned: Attached[_Binned] = Attached()


def _of(plan: Plan, shard: Shard) -> _Binned:
    """Return what is known of the examples that a shard was chosen from."""
    return _binned.of(shard.origin[0].features, plan, _Binned)


def _positions(shard: Shard) -> NDArray[np.int64]:
    whole, chosen = shard.origin
    return np.arange(len(whole)) if chosen is None else chosen


def forest_counts(model: None, local: Local, settings: Settings, generator: None) -> Outcome:
    """Return class counts of the retained examples at open nodes, as ``total`` and ``left``.

    Settings: those of the forest; ``of`` = ``"forget"``: of the forget set, at all nodes that its
    examples pass, named by ``rows``; ``of`` = ``"ways"``: at few open nodes, sent with the ways to
    them; ``of`` = ``"change"``: by how much the retained examples, which are the forget set without
    some values, count less than these there.
    """
    arrays: Arrays
    if settings.get("of") == "forget":
        shard = local.forget
        _of(Plan.of(settings), local.retain).narrowed(local.retain)
        gone = counts_of_forgotten(settings, local.arrays, *shard.table())
        arrays = {"total": gone.total, "left": gone.left.astype(np.int32), "rows": gone.rows}
    elif settings.get("of") == "ways":
        shard = local.retain
        plan = Plan.of(settings)
        table, labels = _of(plan, shard).of(plan, shard)
        there = counts_along(settings, local.arrays, table, labels)
        arrays = {"total": there.total, "left": there.left.astype(np.int32)}
    elif settings.get("of") == "change":
        shard = local.retain
        x, labels = shard.table()
        # An owner whose values went before, by another request, has nothing that moves.
        before = local.forget.table()[0] if len(local.forget) else x
        moved = counts_of_change(settings, local.arrays, before, x, labels)
        arrays = {"total": moved.total, "left": moved.left.astype(np.int32), "rows": moved.rows}
    else:
        shard = local.retain
        x, labels = shard.table()
        plan = Plan.of(settings)
        known = None
        if not is_sparse(plan, local.arrays):
            known = _standing.of(x, repr(plan), lambda: Standing(Table(plan, x)))
        found = counts_of_open(settings, local.arrays, x, labels, known)
        arrays = {"total": found.total, "left": found.left.astype(np.int32)}
    return Outcome(num_examples=len(shard), examples_processed=len(shard), arrays=arrays)

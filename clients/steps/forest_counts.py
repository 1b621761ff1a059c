"""Count classes at the nodes of a growing forest: the client half of the histogram forest.

References
----------
Brophy, Lowd, "Machine Unlearning for Random Forests", ICML 2021 (arXiv 2009.05567).
"""

from __future__ import annotations

from functools import partial

import numpy as np

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

NEEDS_MODEL = False

_tables: Attached[tuple[Table, Array]] = Attached()
_standing: Remembered[Standing] = Remembered()  # a round walks examples one level further


def _table(settings: Settings, shard: Shard) -> tuple[Table, Array]:
    """Return the examples of a shard as bins, and their classes."""
    x, labels = shard.table()
    return Table(Plan.of(settings), x), labels


def forest_counts(
    model: None, local: Local, settings: Settings, generator: np.random.Generator
) -> Outcome:
    """Return class counts of the retained examples at open nodes, as ``total`` and ``left``.

    Settings: those of the forest; ``of`` = ``"forget"``: of the forget set, at all nodes that its
    examples pass, named by ``rows``; ``of`` = ``"ways"``: at few open nodes, sent with the ways to
    them; ``of`` = ``"change"``: by how much the retained examples, which are the forget set without
    some values, count less than these there.
    """
    arrays: Arrays
    if settings.get("of") == "forget":
        shard = local.forget
        gone = counts_of_forgotten(settings, local.arrays, *shard.table())
        arrays = {"total": gone.total, "left": gone.left.astype(np.int32), "rows": gone.rows}
    elif settings.get("of") == "ways":
        shard = local.retain
        table, labels = _tables.of(
            shard.features, Plan.of(settings), partial(_table, settings, shard)
        )
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

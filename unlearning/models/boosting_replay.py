"""Re-use of boosted trees' splits that still hold once examples are gone.

References
----------
Chen, Guestrin, "XGBoost: A Scalable Tree Boosting System", KDD 2016 (arXiv 1603.02754): gain. Wu,
Zhu, Li, He, "DeltaBoost", SIGMOD 2023: splits that outlast a deletion.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from unlearning.arrays import Array, Arrays
from unlearning.models.boosting import Boosting
from unlearning.models.tree_sums import Sums
from unlearning.models.trees import OPEN

__all__ = ["idle_splits", "replayed"]

Integers = NDArray[np.int64]


def idle_splits(
    model: Boosting, arrays: Mapping[str, Array], rows: Integers, sums: Sums
) -> tuple[int, int]:
    """Return how many splits above some leaves gain nothing any more, and how many there are.

    Parameters
    ----------
    model : Boosting
        Its gain and its fewest examples per side are asked for.
    arrays : mapping
        Nodes.
    rows : array
        All leaves of one iteration.
    sums : Sums
        At these leaves; candidates are not needed, a split's own gain follows from the leaves.
    """
    totals: defaultdict[tuple[int, int], Integers] = defaultdict(lambda: np.zeros(3, np.int64))
    pairs = zip(arrays["tree"][rows].tolist(), arrays["path"][rows].tolist(), strict=True)
    for (tree, path), total in zip(pairs, sums.total, strict=True):
        while path:
            totals[tree, path] = totals[tree, path] + total
            path //= 2
    inner = [(tree, path) for tree, path in totals if (tree, 2 * path) in totals]
    if not inner:
        return 0, 0
    whole = np.stack([totals[node] for node in inner])
    left = np.stack([totals[tree, 2 * path] for tree, path in inner])
    gain = model.gains(Sums(whole, left[:, None]))
    return int((gain <= 0).sum()), len(inner)


def replayed(
    model: Boosting,
    arrays: Arrays,
    old: Mapping[str, Array],
    rows: Integers,
    sums: Sums,
    tolerance: float = 0.0,
) -> Arrays:
    """Return ``arrays`` with one iteration of an earlier state, as far as its splits still hold.

    Parameters
    ----------
    model : Boosting
        How trees grow.
    arrays : Arrays
        State whose open nodes are the roots of the iteration.
    old : mapping
        Nodes of the earlier state, that iteration and those before it in ``arrays`` alone.
    rows : array
        The iteration's nodes in ``old`` that are not deepest, in order.
    sums : Sums
        At these nodes, with gradients of ``arrays``.
    tolerance : float, default 0
        Which splits hold: see :meth:`Boosting.kept`. 0: those that are the best, as if the
        iteration had been grown anew.

    Returns
    -------
    Arrays
        Nodes down to the first splits that differ; their children, and those of nodes that were
        leaves and are none now, are open.
    """
    pairs = zip(old["tree"][rows].tolist(), old["path"][rows].tolist(), strict=True)
    known = {pair: at for at, pair in enumerate(pairs)}
    chosen = model.kept(old, rows, sums, tolerance)
    holds = np.ones(len(rows), dtype=bool)
    holds[model.changed(old, rows, chosen)] = False
    state = arrays
    usable = np.ones(len(rows), dtype=bool)
    while len(opened := np.flatnonzero(state["feature"] == OPEN)):
        address = zip(state["tree"][opened].tolist(), state["path"][opened].tolist(), strict=True)
        index = np.array([known.get(pair, -1) for pair in address])
        there = index >= 0
        there[there] = usable[index[there]]
        if not there.any():
            break
        index = index[there]
        part = Sums(sums.total[index], sums.left[index])
        before = state
        state = model.decided(before, opened[there], part, chosen[index])
        if int(state["tree"].max()) > int(before["tree"].max()):
            break
        _stop_below(known, usable, old, rows, index[~holds[index] & (chosen[index] >= 0)])
    return state


def _stop_below(
    known: Mapping[tuple[int, int], int],
    usable: NDArray[np.bool_],
    old: Mapping[str, Array],
    rows: Integers,
    changed: Integers,
) -> None:
    """Mark in ``usable`` the old nodes right below changed splits: others stand there now."""
    for at in changed:
        tree, path = int(old["tree"][rows[at]]), int(old["path"][rows[at]])
        for child in (2 * path, 2 * path + 1):
            if (tree, child) in known:
                usable[known[tree, child]] = False

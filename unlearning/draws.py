"""Draws that ignore whoever is not there: every candidate has a key, the smallest keys are drawn.

Of the candidates that are left, the draw is uniform without replacement; and to take one out
changes nothing where it was not drawn. So a run without somebody is, round by round, the run with
somebody up to the first draw of it.

References
----------
Tao, Wang, Pan, Yu, Cheng, Wang, "Communication Efficient and Provable Federated Unlearning", VLDB
2024 (arXiv 2401.11018), for stable sampling; the keys are this project's.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from unlearning.arrays import Array

__all__ = ["batch", "first_drawn", "smallest_keys"]

_BATCH = 8  # last component of the seed address of a batch


def smallest_keys(keys: Array, ids: Array, size: int) -> Array:
    """Return the ``size`` ids with the smallest keys, ascending; all if there are no more.

    Parameters
    ----------
    keys : array
        Key of every id, by id.
    ids : array of int
        Candidates.
    size : int
        How many.

    Examples
    --------
    >>> keys = np.array([0.9, 0.1, 0.5, 0.3])
    >>> smallest_keys(keys, np.array([0, 1, 2, 3]), 2).tolist()
    [1, 3]
    >>> smallest_keys(keys, np.array([0, 1, 2]), 2).tolist()  # 3 is gone, 1 stays
    [1, 2]
    """
    order = np.argsort(keys[ids], kind="stable")[:size]
    return np.sort(ids[order])


def batch(
    seed: int, client: int, server_round: int, step: int, ids: NDArray[np.int64], size: int
) -> Array:
    """Return the examples of one local step, by their ids, which are never renumbered."""
    if not len(ids):
        return ids
    address = [seed, client, server_round, step, _BATCH]
    keys = np.random.default_rng(address).random(int(ids.max()) + 1)
    return smallest_keys(keys, ids, size)


def first_drawn(
    seed: int,
    client: int,
    rounds: Collection[int],
    steps: int,
    ids: NDArray[np.int64],
    targets: Collection[int],
    size: int,
) -> int:
    """Return the first of ``rounds`` in which a client drew one of its targets; 0: it never did.

    Parameters
    ----------
    seed, client : int
        Address of the draws.
    rounds : collection of int
        Those in which the client was drawn, ascending.
    steps : int
        Local steps per round.
    ids : array of int
        What the client held in these rounds, targets included.
    targets : collection of int
        What is looked for.
    size : int
        Examples per step.
    """
    for t in rounds:
        for step in range(steps):
            if not set(targets).isdisjoint(batch(seed, client, t, step, ids, size).tolist()):
                return t
    return 0

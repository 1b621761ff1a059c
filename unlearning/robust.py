"""Combining updates of which some are hostile: coordinate-wise median, trimmed mean, norm bound.

References
----------
Yin, Chen, Ramchandran, Bartlett, "Byzantine-Robust Distributed Learning: Towards Optimal
Statistical Rates", ICML 2018 (arXiv 1803.01498): median and trimmed mean.
Sun, Kairouz, Suresh, McMahan, "Can You Really Backdoor Federated Learning?", 2019 (arXiv
1911.07963): the norm bound.
Wang, Liu, Wang, Zhang, "Poisoning Attacks and Defenses to Federated Unlearning", 2025 (arXiv
2501.17396): why the rounds of unlearning and of recovery need them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from unlearning import arrays as named
from unlearning.arrays import Arrays

__all__ = ["bound_norm", "median", "trimmed_mean"]


def median(updates: Sequence[Arrays]) -> Arrays:
    """Return the coordinate-wise median of updates, each client one voice.

    Parameters
    ----------
    updates : sequence of Arrays
        One per client, equal names and shapes.

    Returns
    -------
    Arrays
        Dtypes of the first; integer buffers are those of the last.

    Raises
    ------
    ValueError
        If there is no update.

    Notes
    -----
    Fewer than half of the clients cannot move it beyond what the others span. Sample counts do not
    weigh: a client could claim any.
    """
    return trimmed_mean(updates, 0.5)


def trimmed_mean(updates: Sequence[Arrays], trim: float) -> Arrays:
    """Return the coordinate-wise mean without the largest and the smallest values.

    Parameters
    ----------
    updates : sequence of Arrays
        One per client, equal names and shapes.
    trim : float
        Share of the values left out on each side, [0, 0.5], rounded up to whole clients; at least
        one value (two, where their number is even) stays.

    Returns
    -------
    Arrays
        Dtypes of the first; integer buffers are those of the last.

    Raises
    ------
    ValueError
        If there is no update.
    """
    if not updates:
        raise ValueError("no updates to combine")
    count = len(updates)
    cut = min(int(np.ceil(trim * count)), (count - 1) // 2)
    combined: Arrays = {}
    for name, first in updates[0].items():
        if not np.issubdtype(first.dtype, np.floating):
            combined[name] = updates[-1][name]
            continue
        values = np.sort(np.stack([update[name].astype(np.float64) for update in updates]), axis=0)
        combined[name] = values[cut : count - cut].mean(axis=0).astype(first.dtype)
    return combined


def bound_norm(update: Arrays, limit: float) -> Arrays:
    """Return an update, scaled down to an L2 norm of ``limit`` over its parameters if it is longer.

    Notes
    -----
    Buffers are left as they are: statistics have no length that a history could bound.
    """
    length = named.norm(update)
    return update if length <= limit else named.scale(update, limit / length)

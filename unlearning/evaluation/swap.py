"""Unlearning quality as a game with swapped roles (M13).

References
----------
Y. Tu, P. Hu, J. Ma: A Reliable Cryptographic Framework for Empirical Machine Unlearning
Evaluation. NeurIPS 2025. arXiv:2404.11577. (The SWAP test.)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from unlearning.evaluation.entry import Metric

__all__ = ["METRICS", "Roles", "swap_advantage", "swap_quality"]

METRICS = (
    Metric(
        "M13",
        "swap-quality",
        "Unlearning quality Q of the swap game",
        "score",
        "1 for exact retraining, by construction",
        "lower",
        "Tu et al. 2025, arXiv:2404.11577",
    ),
)


@dataclass(frozen=True)
class Roles:
    """What one attacker decided in one run of the game.

    Parameters
    ----------
    forget, unseen : array_like of shape (n,)
        1 where it called an example "trained on and unlearned", 0 where "never trained on", for
        the examples that were forgotten in this run and for those that were never in it.
    """

    forget: ArrayLike
    unseen: ArrayLike


def _excess(roles: Roles) -> float:
    """Return how much more often forgotten examples are called so than unseen ones."""
    forget, unseen = (np.asarray(v, dtype=np.float64) for v in (roles.forget, roles.unseen))
    for values in (forget, unseen):
        if not values.size or not ((values >= 0) & (values <= 1)).all():
            raise ValueError("expected one or more decisions between 0 and 1")
    return float(forget.mean() - unseen.mean())


def swap_advantage(run: Roles, swapped: Roles) -> float:
    """Return one attacker's advantage over a pair of runs with the two halves' roles swapped.

    ``|excess + excess'| / 2``. What sets the halves apart by themselves has opposite signs in the
    two runs and cancels: an attacker that knows the data but not the model wins nothing.

    Parameters
    ----------
    run, swapped : Roles
        The half forgotten in one run is the unseen one in the other.

    Raises
    ------
    ValueError
        If a side is empty or a decision is not within 0 to 1.
    """
    return abs(_excess(run) + _excess(swapped)) / 2


def swap_quality(attackers: Mapping[str, tuple[Roles, Roles]]) -> float:
    """Return ``Q = 1 - largest advantage`` over the attackers (M13).

    Q holds against these attackers only: name them beside it.

    Parameters
    ----------
    attackers : mapping of str to pair of Roles
        Decisions of each attacker in both runs.

    Returns
    -------
    float
        0 to 1.

    Raises
    ------
    ValueError
        If there is no attacker, or as :func:`swap_advantage`.
    """
    if not attackers:
        raise ValueError("no attacker; the quality holds only against those tried")
    return 1 - max(swap_advantage(*runs) for runs in attackers.values())

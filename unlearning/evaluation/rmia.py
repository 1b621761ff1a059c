"""Robust membership inference with a handful of reference models (RMIA, M8).

References
----------
S. Zarifzadeh, P. Liu, R. Shokri: Low-Cost High-Power Membership Inference Attacks. ICML 2024.
arXiv:2312.03262.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unlearning.evaluation.entry import Metric
from unlearning.evaluation.ranks import auc
from unlearning.evaluation.signals import FLOOR

__all__ = ["METRICS", "SCALINGS", "best_scaling", "likelihood_ratios", "rmia_auc", "rmia_scores"]

SCALINGS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)

METRICS = (
    Metric(
        "M8",
        "rmia-auc",
        "RMIA AUC, forget set against held-out set",
        "AUC",
        "the retrained model's",
        "higher",
        "Zarifzadeh et al. 2024, arXiv:2312.03262",
    ),
)


def likelihood_ratios(
    probabilities: ArrayLike, reference: ArrayLike, scaling: float
) -> NDArray[np.float64]:
    """Return ``p(x) / pbar(x)`` with ``pbar = ((1 + a) p_out + (1 - a)) / 2``.

    Reference models that never saw x give ``p_out``; the mean over models with and without x is
    approximated by a line, a = 1 taking ``p_out`` as it is (Zarifzadeh et al. 2024, offline).

    Parameters
    ----------
    probabilities : array_like of shape (n,)
        Probability of the true label under the attacked model.
    reference : array_like of shape (M, n)
        The same under M reference models, one or more.
    scaling : float
        a, 0 to 1.

    Raises
    ------
    ValueError
        If shapes disagree, a value is no probability or ``scaling`` is not within 0 to 1.
    """
    ours, others = (np.asarray(v, dtype=np.float64) for v in (probabilities, reference))
    if ours.ndim != 1 or not ours.size or others.ndim != 2 or others.shape[1:] != ours.shape:
        raise ValueError(f"probabilities {ours.shape}, reference {others.shape}; need (n,), (M, n)")
    for values in (ours, others):
        if not values.size or not ((values >= 0) & (values <= 1)).all():
            raise ValueError("expected probabilities between 0 and 1")
    if not 0 <= scaling <= 1:
        raise ValueError(f"scaling {scaling}; need 0 to 1")
    average = ((1 + scaling) * others.mean(axis=0) + (1 - scaling)) / 2
    return np.asarray(ours / np.maximum(average, FLOOR), dtype=np.float64)


def rmia_scores(
    ratios: ArrayLike, population_ratios: ArrayLike, gamma: float = 1.0
) -> NDArray[np.float64]:
    """Return the share of the population z with ``ratio(x) / ratio(z) >= gamma``, per x.

    Parameters
    ----------
    ratios : array_like of shape (n,)
        :func:`likelihood_ratios` of the examples under attack.
    population_ratios : array_like of shape (m,)
        The same of other examples from the same source, not under attack.
    gamma : float
        Threshold of the pairwise test.

    Returns
    -------
    ndarray of shape (n,)
        Fractions, higher: member.

    Raises
    ------
    ValueError
        If the population is empty or ``gamma`` not above 0.
    """
    ours, others = (np.asarray(v, dtype=np.float64) for v in (ratios, population_ratios))
    if not others.size or not gamma > 0:
        raise ValueError(f"{others.size} population examples, gamma {gamma}; need both above 0")
    beaten = np.searchsorted(np.sort(gamma * others), ours, side="right")
    return np.asarray(beaten / others.size, dtype=np.float64)


def rmia_auc(
    members: tuple[ArrayLike, ArrayLike],
    non_members: tuple[ArrayLike, ArrayLike],
    population: tuple[ArrayLike, ArrayLike],
    scaling: float = 0.0,
) -> float:
    """Return the AUC of RMIA, forget set against held-out set (M8).

    Parameters
    ----------
    members, non_members, population : pair of array_like, (n,) and (M, n)
        Probability of the true label under the attacked model and under M reference models.
        Non-members must come from the same client as the members, else the attack measures the
        difference between clients; the population is disjoint from both.
    scaling : float
        a of :func:`likelihood_ratios`.

    Returns
    -------
    float
        0.5: nothing found; never mirrored. Read it beside the retrained model's.

    Raises
    ------
    ValueError
        As :func:`likelihood_ratios`.
    """
    ratios = [likelihood_ratios(*part, scaling) for part in (members, non_members, population)]
    scores = np.concatenate([rmia_scores(part, ratios[2]) for part in ratios[:2]])
    truth = np.repeat([1, 0], [ratios[0].size, ratios[1].size])
    return auc(truth, scores)


def best_scaling(
    members: tuple[ArrayLike, ArrayLike],
    non_members: tuple[ArrayLike, ArrayLike],
    population: tuple[ArrayLike, ArrayLike],
    grid: Sequence[float] = SCALINGS,
) -> float:
    """Return the scaling with the highest AUC on a *reference* model, attacked by the others.

    Chosen there and not on the judged model, which would count its own luck as a leak; of equals
    the first in the grid.
    """
    return max(grid, key=lambda scaling: rmia_auc(members, non_members, population, scaling))

"""Forgetting quality of the NeurIPS 2023 challenge (M4), with every threshold tried, and its null.

Exact retraining does not score 1: epsilon is a maximum of noisy ratios. Read the number beside
its null, and never compare two of different K.

References
----------
E. Triantafillou, P. Kairouz, F. Pedregosa, J. Hayes, M. Kurmanji, K. Zhao, V. Dumoulin,
J. Jacques Junior, I. Mitliagkas, J. Wan, L. Sun Hosoya, S. Escalera, G. K. Dziugaite,
P. Triantafillou, I. Guyon: Are we making progress in unlearning? Findings from the first NeurIPS
unlearning competition. 2024. arXiv:2406.09073.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unlearning.evaluation.entry import Metric
from unlearning.evaluation.signals import checked_sides

__all__ = [
    "CAP",
    "METRICS",
    "Family",
    "Quality",
    "epsilons",
    "final_score",
    "forgetting_quality",
    "normalised",
    "permuted_null",
    "rule_epsilons",
]

Family = Literal["single", "both"]

CAP = 50.0  # what a perfect separation counts as, in place of infinity
_DELTA = 1e-5
_BUCKET = 0.5
_NARROW = 0.01  # a side this much narrower than the other is told apart by its width alone
_CHUNK = 2_000_000  # rules evaluated at once: about 50 MB

METRICS = (
    Metric(
        "M4",
        "forgetting-quality",
        "Forgetting quality F",
        "score",
        "F of two retrained sides with the same K, not 1",
        "lower",
        "Triantafillou et al. 2024, arXiv:2406.09073",
    ),
)


@dataclass(frozen=True)
class Quality:
    """Forgetting quality of one set of models.

    Parameters
    ----------
    score : float
        F, 0 to 1: mean over examples of ``2^-floor(epsilon / 0.5)``.
    epsilons : ndarray of shape (n,)
        Per example, nats, 0 to :data:`CAP`.
    models : int
        K; scores of different K cannot be compared.
    family : "single" or "both"
        The rules tried. "single" is the small-N variant, not the challenge's score.
    """

    score: float
    epsilons: NDArray[np.float64]
    models: int
    family: Family


def rule_epsilons(
    false_positives: NDArray[np.integer], false_negatives: NDArray[np.integer], models: int
) -> NDArray[np.float64]:
    """Return the epsilon that each decision rule certifies, from its mistakes among K and K.

    ``max(log((1 - d - FPR) / FNR), log((1 - d - FNR) / FPR))`` with d = 1e-5, clipped to 0 to
    :data:`CAP`; :data:`CAP` where both rates are 0; NaN where exactly one is (the rule is
    discarded: K models are too few to tell a rate from 0).
    """
    fpr, fnr = false_positives / models, false_negatives / models
    with np.errstate(divide="ignore", invalid="ignore"):
        # A rule that is always wrong on one side has no logarithm there, and certifies nothing.
        ratios = np.fmax(
            np.log(np.maximum(1 - _DELTA - fpr, 0) / fnr),
            np.log(np.maximum(1 - _DELTA - fnr, 0) / fpr),
        )
    found = np.clip(ratios, 0.0, CAP)
    found = np.where((fpr == 0) != (fnr == 0), np.nan, found)
    return np.where((fpr == 0) & (fnr == 0), CAP, found)


def _best(
    outside: NDArray[np.integer], inside: NDArray[np.integer], table: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return per example the largest epsilon of any interval of sorted values, (n,).

    An interval holds the values between two cuts; ``outside`` and ``inside`` count, per cut, the
    values of each side below it, (n, cuts). The side called ``inside`` should lie in it.
    """
    models = len(table) - 1
    lower, upper = np.triu_indices(outside.shape[1], k=1)
    wrong = outside[:, upper] - outside[:, lower]
    missed = models - (inside[:, upper] - inside[:, lower])
    return np.asarray(table[wrong, missed].max(axis=1))


def _counts(side: NDArray[np.float64], cuts: NDArray[np.float64]) -> NDArray[np.intp]:
    """Return how many values of a side lie below each cut and below a last cut above all.

    Cuts (2K, n) are the pooled values themselves: counting what is strictly smaller, they stand
    for every mid-point, and equal values are never parted. Shape (n, 2K + 1).
    """
    below = (side[:, None, :] < cuts[None, :, :]).sum(axis=0)
    return np.concatenate([below.T, np.full((side.shape[1], 1), len(side))], axis=1)


def _chunk(
    positive: NDArray[np.float64],
    negative: NDArray[np.float64],
    table: NDArray[np.float64],
    family: Family,
) -> NDArray[np.float64]:
    """Return epsilons of some examples; sides oriented, shape (K, examples)."""
    models = len(positive)
    cuts = np.sort(np.concatenate([positive, negative]), axis=0)
    ours, theirs = _counts(positive, cuts), _counts(negative, cuts)
    best = table[models - theirs, ours].max(axis=1)
    if family == "both":
        wide, wide_other = np.ptp(positive, axis=0), np.ptp(negative, axis=0)
        narrow = (wide < wide_other)[:, None]
        inside, outside = np.where(narrow, ours, theirs), np.where(narrow, theirs, ours)
        best = np.maximum(best, _best(outside, inside, table))
    return np.asarray(best)


def epsilons(phi_u: ArrayLike, phi_r: ArrayLike, family: Family = "single") -> NDArray[np.float64]:
    """Return, per example, the largest epsilon that any rule of the family certifies.

    Parameters
    ----------
    phi_u, phi_r : array_like of shape (K, n)
        Logit-scaled confidences of unlearned and retrained models; K >= 3.
    family : "single" or "both"
        "single": everything above one threshold belongs to the side with the larger median.
        "both": also everything between two thresholds belongs to the side with the smaller
        range. All thresholds that change a decision are tried, not a grid.

    Returns
    -------
    ndarray of shape (n,)
        Nats, 0 to :data:`CAP`; 0 where no rule is left; :data:`CAP` where one side's range is
        below 1 % of the other's.

    Raises
    ------
    ValueError
        If the sides differ in shape, a value is not finite or K < 3.
    """
    unlearned, retrained = checked_sides(phi_u, phi_r)
    if unlearned.shape != retrained.shape or len(unlearned) < 3:
        raise ValueError(
            f"{len(unlearned)} unlearned and {len(retrained)} retrained models; "
            "need as many of both, three or more"
        )
    models = len(unlearned)
    swap = np.median(retrained, axis=0) > np.median(unlearned, axis=0)
    positive = np.where(swap, retrained, unlearned)
    negative = np.where(swap, unlearned, retrained)
    counts = np.arange(models + 1)
    table = np.nan_to_num(rule_epsilons(counts[:, None], counts[None, :], models), nan=0.0)
    step = max(1, _CHUNK // (2 * models + 1) ** 2)
    found = np.concatenate(
        [
            _chunk(
                positive[:, start : start + step], negative[:, start : start + step], table, family
            )
            for start in range(0, positive.shape[1], step)
        ]
    )
    ranges = np.sort([np.ptp(positive, axis=0), np.ptp(negative, axis=0)], axis=0)
    found[ranges[0] < _NARROW * ranges[1]] = CAP
    return found


def forgetting_quality(phi_u: ArrayLike, phi_r: ArrayLike, family: Family = "single") -> Quality:
    """Return the forgetting quality F of unlearned against retrained models (M4).

    ``F = mean_x 2^-floor(epsilon_x / 0.5)``, an example with ``epsilon >= ceil(ln(K - 1))``
    counting 0.

    Parameters
    ----------
    phi_u, phi_r : array_like of shape (K, n)
        Logit-scaled confidences on the forget set; K >= 3.
    family : "single" or "both"
        As :func:`epsilons`. "both" is the challenge's family, "single" the variant for few
        models (16 to 64).

    Raises
    ------
    ValueError
        As :func:`epsilons`.
    """
    found = epsilons(phi_u, phi_r, family)
    models = len(np.asarray(phi_u))
    limit = math.ceil(math.log(models - 1))
    points = np.where(found < limit, 2.0 ** -np.floor(found / _BUCKET), 0.0)
    return Quality(float(points.mean()), found, models, family)


def permuted_null(
    phi_u: ArrayLike,
    phi_r: ArrayLike,
    family: Family = "single",
    *,
    repeats: int = 50,
    seed: int = 0,
) -> NDArray[np.float64]:
    """Return F where the models' sides are drawn anew at random: F of equal sides.

    Whole models change sides, so that examples stay as correlated as they are.

    Parameters
    ----------
    phi_u, phi_r : array_like of shape (K, n)
        As :func:`forgetting_quality`.
    repeats : int
        Draws.
    seed : int
        Of the draws.

    Returns
    -------
    ndarray of shape (repeats,)
        Scores; their mean is F_null.
    """
    unlearned, retrained = checked_sides(phi_u, phi_r)
    pooled, models = np.concatenate([unlearned, retrained]), len(unlearned)
    generator = np.random.default_rng(seed)
    orders = [generator.permutation(len(pooled)) for _ in range(repeats)]
    return np.array(
        [
            forgetting_quality(pooled[order[:models]], pooled[order[models:]], family).score
            for order in orders
        ]
    )


def normalised(score: float, null: float) -> float | None:
    """Return ``F / F_null`` clipped to 1, or None where the null is 0.

    The null is F between two retrained sides, or the mean of :func:`permuted_null`; with the same
    K and family.
    """
    return min(score / null, 1.0) if null > 0 else None


def final_score(score: float, retain: tuple[float, float], test: tuple[float, float]) -> float:
    """Return the challenge's ``F * RA_u / RA_r * TA_u / TA_r``.

    Parameters
    ----------
    score : float
        F.
    retain, test : tuple of two floats
        Accuracy of the unlearned and of the retrained models, fractions; the latter above 0.

    Raises
    ------
    ValueError
        If a retrained accuracy is 0.
    """
    if min(retain[1], test[1]) <= 0:
        raise ValueError("a retrained model with accuracy 0 is no reference")
    return score * retain[0] / retain[1] * test[0] / test[1]

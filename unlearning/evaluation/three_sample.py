"""Is the unlearned model closer to the retrained or to the original one? A relative test (M5).

Unlearning and its recovery rounds move a model away from both references alike; the *difference*
of the two distances does not care, where a distance to the retrained model alone does.

References
----------
W. Bounliphone, E. Belilovsky, M. B. Blaschko, I. Antonoglou, A. Gretton: A Test of Relative
Similarity For Model Selection in Generative Models. ICLR 2016. arXiv:1511.04581.
A. Gretton, K. M. Borgwardt, M. J. Rasch, B. Schoelkopf, A. Smola: A Kernel Two-Sample Test. JMLR
13, 2012. (The unbiased estimate; the median heuristic.)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.distance import cdist, pdist

from unlearning.evaluation.entry import Metric
from unlearning.evaluation.scorecard import Verdict
from unlearning.evaluation.signals import checked_sides

__all__ = ["METRICS", "ThreeSample", "median_width", "mmd2", "three_sample"]

METRICS = (
    Metric(
        "M5",
        "three-sample",
        "Relative three-sample test T",
        "MMD^2",
        "below 0: minus the squared distance of retrained and original models",
        "higher",
        "Bounliphone et al. 2016, arXiv:1511.04581",
    ),
)


@dataclass(frozen=True)
class ThreeSample:
    """What the test found.

    Parameters
    ----------
    statistic : float
        ``T = D(u, r) - D(u, o)`` with D the unbiased squared MMD; below 0: closer to retrained.
    low, high : float
        95 % interval, by bootstrap over models.
    verdict : Verdict
        Forgotten if the interval lies below 0, not forgotten if above, else inconclusive.
    width : float
        Kernel width used.
    """

    statistic: float
    low: float
    high: float
    verdict: Verdict
    width: float


def median_width(*sides: ArrayLike) -> float:
    """Return the median distance between models, the usual kernel width.

    Take models that the test itself does not use: a width chosen on the tested ones is part of
    the test.

    Parameters
    ----------
    sides : array_like of shape (K, n)
        Confidences of held-out models.

    Returns
    -------
    float
        Above 0; 1 where all models agree exactly.
    """
    pooled = np.concatenate(checked_sides(*sides))
    if len(pooled) < 2:
        raise ValueError("one model has no distance to another; need two or more")
    return float(np.median(pdist(pooled))) or 1.0


def _kernel(
    left: NDArray[np.float64], right: NDArray[np.float64], width: float
) -> NDArray[np.float64]:
    """Return the Gaussian kernel ``exp(-||a - b||^2 / (2 width^2))`` of all pairs."""
    return np.asarray(np.exp(-cdist(left, right, "sqeuclidean") / (2 * width**2)))


def _within(gram: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean kernel over pairs of *different* models, for each row of weights."""
    apart = gram - np.diag(np.diag(gram))
    pairs = weights.sum(axis=1) ** 2 - (weights**2).sum(axis=1)
    return np.asarray(np.einsum("bi,ij,bj->b", weights, apart, weights) / pairs)


def _across(
    gram: NDArray[np.float64], left: NDArray[np.float64], right: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the mean kernel between two sides, for each row of weights."""
    totals = left.sum(axis=1) * right.sum(axis=1)
    return np.asarray(np.einsum("bi,ij,bj->b", left, gram, right) / totals)


def mmd2(left: ArrayLike, right: ArrayLike, width: float) -> float:
    """Return the unbiased estimate of the squared maximum mean discrepancy (Gretton et al. 2012).

    Parameters
    ----------
    left, right : array_like of shape (K, n)
        One vector of confidences per model; 2 or more models each, counts may differ.
    width : float
        Of the Gaussian kernel.

    Returns
    -------
    float
        Around 0 (also below) for equal distributions, at most 2.

    Raises
    ------
    ValueError
        If a side has fewer than 2 models, is not finite, or ``width`` is not above 0.
    """
    ours, theirs = checked_sides(left, right)
    _check(width, ours, theirs)
    ones, others = np.ones((1, len(ours))), np.ones((1, len(theirs)))
    found = (
        _within(_kernel(ours, ours, width), ones)
        + _within(_kernel(theirs, theirs, width), others)
        - 2 * _across(_kernel(ours, theirs, width), ones, others)
    )
    return float(found[0])


def _check(width: float, *sides: NDArray[np.float64]) -> None:
    if not width > 0:
        raise ValueError(f"kernel width {width}; need more than 0")
    if min(len(side) for side in sides) < 2:
        raise ValueError(f"{[len(side) for side in sides]} models; need two or more of each")


def _draws(generator: np.random.Generator, models: int, repeats: int) -> NDArray[np.float64]:
    """Return how often each model is drawn, (repeats, models); never one model alone."""
    counts = generator.multinomial(models, np.full(models, 1 / models), size=repeats)
    counts[counts.max(axis=1) == models] = 1  # a single model has no distance within its side
    return np.asarray(counts, dtype=np.float64)


def three_sample(
    phi_u: ArrayLike,
    phi_r: ArrayLike,
    phi_o: ArrayLike,
    *,
    width: float | None = None,
    repeats: int = 1000,
    seed: int = 0,
) -> ThreeSample:
    """Test whether unlearned models lie closer to retrained or to original ones (M5).

    Parameters
    ----------
    phi_u, phi_r, phi_o : array_like of shape (K, n)
        Confidences on the forget set, one vector per model; counts may differ. Retrained and
        original models of other seeds than the unlearned ones: a model unlearned from one of
        the originals is close to *that* one anyway.
    width : float or None
        Kernel width, from held-out models (:func:`median_width`); None takes it from the
        retrained and original models given.
    repeats, seed : int
        Of the bootstrap. A draw never pairs a model with its own copy, whose distance 0 would
        pull every side together.

    Raises
    ------
    ValueError
        If a side has fewer than 2 models or is not finite, or the examples differ.
    """
    unlearned, retrained, original = checked_sides(phi_u, phi_r, phi_o)
    chosen = median_width(retrained, original) if width is None else width
    _check(chosen, unlearned, retrained, original)
    generator = np.random.default_rng(seed)
    weights_u, weights_r, weights_o = (
        np.concatenate([np.ones((1, len(side))), _draws(generator, len(side), repeats)])
        for side in (unlearned, retrained, original)
    )
    # The unlearned side's own term is in both distances and cancels.
    found = (
        _within(_kernel(retrained, retrained, chosen), weights_r)
        - _within(_kernel(original, original, chosen), weights_o)
        - 2 * _across(_kernel(unlearned, retrained, chosen), weights_u, weights_r)
        + 2 * _across(_kernel(unlearned, original, chosen), weights_u, weights_o)
    )
    low, high = (float(edge) for edge in np.quantile(found[1:], [0.025, 0.975]))
    verdict = Verdict.INCONCLUSIVE
    if high < 0:
        verdict = Verdict.FORGOTTEN
    elif low > 0:
        verdict = Verdict.NOT_FORGOTTEN
    return ThreeSample(float(found[0]), low, high, verdict, chosen)

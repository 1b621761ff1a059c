"""Is the true label still a plausible answer? Conformal check of fake forgetting (M12).

References
----------
Redefining Machine Unlearning: A Conformal Prediction-Motivated Approach. 2025. arXiv:2501.19403.
V. Vovk, A. Gammerman, G. Shafer: Algorithmic Learning in a Random World. Springer, 2005.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from unlearning.evaluation import metrics
from unlearning.evaluation.entry import Metric

__all__ = ["LEVEL", "METRICS", "Conformal", "conformal", "conformal_threshold"]

LEVEL = 0.1  # a: share of fresh examples whose true label may fall out of the set

METRICS = (
    Metric(
        "M12",
        "conformal-coverage",
        "Share of the forget set whose true label is still in the conformal set",
        "fraction",
        "the retrained model's",
        "higher",
        "arXiv:2501.19403 (2025)",
    ),
)


@dataclass(frozen=True)
class Conformal:
    """How plausible the true labels of the forget set still are.

    Parameters
    ----------
    coverage : float
        Share of examples whose true label is in its set.
    size : float
        Mean number of labels per set.
    ratio : float or None
        Coverage over size: sets that hold everything cover everything. None where all are empty.
    """

    coverage: float
    size: float
    ratio: float | None


def conformal_threshold(probabilities: ArrayLike, labels: ArrayLike, level: float = LEVEL) -> float:
    """Return the largest ``1 - p_y`` at which a label still belongs to the set (split conformal).

    The ``ceil((n + 1)(1 - a))``-th smallest score ``1 - p_y`` of n calibration examples; above 1
    where there are too few of them: then every label belongs.

    Parameters
    ----------
    probabilities : array_like of shape (n, C)
        Softmax outputs on examples that nobody trained on.
    labels : array_like of shape (n,)
        Integers 0 to C-1.
    level : float
        a, within (0, 1).

    Raises
    ------
    ValueError
        As :func:`unlearning.evaluation.metrics.accuracy`, or if ``level`` is out of range.
    """
    if not 0 < level < 1:
        raise ValueError(f"level {level}; need a number between 0 and 1")
    metrics.accuracy(probabilities, labels)
    rows, truth = np.asarray(probabilities, dtype=np.float64), np.asarray(labels)
    scores = np.sort(1 - rows[np.arange(len(rows)), truth])
    rank = math.ceil((scores.size + 1) * (1 - level))
    return float(scores[rank - 1]) if rank <= scores.size else math.inf


def conformal(probabilities: ArrayLike, labels: ArrayLike, threshold: float) -> Conformal:
    """Return how often the true label is still in the conformal set (M12).

    Parameters
    ----------
    probabilities : array_like of shape (n, C)
        Softmax outputs on the forget set.
    labels : array_like of shape (n,)
        Integers 0 to C-1.
    threshold : float
        Of :func:`conformal_threshold`, from the same model.

    Raises
    ------
    ValueError
        As :func:`unlearning.evaluation.metrics.accuracy`.
    """
    metrics.accuracy(probabilities, labels)
    rows, truth = np.asarray(probabilities, dtype=np.float64), np.asarray(labels)
    belongs = 1 - rows <= threshold
    coverage = float(np.mean(belongs[np.arange(len(rows)), truth]))
    size = float(np.mean(belongs.sum(axis=1)))
    return Conformal(coverage, size, coverage / size if size > 0 else None)

"""One scale for all metrics: 0 is exact retraining, 1 is doing nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["Scale", "calibrated", "scale"]


@dataclass(frozen=True)
class Scale:
    """The line through two controls.

    Parameters
    ----------
    zero, one : float
        Mean of the metric over retrained and over original models.
    """

    zero: float
    one: float

    def __call__(self, value: float) -> float:
        """Return ``(value - zero) / (one - zero)``."""
        return (value - self.zero) / (self.one - self.zero)

    def interval(self, low: float, high: float) -> tuple[float, float]:
        """Return an interval on the scale, in order also where the original lies below."""
        ends = sorted((self(low), self(high)))
        return ends[0], ends[1]


def scale(retrain_values: Sequence[float], original_values: Sequence[float]) -> Scale | None:
    """Return the scale of a metric, or None where it cannot tell the two controls apart.

    Apart means: the 95 % interval of the difference of means (Welch) leaves out 0. A single
    value has no spread, so two or more of each are needed.

    Parameters
    ----------
    retrain_values, original_values : sequence of float
        The metric of retrained models (not those it is measured against) and of originals, one
        per seed or draw.
    """
    zeros = np.asarray(retrain_values, dtype=np.float64)
    ones = np.asarray(original_values, dtype=np.float64)
    if min(zeros.size, ones.size) < 2 or not (np.isfinite(zeros).all() and np.isfinite(ones).all()):
        return None
    gap = float(ones.mean() - zeros.mean())
    if gap == 0:
        return None
    if np.ptp(zeros) or np.ptp(ones):
        from scipy import stats  # a second to import, which only its users pay

        p = stats.ttest_ind(ones, zeros, equal_var=False).pvalue
        if not p < 0.05:
            return None
    return Scale(float(zeros.mean()), float(ones.mean()))


def calibrated(
    value: float, retrain_values: Sequence[float], original_values: Sequence[float]
) -> float | None:
    """Return where a value lies between retraining (0) and doing nothing (1).

    Beyond 1 or below 0 is possible and means what it says; None where the metric has no power
    (:func:`scale`).
    """
    line = scale(retrain_values, original_values)
    return None if line is None else line(value)

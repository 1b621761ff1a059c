"""Whether forgetting gets worse from one request to the next (M17)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from unlearning.evaluation.entry import Metric
from unlearning.evaluation.statistics import Paired, summarise_differences

__all__ = ["METRICS", "Drift", "drift"]

METRICS = (
    Metric(
        "M17",
        "drift",
        "Change of a metric over a sequence of requests, against retraining's",
        "the metric's unit per request",
        "0",
        None,
        "Requests in sequence: Fraboni et al. 2024, arXiv:2211.11656",
    ),
)


@dataclass(frozen=True)
class Drift:
    """How a metric changes over requests served one after another.

    Parameters
    ----------
    per_request : Paired
        Least-squares slope over the number of requests served, one value per seed.
    total : Paired
        After the last request minus after the first, paired by seed.
    """

    per_request: Paired
    total: Paired


def drift(values: ArrayLike, served: ArrayLike) -> Drift:
    """Return the change of a metric over a sequence of requests (M17).

    Parameters
    ----------
    values : array_like of shape (seeds, requests)
        The metric, as difference to a retrained model of the same state: a model retrained after
        three requests has fewer data, and that alone is no drift.
    served : array_like of shape (requests,)
        How many requests had been served at each measurement, as 1, 3, 10; two or more different.

    Raises
    ------
    ValueError
        If shapes disagree, a value is not finite or ``served`` holds fewer than two numbers.
    """
    table, counts = np.asarray(values, dtype=np.float64), np.asarray(served, dtype=np.float64)
    if table.ndim != 2 or counts.shape != table.shape[1:] or np.unique(counts).size < 2:
        raise ValueError(f"values {table.shape} at {counts.size} requests; need (seeds, requests)")
    if (np.diff(counts) <= 0).any():
        raise ValueError(f"served {counts.tolist()}; need growing numbers")
    centred = counts - counts.mean()
    slopes = table @ centred / (centred @ centred)
    return Drift(
        summarise_differences(slopes.tolist()),
        summarise_differences((table[:, -1] - table[:, 0]).tolist()),
    )

"""What an order of scores tells: the points of an ROC curve and the area below it, in NumPy.

Every run needs these two; scikit-learn, which has them as well, costs a second of CPU to import.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["auc", "mid_ranks", "roc_points"]

Floats = NDArray[np.float64]


def _counted(truth: ArrayLike, scores: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return false and true alarms at every threshold, from none to all; ties are one step.

    Raises
    ------
    ValueError
        If the shapes differ, a score is not finite, or one of the two sides is missing.
    """
    values = np.asarray(scores, dtype=np.float64).ravel()
    positive = np.asarray(truth).ravel() > 0
    if values.shape != positive.shape or not np.isfinite(values).all():
        raise ValueError(
            f"{values.size} scores of {positive.size} examples; need a finite one of each"
        )
    if positive.all() or not positive.any():
        raise ValueError(f"{int(positive.sum())} positives of {positive.size}; need both sides")
    order = np.argsort(-values, kind="stable")
    values, positive = values[order], positive[order]
    ends = np.append(np.flatnonzero(np.diff(values)), values.size - 1)
    found = np.cumsum(positive, dtype=np.int64)[ends]
    alarms = ends + 1 - found
    return np.append(0, alarms), np.append(0, found)


def roc_points(truth: ArrayLike, scores: ArrayLike) -> tuple[Floats, Floats]:
    """Return rates of false and of true alarms at every threshold, both from 0 to 1.

    Parameters
    ----------
    truth : array_like of shape (n,)
        Above 0 for a positive.
    scores : array_like of shape (n,)
        High for what looks positive.

    Raises
    ------
    ValueError
        If the shapes differ, a score is not finite, or one of the two sides is missing.
    """
    alarms, found = _counted(truth, scores)
    return alarms / alarms[-1], found / found[-1]


def auc(truth: ArrayLike, scores: ArrayLike) -> float:
    """Return the chance that a positive scores above a negative; ties count half.

    Raises
    ------
    ValueError
        As :func:`roc_points`.

    Examples
    --------
    >>> auc([1, 1, 0, 0], [0.9, 0.5, 0.6, 0.1])
    0.75
    """
    alarms, found = _counted(truth, scores)
    doubled = np.sum(np.diff(alarms) * (found[1:] + found[:-1]))  # whole numbers: nothing rounds
    return float(doubled / (2 * int(alarms[-1]) * int(found[-1])))


def mid_ranks(values: ArrayLike) -> Floats:
    """Return ranks from 1 along the last axis; equal values share the mean of theirs."""
    rows = np.asarray(values, dtype=np.float64)
    order = np.argsort(rows, axis=-1, kind="stable")
    ordered = np.take_along_axis(rows, order, axis=-1)
    fresh = np.ones(ordered.shape, dtype=bool)
    fresh[..., 1:] = ordered[..., 1:] != ordered[..., :-1]
    places = np.broadcast_to(np.arange(rows.shape[-1]), rows.shape)
    first = np.maximum.accumulate(np.where(fresh, places, 0), axis=-1)
    closing = np.ones(ordered.shape, dtype=bool)
    closing[..., :-1] = fresh[..., 1:]
    ends = np.where(closing, places, rows.shape[-1])
    last = np.minimum.accumulate(ends[..., ::-1], axis=-1)[..., ::-1]
    ranks = np.empty(rows.shape)
    np.put_along_axis(ranks, order, (first + last) / 2 + 1, axis=-1)
    return ranks

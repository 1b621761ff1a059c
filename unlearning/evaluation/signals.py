"""What an attacker reads off one prediction: logit-scaled confidence, modified entropy.

References
----------
N. Carlini, S. Chien, M. Nasr, S. Song, A. Terzis, F. Tramer: Membership Inference Attacks From
First Principles. IEEE S&P 2022. arXiv:2112.03570.
L. Song, P. Mittal: Systematic Evaluation of Privacy Risks of Machine Learning Models. USENIX
Security 2021. arXiv:2003.10595.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import log_softmax, logsumexp

from unlearning.evaluation.metrics import with_labels

__all__ = [
    "FLOOR",
    "checked_sides",
    "confidence_of_logits",
    "logit_confidence",
    "modified_entropy",
]

FLOOR = 1e-45  # added to both probabilities, so that a certain answer has a finite logarithm


def checked_sides(*sides: ArrayLike) -> tuple[NDArray[np.float64], ...]:
    """Return values of several sides, each (K, n) in float64, over the same n examples.

    Raises
    ------
    ValueError
        If a side is not a table of finite numbers or the sides hold different examples.
    """
    found = tuple(np.asarray(side, dtype=np.float64) for side in sides)
    for table in found:
        if table.ndim != 2 or 0 in table.shape:
            raise ValueError(f"shape {table.shape}, expected (K, n): models by examples")
        if not np.isfinite(table).all():
            raise ValueError("confidences hold NaN or infinity; a model has diverged")
    if len({table.shape[1] for table in found}) > 1:
        raise ValueError(f"{[t.shape[1] for t in found]} examples; the sides need the same ones")
    return found


def logit_confidence(probabilities: ArrayLike, labels: ArrayLike) -> NDArray[np.float64]:
    """Return ``phi = log p_y - log sum_{j != y} p_j`` of every example (Carlini et al. 2022).

    The logarithm of the odds that the model gives the true label; near normal over training
    seeds, which is why attacks fit Gaussians to it. :data:`FLOOR` is added to both sums; a
    softmax in float32 reaches it at about 16 nats already, so pass
    :func:`confidence_of_logits` the logits where there are any.

    Parameters
    ----------
    probabilities : array_like of shape (n, C)
        Softmax outputs.
    labels : array_like of shape (n,)
        Integers 0 to C-1.

    Returns
    -------
    ndarray of shape (n,)
        Nats, within about 104 of 0.

    Raises
    ------
    ValueError
        As :func:`unlearning.evaluation.metrics.accuracy`.
    """
    given, truth = with_labels(probabilities, labels)
    rows, positions = given.copy(), (np.arange(len(truth)), truth)
    chosen = rows[positions]
    rows[positions] = 0  # summed without it: 1 - p_y cancels where the model is sure
    phi: NDArray[np.float64] = np.log(chosen + FLOOR) - np.log(rows.sum(axis=1) + FLOOR)
    return phi


def confidence_of_logits(logits: ArrayLike, labels: ArrayLike) -> NDArray[np.float64]:
    """Return the logit-scaled confidence from logits: ``z_y - logsumexp_{j != y} z_j``.

    The same number as :func:`logit_confidence` without its floor and without the rounding of a
    float32 softmax.

    Parameters
    ----------
    logits : array_like of shape (n, C)
        Outputs before the softmax, C >= 2.
    labels : array_like of shape (n,)
        Integers 0 to C-1.

    Returns
    -------
    ndarray of shape (n,)
        Nats.

    Raises
    ------
    ValueError
        If shapes disagree, a label is out of range, or a logit is not finite.
    """
    rows = np.array(logits, dtype=np.float64)
    if rows.ndim != 2 or rows.shape[1] < 2 or not np.isfinite(rows).all():
        raise ValueError(f"logits of shape {rows.shape}: expected finite (n, C) with C >= 2")
    _, truth = with_labels(np.exp(log_softmax(rows, axis=1)), labels)
    positions = np.arange(len(truth)), truth
    chosen = rows[positions]
    rows[positions] = -np.inf
    return np.asarray(chosen - logsumexp(rows, axis=1), dtype=np.float64)


def modified_entropy(probabilities: ArrayLike, labels: ArrayLike) -> NDArray[np.float64]:
    """Return ``-(1 - p_y) log p_y - sum_{i != y} p_i log(1 - p_i)`` (Song and Mittal 2021).

    Low where the model is sure of the true label, high where it is sure of a wrong one; unlike
    entropy it knows the label.

    Parameters
    ----------
    probabilities : array_like of shape (n, C)
        Softmax outputs.
    labels : array_like of shape (n,)
        Integers 0 to C-1.

    Returns
    -------
    ndarray of shape (n,)
        Nats, 0 or more.

    Raises
    ------
    ValueError
        As :func:`unlearning.evaluation.metrics.accuracy`.
    """
    rows, truth = with_labels(probabilities, labels)
    positions = np.arange(len(truth)), truth
    chosen = rows[positions]
    others = rows * np.log(np.maximum(1 - rows, FLOOR))
    others[positions] = 0
    entropy: NDArray[np.float64] = -(1 - chosen) * np.log(chosen + FLOOR) - others.sum(axis=1)
    return entropy

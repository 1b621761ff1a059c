"""Which channels of a network speak for a class: term frequency and inverse document frequency.

A class is a document, a channel a word, and the mean activation of the channel on the examples of
the class says how often the word occurs.

References
----------
Wang, Guo, Xie, Qi, "Federated Unlearning via Class-Discriminative Pruning", WWW 2022
(arXiv 2110.11794).
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

__all__ = ["class_scores", "masked", "prune_highest", "tf_idf"]

Floats = NDArray[np.float64]


def tf_idf(activations: NDArray[np.floating]) -> Floats:
    """Return how much each channel is a mark of each class.

    ``TF[c, j] = A[c, j] / sum_j' A[c, j']`` is the channel's share within the class,
    ``IDF[j] = log((1 + C) / (1 + #{c : A[c, j] >= mean_j' A[c, j']}))`` its rarity over classes,
    never negative; the score is their product.

    Parameters
    ----------
    activations : ndarray of shape (C, channels)
        A: mean activation after ReLU, per class and channel, not negative.

    Returns
    -------
    ndarray of shape (C, channels)
        float64. A class on which all channels are silent scores 0 everywhere.
    """
    found = np.asarray(activations, dtype=np.float64)
    total = found.sum(axis=1, keepdims=True)
    frequency = np.divide(found, total, out=np.zeros_like(found), where=total > 0)
    used = (found >= found.mean(axis=1, keepdims=True)) & (total > 0)
    rarity = np.log((1 + len(found)) / (1 + used.sum(axis=0)))
    scores: Floats = frequency * rarity
    return scores


def class_scores(
    sums: NDArray[np.floating], counts: NDArray[np.floating], classes: Collection[int]
) -> Floats:
    """Return one score per channel: how much it speaks for any of ``classes``.

    Parameters
    ----------
    sums : ndarray of shape (C, channels)
        Activations summed over the examples of each class, of all clients.
    counts : ndarray of shape (C,)
        Examples of each class; a class without any is no document and left out.
    classes : collection of int
        The classes to forget; scores of several are added.

    Returns
    -------
    ndarray of shape (channels,)
        Zeros if nobody holds an example of ``classes``.
    """
    there = np.asarray(counts) > 0
    scores = tf_idf(np.asarray(sums)[there] / np.asarray(counts)[there, None])
    wanted = np.isin(np.flatnonzero(there), sorted(classes))
    chosen: Floats = scores[wanted].sum(axis=0)
    return chosen


def prune_highest(scores: NDArray[np.floating], share: float) -> NDArray[np.bool_]:
    """Return which channels of one layer to prune: those with the highest scores.

    Parameters
    ----------
    scores : ndarray of shape (channels,)
        Of one layer: every layer has its own quota, a global threshold would empty some.
    share : float
        R, in [0, 1]; rounded to whole channels, at least one and never all.

    Returns
    -------
    ndarray of bool, shape (channels,)
        A channel whose score is 0 says nothing of the class and is kept.
    """
    quota = min(max(1, round(share * len(scores))), len(scores) - 1) if share else 0
    pruned = np.zeros(len(scores), dtype=bool)
    pruned[np.argsort(-np.asarray(scores), kind="stable")[:quota]] = True
    return pruned & (np.asarray(scores) > 0)


def masked(array: NDArray[np.floating], keep: NDArray[np.bool_]) -> NDArray[np.floating]:
    """Return ``array`` with the entries of its first axis that are not kept set to zero."""
    shape = (len(keep),) + (1,) * (array.ndim - 1)
    return np.where(keep.reshape(shape), array, np.zeros((), array.dtype))

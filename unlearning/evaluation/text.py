"""What a model of text still knows of a text: perplexity, exposure of canaries, completion.

References
----------
Carlini, Liu, Erlingsson, Kos, Song, "The Secret Sharer: Evaluating and Testing Unintended
Memorization in Neural Networks", USENIX Security 2019 (arXiv 1802.08232), for exposure.

Carlini, Ippolito, Jagielski, Lee, Tramer, Zhang, "Quantifying Memorization Across Neural Language
Models", ICLR 2023 (arXiv 2202.07646), for greedy completion, word for word.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["completion", "exposure", "exposure_null", "perplexity"]

Floats = NDArray[np.float64]


def perplexity(losses: ArrayLike) -> float:
    """Return the exponential of the mean loss per token, 1 or more; as many tokens seem possible.

    Raises
    ------
    ValueError
        If there is no loss.

    Examples
    --------
    >>> round(perplexity(np.log([4.0, 4.0, 1.0, 16.0])), 6)
    4.0
    """
    found = np.asarray(losses, np.float64)
    if not found.size:
        raise ValueError("no loss, no perplexity")
    return float(np.exp(found.mean()))


def exposure(own: ArrayLike, others: ArrayLike) -> Floats:
    """Return the exposure of canaries, in bits.

    ``log2(R) - log2(rank)``, rank 1 being the likeliest of R: the canary's secret and the R - 1
    others that might as well have been planted. Equal losses share their rank.

    Parameters
    ----------
    own : array_like of shape (k,)
        Loss of every secret, given its beginning.
    others : array_like of shape (k, R - 1)
        Losses of others behind the same beginning.

    Returns
    -------
    ndarray of shape (k,)
        0 to log2(R).

    Raises
    ------
    ValueError
        If the shapes do not fit, or there are no others.

    Examples
    --------
    The likeliest of four, and the third of four:

    >>> exposure([1.0, 2.5], [[2.0, 3.0, 4.0], [1.0, 2.0, 3.0]]).round(3).tolist()
    [2.0, 0.415]
    """
    mine, rest = np.asarray(own, np.float64), np.asarray(others, np.float64)
    if rest.ndim != 2 or mine.shape != rest.shape[:1] or not rest.shape[1]:
        raise ValueError(f"losses of shapes {mine.shape} and {rest.shape}; need (k,) and (k, n)")
    below = (rest < mine[:, None]).sum(1) + (rest == mine[:, None]).sum(1) / 2
    found: Floats = np.log2(rest.shape[1] + 1) - np.log2(1 + below)
    return found


def exposure_null(size: int, canaries: int) -> tuple[float, float]:
    """Return mean and standard error of the mean exposure where nothing is known of the canaries.

    Every rank among ``size`` is then as likely: about 1.44 bits, 1 / ln 2, and as much for the
    standard deviation of one canary.

    Examples
    --------
    >>> mean, error = exposure_null(512, 4)
    >>> round(mean, 2), round(error, 2)
    (1.43, 0.7)
    """
    bits = np.log2(size) - np.log2(np.arange(1, size + 1))
    return float(bits.mean()), float(bits.std() / np.sqrt(canaries))


def completion(said: ArrayLike, true: ArrayLike) -> float:
    """Return the share of continuations that are word for word what follows in truth.

    Parameters
    ----------
    said, true : array_like of shape (n, length)
        Tokens; n at least 1.

    Raises
    ------
    ValueError
        If the shapes differ or there is none.
    """
    ours, theirs = np.asarray(said), np.asarray(true)
    if ours.shape != theirs.shape or ours.ndim != 2 or not len(ours):
        raise ValueError(f"continuations of shapes {ours.shape} and {theirs.shape}; need (n, m)")
    return float((ours == theirs).all(axis=1).mean())

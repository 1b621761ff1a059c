"""How differently two models answer and compute: outputs, activations, representations (M11).

A distance between *parameters* proves nothing: the same arrays can be reached without the forget
set (Thudi et al.).

References
----------
J. Lin: Divergence Measures Based on the Shannon Entropy. IEEE Transactions on Information Theory
37(1), 1991.
S. Kornblith, M. Norouzi, H. Lee, G. Hinton: Similarity of Neural Network Representations
Revisited. ICML 2019. arXiv:1905.00414. (Linear CKA.)
A. Thudi, H. Jia, I. Shumailov, N. Papernot: On the Necessity of Auditable Algorithmic Definitions
for Machine Unlearning. USENIX Security 2022. arXiv:2110.11891.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unlearning.evaluation.entry import Metric
from unlearning.evaluation.metrics import js_divergence

__all__ = ["METRICS", "activation_distance", "js_divergence", "linear_cka"]

METRICS = (
    Metric(
        "M11",
        "output-distance",
        "Jensen-Shannon divergence to the retrained model on the forget set",
        "nats",
        "that of two retrained models",
        "higher",
        "Lin 1991",
    ),
)


def _features(left: ArrayLike, right: ArrayLike) -> tuple[NDArray[np.float64], ...]:
    """Return two sets of activations, flattened to (n, d)."""
    pair = [np.asarray(values, dtype=np.float64) for values in (left, right)]
    if min(values.ndim for values in pair) < 2 or len(pair[0]) != len(pair[1]) or not len(pair[0]):
        raise ValueError(f"activations {pair[0].shape} and {pair[1].shape}; need the same examples")
    if not all(np.isfinite(values).all() for values in pair):
        raise ValueError("activations hold NaN or infinity")
    return tuple(values.reshape(len(values), -1) for values in pair)


def linear_cka(left: ArrayLike, right: ArrayLike) -> float | None:
    """Return the linear centred kernel alignment of one layer in two models.

    ``||Y'X||_F^2 / (||X'X||_F ||Y'Y||_F)`` over centred activations (Kornblith et al. 2019).

    Parameters
    ----------
    left, right : array_like of shape (n, ...)
        Activations of the same examples; the widths may differ.

    Returns
    -------
    float or None
        0 to 1; 1 for equal representations up to rotation and scale. None where a layer answers
        all examples alike.

    Raises
    ------
    ValueError
        If the examples differ in number or a value is not finite.
    """
    ours, theirs = (values - values.mean(axis=0) for values in _features(left, right))
    lengths = np.linalg.norm(ours.T @ ours) * np.linalg.norm(theirs.T @ theirs)
    return float(np.linalg.norm(theirs.T @ ours) ** 2 / lengths) if lengths > 0 else None


def activation_distance(left: ArrayLike, right: ArrayLike) -> float:
    """Return the mean L2 distance between the activations of one layer in two models.

    Parameters
    ----------
    left, right : array_like of shape (n, ...)
        Activations of the same examples, of the same width. Comparable only where both models
        started from the same initial arrays.

    Returns
    -------
    float
        0 or more, in the layer's own unit.

    Raises
    ------
    ValueError
        If the shapes differ or a value is not finite.
    """
    ours, theirs = _features(left, right)
    if ours.shape != theirs.shape:
        raise ValueError(f"activations {ours.shape} and {theirs.shape} differ in width")
    return float(np.mean(np.linalg.norm(ours - theirs, axis=1)))

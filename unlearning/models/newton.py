"""Certified removal from logistic regression: one Newton step, and a bound on what it leaves.

The objective is L(w) = sum_i log(1 + exp(-y_i w'x_i)) + (penalty n / 2) |w|^2 + noise'w, for each
class against the rest; |x_i| <= 1. After a Newton step v of the objective without the removed
examples, |grad L| is at most gamma |X| |v| |X v|, gamma = 1/4 for the logistic loss: by Taylor's
theorem the gradient left is (H(w') - H(w)) v for some w' between. The Gaussian noise hides a
gradient of that length.

References
----------
Guo, Goldstein, Hannun, van der Maaten, "Certified Data Removal from Machine Learning Models", ICML
2020 (arXiv 1911.03030). The step here uses the whole gradient without the removed examples, which
is the paper's where the model had converged, and takes what was left of it along where not.

Shapes: n examples, d features, C classes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unlearning.arrays import flat

__all__ = [
    "Terms",
    "add",
    "budget",
    "classify",
    "gradient",
    "lean_bound",
    "products",
    "removal_bound",
    "rows_of",
    "step",
    "stretch",
    "terms",
]

Floats = NDArray[np.float64]

_SLACK = 1e-9
_GAMMA = 0.25  # the second derivative of the logistic loss changes at most this fast


@dataclass(frozen=True)
class Terms:
    """What the examples contribute to the objective at one point.

    Parameters
    ----------
    gradient : array, shape (C, d)
        Sum of the loss gradients.
    hessian : array, shape (C, d, d)
        Sum of the loss Hessians.
    gram : array, shape (d, d)
        X'X, for the bound.
    counts : array of int64, shape (C,)
        Examples by class.
    """

    gradient: Floats
    hessian: Floats
    gram: Floats
    counts: NDArray[np.int64]


def rows_of(x: NDArray[np.floating]) -> Floats:
    """Return examples as rows with a constant 1, scaled to length at most 1: shape (n, d).

    The length of the widest row that features in [0, 1] allow divides all, and a row that is
    longer still is shortened: nothing depends on other examples.
    """
    rows = flat(x)
    rows = np.hstack([rows, np.ones((len(rows), 1))]) / math.sqrt(rows.shape[1] + 1)
    return np.asarray(rows / np.maximum(1.0, np.linalg.norm(rows, axis=1, keepdims=True)))


def terms(
    weights: Floats, rows: Floats, labels: NDArray[np.int64], *, matrices: bool = True
) -> Terms:
    """Return the sums over examples at ``weights``, shape (C, d); n may be 0.

    Without ``matrices`` those of shape (d, d) are empty.
    """
    num_classes, width = weights.shape
    signs = np.where(labels[:, None] == np.arange(num_classes), 1.0, -1.0)
    # The share of the gradient's full length: sigmoid(-y w'x), without overflow.
    pull = 0.5 * (1 - np.tanh(0.5 * signs * (rows @ weights.T)))
    gradient, counts = -(signs * pull).T @ rows, np.bincount(labels, minlength=num_classes)
    if not matrices:
        return Terms(gradient, np.zeros((num_classes, 0, 0)), np.zeros((0, 0)), counts)
    curved = np.zeros((num_classes, width, width))
    for index, curvature in enumerate((pull * (1 - pull)).T):
        curved[index] = (rows * curvature[:, None]).T @ rows
    return Terms(gradient, curved, rows.T @ rows, counts)


def products(rows: Floats, direction: Floats, weights: Floats | None) -> Floats:
    """Return what a matrix makes of one direction per class, shape (C, d), without forming it.

    Parameters
    ----------
    rows : array, shape (n, d)
        Examples.
    direction : array, shape (C, d)
        What to multiply by.
    weights : array, shape (C, d), or None
        The matrix is the Hessian of each class's losses here; None: X'X.
    """
    along = rows @ direction.T
    if weights is not None:
        along = along * (0.25 * (1 - np.tanh(0.5 * (rows @ weights.T)) ** 2))
    return np.asarray(along.T @ rows)


def stretch(rows: Floats) -> float:
    """Return the largest eigenvalue of X'X, by Lanczos iterations; 0 without examples.

    It is rounded up by a billionth: such iterations come from below.
    """
    if min(rows.shape) < 2:
        return float(np.sum(rows**2)) * (1 + _SLACK)
    from scipy.sparse.linalg import LinearOperator, eigsh  # not before it is needed

    operator = LinearOperator(
        (rows.shape[1],) * 2, matvec=lambda v: rows.T @ (rows @ v), dtype=np.float64
    )
    start = np.random.default_rng(0).normal(size=(rows.shape[1],))
    found = eigsh(operator, k=1, v0=start, return_eigenvectors=False)
    return float(found[0]) * (1 + _SLACK)


def add(left: Terms, right: Terms) -> Terms:
    """Return the sum of two parts."""
    return Terms(
        left.gradient + right.gradient,
        left.hessian + right.hessian,
        left.gram + right.gram,
        left.counts + right.counts,
    )


def gradient(weights: Floats, found: Terms, noise: Floats, penalty: float) -> Floats:
    """Return the gradient of the objective, shape (C, d)."""
    return np.asarray(found.gradient + penalty * found.counts.sum() * weights + noise)


def step(weights: Floats, found: Terms, noise: Floats, penalty: float) -> Floats:
    """Return the Newton step v of the objective, shape (C, d): the next model is ``weights + v``.

    Raises
    ------
    ValueError
        If the penalty is not positive, so that the Hessian may be singular, or no example is left.
    """
    number = int(found.counts.sum())
    if not penalty > 0 or not number:
        raise ValueError(f"penalty {penalty} and {number} examples; both must be positive")
    curved = found.hessian + penalty * number * np.eye(weights.shape[1])
    slope = gradient(weights, found, noise, penalty)
    return np.asarray(-np.linalg.solve(curved, slope[..., None])[..., 0])


def removal_bound(moved: Floats, gram: Floats) -> float:
    """Return the bound on the gradient left after a Newton step, over all classes together.

    Parameters
    ----------
    moved : array, shape (C, d)
        The step v.
    gram : array, shape (d, d)
        X'X of the remaining examples.
    """
    largest = max(0.0, float(np.linalg.eigvalsh(gram)[-1]))
    return lean_bound(moved, moved @ gram, largest, np.zeros(len(moved)))


def lean_bound(moved: Floats, product: Floats, largest: float, unsolved: Floats) -> float:
    """Return the same from products alone, for a step that was not solved to the end.

    Parameters
    ----------
    moved : array, shape (C, d)
        The step v.
    product : array, shape (C, d)
        X'X v.
    largest : float
        No less than the largest eigenvalue of X'X; the sum of those of the clients' parts will do.
    unsolved : array, shape (C,)
        Length of the step's residual: it is left of the gradient on top of the paper's bound.
    """
    lengths = np.linalg.norm(moved, axis=1)
    seen = np.sqrt(np.maximum(0.0, np.sum(moved * product, axis=1)))
    return float(np.linalg.norm(_GAMMA * math.sqrt(largest) * lengths * seen + unsolved))


def budget(sigma: float, epsilon: float, delta: float) -> float:
    """Return how much gradient may be left in all: sigma epsilon / c, delta = 1.5 exp(-c^2 / 2)."""
    return sigma * epsilon / math.sqrt(2 * math.log(1.5 / delta))


def classify(weights: Floats, counts: NDArray[np.int64], rows: Floats) -> Floats:
    """Return the classes' sigmoids, normalised to sum 1, shape (n, C).

    A class of which no example is left has probability 0; without any example all are equal.
    """
    if not counts.any():
        return np.full((len(rows), len(counts)), 1 / len(counts))
    scores = 0.5 * (1 + np.tanh(0.5 * rows @ weights.T)) * (counts > 0)
    scores = np.maximum(scores, np.finfo(np.float64).tiny * (counts > 0))
    return np.asarray(scores / scores.sum(1, keepdims=True))

"""Ridge regression from sums that can be taken apart again: exact forgetting of linear models.

References
----------
Cao, Yang, "Towards Making Systems Forget with Machine Unlearning", IEEE S&P 2015 (the summation
form); Quan, Wu, Montana, "Exact Federated Continual Unlearning for Ridge Heads on Frozen
Foundation Models", 2026 (arXiv 2603.12977).

Shapes: n examples, d features (the constant 1 among them), C classes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unlearning.arrays import flat

__all__ = [
    "Sums",
    "classify",
    "design",
    "factor",
    "inverse",
    "labelled",
    "solve",
    "sums",
    "total",
    "woodbury",
]

Floats = NDArray[np.float64]

_BARELY = 1e-8  # below this an update divides by next to nothing: refactorise instead


@dataclass(frozen=True)
class Sums:
    """All that ridge regression needs of some examples.

    Parameters
    ----------
    gram : array, shape (d, d)
        X'X.
    cross : array, shape (d, C)
        X'Y, the labels as rows of zeros with one 1.
    counts : array of int64, shape (C,)
        Examples by class.
    """

    gram: Floats
    cross: Floats
    counts: NDArray[np.int64]

    def __add__(self, other: Sums) -> Sums:
        return Sums(self.gram + other.gram, self.cross + other.cross, self.counts + other.counts)

    def __sub__(self, other: Sums) -> Sums:
        return Sums(self.gram - other.gram, self.cross - other.cross, self.counts - other.counts)


def design(x: NDArray[np.floating]) -> Floats:
    """Return examples of any shape as rows in float64, a constant 1 at the end of each: (n, d)."""
    rows = flat(x)
    return np.hstack([rows, np.ones((len(rows), 1))])


def sums(rows: Floats, labels: NDArray[np.int64], num_classes: int) -> Sums:
    """Return the sums over examples (rows as :func:`design` makes them; n may be 0)."""
    return Sums(rows.T @ rows, **labelled(rows, labels, num_classes))


def labelled(rows: Floats, labels: NDArray[np.int64], num_classes: int) -> dict[str, NDArray[Any]]:
    """Return what the sums over examples have of their labels: ``cross`` and ``counts``."""
    answers = np.eye(num_classes)[labels]
    return {"cross": rows.T @ answers, "counts": np.bincount(labels, minlength=num_classes)}


def total(parts: Iterable[Sums]) -> Sums:
    """Return the sum of at least one part, added in the order given."""
    first, *rest = parts
    for part in rest:
        first = first + part
    return first


def solve(statistics: Sums, penalty: float) -> Floats:
    """Return W = (X'X + penalty I)^-1 X'Y, shape (d, C), by Cholesky factorisation.

    Parameters
    ----------
    statistics : Sums
        Over all examples.
    penalty : float
        Of the squared length of each column of W (lambda); positive. It is added once, whatever
        the number of clients, and weighs on the constant too.
    """
    from scipy import linalg  # not before it is needed: a network's process never does

    return np.asarray(linalg.cho_solve(_factorised(statistics, penalty), statistics.cross))


def inverse(statistics: Sums, penalty: float) -> Floats:
    """Return (X'X + penalty I)^-1, shape (d, d)."""
    from scipy import linalg  # not before it is needed: a network's process never does

    return np.asarray(
        linalg.cho_solve(_factorised(statistics, penalty), np.eye(len(statistics.gram)))
    )


def factor(rows: Floats) -> Floats:
    """Return R, shape (min(n, d), d), with R'R = X'X.

    It tells no more of the examples than their Gram matrix does.
    """
    return np.asarray(np.linalg.qr(rows, mode="r"))


def woodbury(current: Floats, removed: Floats) -> Floats | None:
    """Return the inverse after examples were taken out, from the inverse before.

    Parameters
    ----------
    current : array, shape (d, d)
        (X'X + penalty I)^-1 with the examples.
    removed : array, shape (m, d)
        The examples, or their :func:`factor`.

    Returns
    -------
    array or None
        None where the small system is nearly singular, so that precision would be lost.
    """
    moved = removed @ current
    small = np.eye(len(removed)) - moved @ removed.T
    if float(np.linalg.eigvalsh(small).min(initial=1.0)) < _BARELY:
        return None
    after = moved.T @ np.linalg.solve(small, moved)
    after += current
    both = after + after.T
    both *= 0.5
    return np.asarray(both)


def classify(weights: Floats, counts: NDArray[np.int64], rows: Floats) -> Floats:
    """Return softmax probabilities, shape (n, C).

    A class of which no example is left has probability 0: its column is gone, as it is after
    retraining without the class. Without any example all classes are equally likely.
    """
    if not counts.any():
        return np.full((len(rows), len(counts)), 1 / len(counts))
    scores = np.where(counts > 0, rows @ weights, -np.inf)
    scores = np.exp(scores - scores.max(1, keepdims=True))
    return np.asarray(scores / scores.sum(1, keepdims=True))


def _factorised(statistics: Sums, penalty: float) -> tuple[Floats, bool]:
    if not penalty > 0:
        raise ValueError(f"penalty is {penalty}; it must be positive")
    matrix = statistics.gram + penalty * np.eye(len(statistics.gram))
    from scipy import linalg  # not before it is needed: a network's process never does

    lower, is_lower = linalg.cho_factor(matrix, lower=True)
    return np.asarray(lower), bool(is_lower)

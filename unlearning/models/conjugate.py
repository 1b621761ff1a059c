"""Conjugate gradients, a step at a time: each step needs one product that others compute.

It solves H v = s for positive definite H that nobody holds: clients send what their part of H makes
of a direction, and the parts add up. Several systems, one per row, are solved side by side.

References
----------
Hestenes, Stiefel, "Methods of Conjugate Gradients for Solving Linear Systems", Journal of Research
of the National Bureau of Standards 49(6), 1952.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Search", "advance", "begin"]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Search:
    """How far the search has come; all of shape (systems, d).

    Parameters
    ----------
    solution : array
        v so far.
    residual : array
        s - H v.
    direction : array
        Where to go next: the product with it is what :func:`advance` needs.
    """

    solution: Floats
    residual: Floats
    direction: Floats

    @property
    def left(self) -> Floats:
        """Length of what is unsolved, per system."""
        return np.asarray(np.linalg.norm(self.residual, axis=1))


def begin(target: Floats) -> Search:
    """Return a search for v with H v = ``target``, from v = 0."""
    return Search(np.zeros_like(target), target.copy(), target.copy())


def advance(search: Search, product: Floats) -> Search:
    """Return the search after one step; ``product`` is H times its direction, row by row.

    A system that is solved stays as it is.
    """
    before = np.sum(search.residual**2, axis=1, keepdims=True)
    curvature = np.sum(search.direction * product, axis=1, keepdims=True)
    length = np.divide(before, curvature, out=np.zeros_like(before), where=curvature > 0)
    residual = search.residual - length * product
    after = np.sum(residual**2, axis=1, keepdims=True)
    share = np.divide(after, before, out=np.zeros_like(before), where=before > 0)
    return Search(
        search.solution + length * search.direction,
        residual,
        residual + share * search.direction,
    )

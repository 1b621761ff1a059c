"""Products with an L-BFGS estimate of a Hessian, in compact form, on blocks of large models.

References
----------
Byrd, Nocedal, Schnabel, "Representations of quasi-Newton matrices and their use in limited memory
methods", Mathematical Programming 63, 1994.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from unlearning import arrays as named
from unlearning.arrays import Arrays

__all__ = ["coefficients", "gram", "linear"]

_BLOCK = 1 << 18  # values of each array that are looked at together, in float64
_FLAT = 1e-10  # below this cosine between s and y a pair says nothing of curvature
_SINGULAR = 1e-12  # relative size of singular values that count as zero

Matrix = NDArray[np.float64]


def gram(columns: Sequence[Arrays]) -> Matrix:
    """Return the inner products of the parameters of every pair of ``columns``, in float64."""
    total = np.zeros((len(columns), len(columns)))
    for _, _, block in _blocks(columns):
        total += block @ block.T
    return total


def linear(columns: Sequence[Arrays], factors: Sequence[float]) -> Arrays:
    """Return the parameters of a linear combination of ``columns``, dtypes of the first.

    Sums run in float64.
    """
    first = named.parameters(columns[0])
    out = {name: np.empty(array.size, array.dtype) for name, array in first.items()}
    weights = np.asarray(factors, dtype=np.float64)
    for name, begin, block in _blocks(columns):
        out[name][begin : begin + block.shape[1]] = weights @ block
    return {name: array.reshape(first[name].shape) for name, array in out.items()}


def coefficients(products: Matrix) -> Matrix | None:
    """Return the product of the Hessian estimate with a vector, as factors of known vectors.

    Parameters
    ----------
    products : array ``(2 m + 1, 2 m + 1)``
        Inner products of y_1 .. y_m, s_1 .. s_m and v, in this order: differences of gradients,
        the steps they belong to (oldest first), and the vector.

    Returns
    -------
    array ``(2 m + 1,)`` or None
        B v = sum of the factors times y_1 .. y_m, s_1 .. s_m, v, where B is the BFGS matrix that
        starts from sigma I, sigma = y_m s_m / s_m s_m. None if there are steps but none of them
        has positive curvature.

    Notes
    -----
    A pair whose step is zero says nothing and is left out; so is one without positive curvature.
    Without any step B is zero. Steps that depend on each other are solved for in the least-squares
    sense.
    """
    m = len(products) // 2
    factors = np.zeros(2 * m + 1)
    lengths = np.sqrt(np.diag(products))
    steps = [j for j in range(m) if lengths[m + j] > 0]
    if not steps:
        return factors
    used = [j for j in steps if products[m + j, j] > _FLAT * lengths[m + j] * lengths[j]]
    if not used:
        return None
    ys, ss = np.array(used), m + np.array(used)
    unit = 1 / lengths[ss]  # B does not change when s and y are scaled alike
    sy = products[np.ix_(ss, ys)] * np.outer(unit, unit)
    s_s = products[np.ix_(ss, ss)] * np.outer(unit, unit)
    sigma = sy[-1, -1]
    lower = np.tril(sy, -1)
    middle = np.block([[-np.diag(np.diag(sy)), lower.T], [lower, sigma * s_s]])
    right = np.concatenate([unit * products[ys, -1], sigma * unit * products[ss, -1]])
    solved = np.linalg.lstsq(middle, right, rcond=_SINGULAR)[0]
    factors[ys] = -unit * solved[: len(used)]
    factors[ss] = -sigma * unit * solved[len(used) :]
    factors[-1] = sigma
    return factors


def _blocks(columns: Sequence[Arrays]) -> Iterator[tuple[str, int, Matrix]]:
    """Yield (name, begin, values ``(len(columns), size)``) over all parameters."""
    for name in named.parameters(columns[0]):
        flat = [column[name].reshape(-1) for column in columns]
        for begin in range(0, flat[0].size, _BLOCK):
            parts = [array[begin : begin + _BLOCK] for array in flat]
            yield name, begin, np.stack(parts).astype(np.float64)

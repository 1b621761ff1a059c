"""Does the model still lean towards noise it was trained on? A test with a known null (M7).

The leaver trains on ``x + xi`` with its own Gaussian noise. For a model that never saw xi, the
projection of xi on any direction chosen without it is exactly standard normal: no shadow models.

References
----------
M. Pawelczyk, J. Z. Di, Y. Lu, G. Kamath, A. Sekhari, S. Neel: Machine Unlearning Fails to Remove
Data Poisoning Attacks. ICLR 2025. arXiv:2406.17216. (Gaussian poisoning and its score.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unlearning.evaluation.entry import Metric

__all__ = ["METRICS", "GaussianScore", "alignments", "detectable_effect", "gaussian_score"]

_NORMAL = NormalDist()

METRICS = (
    Metric(
        "M7",
        "gaussian-score",
        "Gaussian unlearning score z",
        "standard deviations",
        "0, give or take 1",
        "higher",
        "Pawelczyk et al. 2025, arXiv:2406.17216",
    ),
)


@dataclass(frozen=True)
class GaussianScore:
    """How strongly a model leans towards the planted noise.

    Parameters
    ----------
    z : float
        Standard normal under "never trained on it"; large: still remembered.
    p : float
        One-sided.
    n : int
        Examples behind it.
    detectable : float
        Smallest mean alignment that a test at 5 % finds with power 0.8.
    """

    z: float
    p: float
    n: int
    detectable: float


def alignments(gradients: ArrayLike, noise: ArrayLike, scale: float) -> NDArray[np.float64]:
    """Return ``I = <g, xi> / (scale ||g||)`` of every example.

    Parameters
    ----------
    gradients : array_like of shape (n, ...)
        Gradient of the loss with respect to the *clean* input: at the noisy one it depends on
        the noise, and the null no longer holds.
    noise : array_like of shape (n, ...)
        What was added to each input, drawn from ``N(0, scale^2)``; not clipped.
    scale : float
        Standard deviation of the noise.

    Returns
    -------
    ndarray of shape (m,)
        Standard normal for a model that never saw the noise; negative where it did. Examples
        whose gradient is 0 have no direction and are left out.

    Raises
    ------
    ValueError
        If shapes differ, a value is not finite, ``scale`` is not above 0 or every gradient is 0.
    """
    slopes, added = (np.asarray(values, dtype=np.float64) for values in (gradients, noise))
    if slopes.shape != added.shape or slopes.ndim < 2 or not slopes.size:
        raise ValueError(f"gradients {slopes.shape} and noise {added.shape}; need the same (n, d)")
    if not scale > 0 or not (np.isfinite(slopes).all() and np.isfinite(added).all()):
        raise ValueError(f"noise of scale {scale}: expected finite values and a scale above 0")
    slopes, added = slopes.reshape(len(slopes), -1), added.reshape(len(added), -1)
    lengths = np.linalg.norm(slopes, axis=1)
    some = lengths > 0
    if not some.any():
        raise ValueError("every gradient is 0; the model leans nowhere")
    inner = np.einsum("nd,nd->n", slopes[some], added[some])
    return np.asarray(inner / (scale * lengths[some]), dtype=np.float64)


def gaussian_score(total: float, n: int) -> GaussianScore:
    """Return ``z = -mean(I) sqrt(n)`` from the sum of ``n`` alignments (M7).

    Taking the sum lets clients report one number each.

    Raises
    ------
    ValueError
        If ``n`` is below 1 or the sum is not finite.
    """
    if n < 1 or not math.isfinite(total):
        raise ValueError(f"sum {total} over {n} examples; need a finite sum over one or more")
    z = -total / math.sqrt(n)
    return GaussianScore(z, _NORMAL.cdf(-z), n, detectable_effect(n))


def detectable_effect(n: int, power: float = 0.8, alpha: float = 0.05) -> float:
    """Return the smallest mean ``-I`` found with the given power: ``(z_{1-a} + z_pow)/sqrt(n)``.

    Raises
    ------
    ValueError
        If ``n`` is below 1 or a probability is not within (0, 1).
    """
    if n < 1 or not 0 < power < 1 or not 0 < alpha < 1:
        raise ValueError(f"n={n}, power={power}, alpha={alpha}; out of range")
    return (_NORMAL.inv_cdf(1 - alpha) + _NORMAL.inv_cdf(power)) / math.sqrt(n)

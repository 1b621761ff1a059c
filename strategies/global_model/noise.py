"""Gaussian noise on a model, and the refusal of noise that would leave nothing of it."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from unlearning import arrays as named
from unlearning.arrays import Arrays
from unlearning.errors import FederationError

__all__ = ["Normal", "check_drowning", "noise_length", "perturb"]

_BLOCK = 1 << 20  # values drawn at a time, so that a large array needs no large copy


def noise_length(arrays: Arrays, std: float) -> float:
    """Return the L2 length that noise on all parameters is expected to have, sigma sqrt(P)."""
    return std * float(np.sqrt(sum(array.size for array in named.parameters(arrays).values())))


def check_drowning(arrays: Arrays, std: float, *, remedy: str) -> None:
    """Refuse noise that is longer than the model itself.

    Parameters
    ----------
    arrays : Arrays
        The model.
    std : float
        Standard deviation on every parameter (sigma).
    remedy : str
        What the user can do, for the message.

    Raises
    ------
    FederationError
        If the noise is expected to be longer than the parameters, L2.
    """
    noise, model = noise_length(arrays, std), named.norm(arrays)
    if noise > model:
        raise FederationError(
            f"noise of standard deviation {std:.3g} has length {noise:.3g}, the model itself "
            f"{model:.3g}: nothing of it would be left; {remedy}, or set allow_drowning = true"
        )


class Normal(Protocol):
    """Whatever draws independent standard normal values, such as ``unlearning.entropy.Noise``."""

    def standard_normal(self, size: int, /) -> NDArray[np.float64]:
        """Return the next values, float64."""


def perturb(arrays: Arrays, std: float, generator: Normal) -> Arrays:
    """Return the model with independent Gaussian noise on every parameter.

    Parameters
    ----------
    arrays : Arrays
        The model; not changed.
    std : float
        Standard deviation (sigma); 0 returns the model as it is.
    generator : Normal
        Draws array by array, in the model's order. Noise that a certificate rests on must come
        from one that the server alone knows.

    Returns
    -------
    Arrays
        Same names, shapes and dtypes; sums are rounded once, from float64. Buffers are left as
        they are: noise could make a variance negative.
    """
    if not std:
        return arrays
    out: Arrays = {}
    for name, array in arrays.items():
        if named.is_buffer(name, array):
            out[name] = array
            continue
        noisy = array.flatten()
        for begin in range(0, noisy.size, _BLOCK):
            block = noisy[begin : begin + _BLOCK]
            block[:] = block.astype(np.float64) + std * generator.standard_normal(block.size)
        out[name] = noisy.reshape(array.shape)
    return out

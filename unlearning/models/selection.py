"""Which entries of a model: the smallest or largest by a rank, over the whole or array by array."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from unlearning import arrays as named
from unlearning.arrays import Array, Arrays

__all__ = ["kernels", "largest_of_each", "redrawn", "smallest", "weights"]


def weights(arrays: Mapping[str, Array]) -> Arrays:
    """Return the parameters that a rank may select: no buffers, frozen entries or norm scales.

    A vector called ``weight`` is the scale of a normalisation: reset near 0 it silences its
    channel.
    """
    return {
        name: array
        for name, array in named.parameters(arrays).items()
        if array.ndim > 1 or name.rpartition(".")[2] != "weight"
    }


def kernels(arrays: Mapping[str, Array]) -> Arrays:
    """Return the trained matrices and kernels alone: no biases, no normalisation."""
    return {name: a for name, a in named.parameters(arrays).items() if a.ndim > 1}


def smallest(ranks: Mapping[str, Array], share: float) -> Arrays:
    """Return masks of the ``floor(share * P)`` entries with the smallest rank over all arrays.

    Ties go to the earlier array and the smaller index.

    >>> smallest({"a": np.array([3.0, 1.0]), "b": np.array([2.0, 9.0])}, 0.5)["a"].tolist()
    [False, True]
    """
    every = np.concatenate([np.asarray(rank, np.float64).ravel() for rank in ranks.values()])
    count = int(np.floor(share * every.size + 1e-9))
    chosen = np.zeros(every.size, dtype=bool)
    chosen[np.argsort(every, kind="stable")[:count]] = True
    found, start = {}, 0
    for name, rank in ranks.items():
        found[name] = chosen[start : start + rank.size].reshape(rank.shape)
        start += rank.size
    return found


def largest_of_each(ranks: Mapping[str, Array], share: float) -> Arrays:
    """Return, array by array, masks of the ``floor(share * size)`` entries of largest rank.

    An entry of rank 0 is never taken; ties go to the smaller index.

    >>> largest_of_each({"a": np.array([3.0, 1.0, 3.0, 0.0])}, 0.5)["a"].tolist()
    [True, False, True, False]
    """
    found = {}
    for name, rank in ranks.items():
        flat = np.asarray(rank, np.float64).ravel()
        count = int(np.floor(share * flat.size + 1e-9))
        chosen = np.zeros(flat.size, dtype=bool)
        chosen[np.argsort(-flat, kind="stable")[:count]] = True
        found[name] = (chosen & (flat > 0)).reshape(rank.shape)
    return found


def redrawn(array: Array, address: list[int]) -> Array:
    """Return the values of an untrained array in another order, drawn from ``address``.

    Where a layer draws its values one by one from one law, this is a fresh draw of the same law.
    """
    flat: Array = np.random.default_rng(address).permutation(array.ravel())
    return flat.reshape(array.shape)

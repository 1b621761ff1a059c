"""Which models face which when a metric over sets of models is shown its controls.

A metric over K models a side yields one value per pair of sides. Its spread over runs comes from
drawing the sides anew from larger pools of models: split at random, two halves of the retrained
models are a null run. Draws from one pool overlap, so intervals over them are somewhat too
narrow; more models, not more draws, is what narrows them honestly.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["Sides", "null_sides", "pairs_of_sides"]

Sides = tuple[NDArray[np.intp], NDArray[np.intp]]


def null_sides(pool: int, models: int, draws: int, seed: int = 0) -> list[Sides]:
    """Return random disjoint sides of one pool of models, as row numbers.

    Parameters
    ----------
    pool : int
        Retrained models there are, at least twice ``models``.
    models : int
        Models per side, 1 or more.
    draws : int
        Pairs of sides.
    seed : int
        Of the draws.

    Raises
    ------
    ValueError
        If the pool is too small for two sides.
    """
    if models < 1 or pool < 2 * models:
        raise ValueError(f"{pool} models make no two sides of {models}")
    generator = np.random.default_rng(seed)
    orders = [generator.permutation(pool) for _ in range(draws)]
    return [(order[:models], order[models : 2 * models]) for order in orders]


def pairs_of_sides(left: int, right: int, models: int, draws: int, seed: int = 0) -> list[Sides]:
    """Return random sides from two pools of models, as row numbers of each.

    Parameters
    ----------
    left, right : int
        Models in each pool (original and retrained, or a dose and retrained), at least ``models``.
    models, draws, seed : int
        As :func:`null_sides`.

    Raises
    ------
    ValueError
        If a pool is too small.
    """
    if models < 1 or min(left, right) < models:
        raise ValueError(f"pools of {left} and {right} models make no sides of {models}")
    generator = np.random.default_rng(seed)
    return [
        (generator.permutation(left)[:models], generator.permutation(right)[:models])
        for _ in range(draws)
    ]

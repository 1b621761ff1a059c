"""Markers: evidence planted in one client's data before learning, to see whether it is forgotten.

A *backdoor* is a patch of one value with a label of the attacker's choice; a model that has
forgotten it answers as if the patch were not there. A *label flip* is data with a wrong label; a
model that has forgotten it finds that label as unlikely as a model that never saw it. *Noise* is
Gaussian noise added to the inputs, labels left as they are; the loss of a model that has forgotten
it has a gradient that knows nothing of that noise. A *spurious feature* is the patch on examples
of its own label, labels left as they are: a shortcut that all data seem to bear out; a model that
has forgotten the feature does not take it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from experiments.config.schema import MarkerConfig
from unlearning.errors import ConfigError

__all__ = ["Marked", "place", "plant", "trigger"]

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]


class Marked(NamedTuple):
    """Data with a marker, and the sorted positions of the examples that carry it."""

    x: Floats
    y: Integers
    positions: Integers


def plant(
    x: Floats, y: Integers, marker: MarkerConfig, num_classes: int, seed: int | Sequence[int]
) -> Marked:
    """Return a copy of a client's data with the marker planted.

    Parameters
    ----------
    x : array of float32, shape (n, C, H, W) or (n, d)
        Examples.
    y : array of int64, shape (n,)
        Labels.
    marker : MarkerConfig
        What to plant. A backdoor goes to a ``fraction`` of the examples of other labels, a spurious
        feature to one of those of its label, a label flip or noise to one of all.
    num_classes : int
        Number of labels.
    seed : int or sequence of int
        Address of the choice of examples and of the noise.

    Raises
    ------
    ConfigError
        If the label does not exist or the trigger is wider than an example.
    """
    candidates = np.arange(len(y))
    patched = marker.kind in ("backdoor", "spurious")
    if patched:
        if marker.label >= num_classes:
            raise ConfigError(
                f"marker.label = {marker.label} does not exist; the labels are 0 to "
                f"{num_classes - 1}"
            )
        candidates = candidates[(y == marker.label) == (marker.kind == "spurious")]
    count = round(marker.fraction * len(candidates))
    generator = np.random.default_rng(seed)
    chosen = generator.permutation(candidates)[:count]
    positions = np.sort(chosen).astype(np.int64)
    new_x, new_y = x.copy(), y.copy()
    if patched:
        new_x[positions], new_y[positions] = trigger(x[positions], marker), marker.label
    elif marker.kind == "noise":
        noise = generator.standard_normal(x[positions].shape, dtype=np.float32)
        new_x[positions] += np.float32(marker.sigma) * noise
    else:
        new_y[positions] = (y[positions] + 1) % num_classes
    return Marked(new_x, new_y, positions)


def place(shape: Sequence[int], marker: MarkerConfig) -> tuple[int, ...]:
    """Return the positions of the patch in an example, counted over all its axes."""
    blank = np.zeros((1, *shape), np.float32)
    found = trigger(blank, marker.model_copy(update={"value": 1.0}))
    return tuple(map(int, np.flatnonzero(found)))


def trigger(x: Floats, marker: MarkerConfig) -> Floats:
    """Return a copy of the examples with the patch of a backdoor or of a spurious feature.

    The patch is the lower right corner of an image, ``size`` pixels wide and high, in every
    channel; in a table the last ``size`` columns.

    Raises
    ------
    ConfigError
        If the patch is wider than an example.
    """
    if marker.size > min(x.shape[2:] or x.shape[1:]):
        raise ConfigError(
            f"marker.size = {marker.size} is wider than an example of shape {x.shape[1:]}; lower it"
        )
    out = x.copy()
    corner = slice(-marker.size, None)
    out[(..., corner, corner) if x.ndim == 4 else (..., corner)] = marker.value
    return out

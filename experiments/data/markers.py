"""Markers: evidence planted in one client's data before learning, to see whether it is forgotten.

A *backdoor* is a patch of pixels with a label of the attacker's choice; a model that has forgotten
it answers as if the patch were not there. PGA's notebook puts a solid patch into a corner and leads
to one label; FedOSD's program takes a random pattern (there 3 x 3) and the label half of all labels
further, ``(y + C / 2) mod C`` (``shift``). Where a patch lies on pixels that are 0 in all other
images, the weights behind them are moved by nobody else, and every method that looks for unmoved
weights is flattered: ``at = "live"`` puts it where the training examples differ most.

A *label flip* is data with a wrong label; a model that has forgotten it finds that label as
unlikely as a model that never saw it. *Noise* is Gaussian noise added to the inputs, labels left as
they are; the loss of a model that has forgotten it has a gradient that knows nothing of that noise.
A *spurious feature* is the patch on examples of its own label, labels left as they are: a shortcut
that all data seem to bear out; a model that has forgotten the feature does not take it.

A *canary* is a sequence of random tokens that takes the place of a text's; a model that has
forgotten it finds its secret end, given its beginning, as likely as any other.

References
----------
Carlini, Liu, Erlingsson, Kos, Song, "The Secret Sharer: Evaluating and Testing Unintended
Memorization in Neural Networks", USENIX Security 2019 (arXiv 1802.08232), for canaries. Here every
canary has a beginning of its own, so that several can be told apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from experiments.config.schema import MarkerConfig
from unlearning.errors import ConfigError

__all__ = [
    "Canaries",
    "Marked",
    "canaries",
    "leads_to",
    "misled",
    "place",
    "placed",
    "plant",
    "trigger",
]

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]

_PATTERN = 0  # seed of the random pattern
_SECRETS = 1  # last part of the address of what canaries say


class Canaries(NamedTuple):
    """Planted sequences: beginnings and secret ends, and the tokens that both are drawn from.

    Parameters
    ----------
    beginnings, secrets : array of int64, shape (canaries, length)
        What is given, and what follows.
    tokens : array of int64, shape (t,)
        Sorted; every place of a secret is one of them, each as likely.
    """

    beginnings: Integers
    secrets: Integers
    tokens: Integers


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
        What to plant. A backdoor goes to a ``fraction`` of the examples whose label it changes, a
        spurious feature to one of those of its label, a label flip, noise or canaries to one of
        all; an example bears one canary, where it begins.
    num_classes : int
        Number of labels.
    seed : int or sequence of int
        Address of the choice of examples and of the noise.

    Raises
    ------
    ConfigError
        If the label does not exist or the trigger is wider than an example.
    """
    address = [seed] if isinstance(seed, int) else [*seed]
    candidates = np.arange(len(y))
    patched = marker.kind in ("backdoor", "spurious")
    if patched:
        _check_label(marker, num_classes)
        candidates = candidates[misled(y, marker, num_classes) == (marker.kind == "backdoor")]
    count = round(marker.fraction * len(candidates))
    generator = np.random.default_rng(seed)
    chosen = generator.permutation(candidates)[:count]
    positions = np.sort(chosen).astype(np.int64)
    new_x, new_y = x.copy(), y.copy()
    if patched:
        new_x[positions] = trigger(x[positions], marker)
        new_y[positions] = leads_to(y[positions], marker, num_classes)
    elif marker.kind == "noise":
        noise = generator.standard_normal(x[positions].shape, dtype=np.float32)
        new_x[positions] += np.float32(marker.sigma) * noise
    elif marker.kind == "canary":
        planted = canaries(x, y, marker, address)
        rows = np.concatenate([x, y[:, None]], axis=1)
        said = np.concatenate([planted.beginnings, planted.secrets], axis=1)
        rows[positions, : said.shape[1]] = said[np.arange(count) % len(said)]
        new_x, new_y = rows[:, :-1], rows[:, -1].astype(np.int64)
    else:
        new_y[positions] = (y[positions] + 1) % num_classes
    return Marked(new_x, new_y, positions)


def place(shape: Sequence[int], marker: MarkerConfig) -> tuple[int, ...]:
    """Return the positions of the patch in an example, counted over all its axes."""
    blank = np.zeros((1, *shape), np.float32)
    found = trigger(blank, marker.model_copy(update={"value": 1.0, "pattern": "solid"}))
    return tuple(map(int, np.flatnonzero(found)))


def leads_to(y: Integers, marker: MarkerConfig, num_classes: int) -> Integers:
    """Return the label that a backdoor leads examples of labels ``y`` to, one for each."""
    if marker.shift:
        return (y + marker.shift) % num_classes
    return np.full_like(y, marker.label)


def misled(y: Integers, marker: MarkerConfig, num_classes: int) -> NDArray[np.bool_]:
    """Return which examples a backdoor leads to another label than their own."""
    changed: NDArray[np.bool_] = leads_to(y, marker, num_classes) != y
    return changed


def placed(marker: MarkerConfig, x: Floats) -> MarkerConfig:
    """Return the marker with the place of its patch as numbers.

    Parameters
    ----------
    marker : MarkerConfig
        ``live`` becomes the window in which the variances of ``x`` add up to most.
    x : array of float32, shape (n, C, H, W) or (n, d)
        Training examples.

    Raises
    ------
    ConfigError
        If the patch does not lie within an example.
    """
    if marker.kind not in ("backdoor", "spurious"):
        return marker
    sides = x.shape[2:] if x.ndim == 4 else x.shape[1:]
    if marker.size > min(sides):
        raise ConfigError(
            f"marker.size = {marker.size} is wider than an example of shape {x.shape[1:]}; lower it"
        )
    last = tuple(side - marker.size for side in sides)
    if marker.at == "corner":
        at = last
    elif marker.at == "live":
        spread = x.var(axis=0, dtype=np.float64)
        spread = spread.sum(axis=0) if x.ndim == 4 else spread
        windows = np.lib.stride_tricks.sliding_window_view(spread, (marker.size,) * len(sides))
        sums = windows.sum(axis=tuple(range(len(sides), 2 * len(sides))))
        at = tuple(int(i) for i in np.unravel_index(int(sums.argmax()), sums.shape))
    else:
        at = tuple(marker.at)
    if len(at) != len(sides) or any(here > end for here, end in zip(at, last, strict=True)):
        raise ConfigError(
            f"marker.at = {list(at)} with marker.size = {marker.size} does not lie within an "
            f"example of shape {x.shape[1:]}; give {' and '.join(f'0 to {end}' for end in last)}"
        )
    return marker.model_copy(update={"at": at})


def canaries(x: Floats, y: Integers, marker: MarkerConfig, seed: Sequence[int]) -> Canaries:
    """Return the canaries that :func:`plant` puts into a client's data at the same address.

    Raises
    ------
    ConfigError
        If a canary is longer than a window.
    """
    if (whole := 2 * marker.length) > x.shape[1] + 1:
        raise ConfigError(
            f"marker.length = {marker.length}: a canary of {whole} characters does not fit a "
            f"window of {x.shape[1]} and one; lower it or raise data.window"
        )
    tokens = np.unique(np.concatenate([x.ravel().astype(np.int64), y]))
    generator = np.random.default_rng([*seed, _SECRETS])
    shape = (2, marker.canaries, marker.length)
    beginnings, secrets = tokens[generator.integers(len(tokens), size=shape)]
    return Canaries(beginnings, secrets, tokens)


def trigger(x: Floats, marker: MarkerConfig) -> Floats:
    """Return a copy of the examples with the patch of a backdoor or of a spurious feature.

    The patch is ``size`` pixels wide and high, in every channel; in a table ``size`` columns. Of a
    random pattern every pixel is 0 or the value, the same in all channels and all runs.

    Raises
    ------
    ConfigError
        If the patch does not lie within an example.
    """
    at = placed(marker, x).at if isinstance(marker.at, str) else marker.at
    out = x.copy()
    windows = tuple(slice(int(start), int(start) + marker.size) for start in at)
    where: tuple[Any, ...] = (..., *windows)
    out[where] = _patch(marker, len(windows))
    return out


def _patch(marker: MarkerConfig, axes: int) -> Floats:
    shape = (marker.size,) * axes
    lit = np.ones(shape, bool)
    if marker.pattern == "random":
        lit = np.random.default_rng(_PATTERN).random(shape) < 0.5
        lit.flat[0] = True  # a pattern of nothing would be none
    return np.where(lit, np.float32(marker.value), np.float32(0))


def _check_label(marker: MarkerConfig, num_classes: int) -> None:
    for key, value in (("label", marker.label), ("shift", marker.shift)):
        if value >= num_classes:
            raise ConfigError(
                f"marker.{key} = {value} does not exist; the labels are 0 to {num_classes - 1}"
            )

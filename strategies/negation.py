"""Negation of layers, never back: what NoT does to a network and to the trunk of several tasks."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from strategies.base import UnlearningStrategy
from strategies.keeping import hand_over, handed_over
from unlearning import arrays as named
from unlearning.arrays import Array, Arrays
from unlearning.records.history import History

__all__ = ["layers_behind", "negate", "negate_once"]

log = logging.getLogger("fedunlearn")

_NEGATED = "negated/"  # prefix of the history's notes on what stands negated


def negate(arrays: Arrays, names: Collection[str]) -> Arrays:
    """Return the model with the arrays in ``names`` times -1, all others as they are.

    Raises
    ------
    ValueError
        If a name is none of a parameter: statistics and counters have no negative.
    """
    if odd := sorted(set(names) - named.parameters(arrays).keys()):
        raise ValueError(f"array {odd[0]!r} is no parameter of the model")
    return {name: np.negative(a) if name in names else a for name, a in arrays.items()}


def layers_behind(
    arrays: Mapping[str, Array], first: Collection[str], *, include_bias: bool = False
) -> list[tuple[str, ...]]:
    """Return the arrays of every further layer with a matrix or kernel, layer by layer."""
    weights = [n for n in named.parameters(arrays) if arrays[n].ndim > 1 and n not in first]
    found: list[tuple[str, ...]] = []
    for name in (n for n in weights if n.endswith("weight")):
        bias = f"{name.removesuffix('weight')}bias"
        found.append((name, bias) if include_bias and bias in arrays else (name,))
    return found


def negate_once(
    strategy: UnlearningStrategy,
    history: History,
    arrays: Arrays,
    choices: Sequence[Collection[str]],
) -> Arrays:
    """Return a model of which one of several layers is negated, none of them back.

    Parameters
    ----------
    strategy : UnlearningStrategy
        The one that serves a request; the history that follows notes what stands negated.
    history : History
        Says what stands negated from earlier requests.
    arrays : Arrays
        The current model.
    choices : sequence of collection of str
        Layers, each by the names of its arrays, the best one first.
    """
    turned = handed_over(history, _NEGATED)
    for names in choices:
        if all(np.array_equal(turned.get(name, ()), _print(arrays[name])) for name in names):
            strategy.settled = (
                f"{', '.join(names)} stands negated and nothing was learned since: that one "
                "negation answers this request, too"
            )
            log.info("%s", strategy.settled)
            return arrays
    chosen = next((names for names in choices if not turned.keys() & set(names)), choices[0])
    if again := sorted(turned.keys() & set(chosen)):
        log.warning(
            "%s stood negated since an earlier request and is turned again after only the rounds "
            "learned since; this may bring back some of what that request took out",
            ", ".join(again),
        )
    after = negate(arrays, chosen)
    standing = {name: turned[name] for name in turned if name not in again}
    standing |= {name: _print(after[name]) for name in chosen}
    hand_over(strategy, history, _NEGATED, standing)
    return after


def _print(array: Array) -> Array:
    """Return a fingerprint of an array, as an array."""
    return np.frombuffer(bytes.fromhex(named.digest({"": array})), np.uint8)

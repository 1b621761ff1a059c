"""Options that are shares of what a config says, and the ranges in which they may be searched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from strategies.federation import Federation
from strategies.fitness import in_range
from unlearning.errors import ConfigError
from unlearning.protocol import Instruction

__all__ = ["Span", "check_rounds", "faster", "rounds_of", "step_rate"]


@dataclass(frozen=True)
class Span:
    """Where ``fedunlearn tune`` looks for an option; declared in a strategy's ``tunable``.

    Parameters
    ----------
    low, high : float
        Both ends belong to it.
    log : bool
        Whether to draw evenly in the logarithm, as for rates.
    whole : bool
        Whether only whole numbers make sense.
    """

    low: float
    high: float
    log: bool = False
    whole: bool = False


def check_rounds(name: str, value: float) -> None:
    """Raise ConfigError unless a number of rounds is a share below 1 or a whole number from 0."""
    in_range(name, value, 0)
    if value > 1 and value != int(value):
        raise ConfigError(
            f"option {name!r} is {value!r}; give a whole number of rounds, or a share below 1"
        )


def rounds_of(value: float, rounds: int) -> int:
    """Return how many rounds a number stands for.

    Parameters
    ----------
    value : float
        From 1: so many rounds. Above 0 and below 1: that share of ``rounds``, at least one. 0: 0.
    rounds : int
        What a share is a share of.
    """
    if value >= 1 or value <= 0:
        return int(value)
    return max(1, round(value * rounds))


def step_rate(rate: float, factor: float, federation: Federation) -> float:
    """Return a step size: ``rate``, or where that is 0, ``factor`` times that of training."""
    return rate or factor * float(federation.train.get("learning_rate", 1.0))


def faster(
    asked: Mapping[int, Instruction], factor: float, federation: Federation
) -> dict[int, Instruction]:
    """Return the instructions with ``factor`` times the learning rate of training."""
    if factor == 1 or "learning_rate" not in federation.train:
        return dict(asked)
    rate = {"learning_rate": factor * float(federation.train["learning_rate"])}
    return {
        client: replace(found, settings={**rate, **found.settings})
        for client, found in asked.items()
    }

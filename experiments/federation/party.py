"""What a strategy leaves at one seed: a party, which has a model, or a failure, which has none."""

from __future__ import annotations

import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from experiments.runs.details import Point
from unlearning.arrays import Arrays, digest
from unlearning.cost import Cost
from unlearning.errors import FedUnlearnError
from unlearning.evaluation.scorecard import Outputs
from unlearning.evaluation.tally import Tally

__all__ = ["Failure", "Party", "in_words", "without_arrays"]


@dataclass(frozen=True)
class Party:
    """One row in the making: a strategy's model at one seed, and what led to it.

    Parameters
    ----------
    strategy : str
        Alias, or ``original``.
    seed : int
        Of the federation.
    guarantee : str
        Of the strategy; ``none`` for the original.
    arrays : Arrays
        The final model.
    outputs : Outputs
        What it says about every set.
    costs : mapping of str to Cost
        By phase.
    history_bytes : int or None
        Bytes of the history that the strategy read.
    scope : str
        Of the request.
    timeline : sequence of Point
        Measurements along the way.
    tally : Tally or None
        Right answers per remaining client and class.
    model_digest : str
        Of the model, where its arrays are kept no longer.
    """

    strategy: str
    seed: int
    guarantee: str
    arrays: Arrays
    outputs: Outputs
    costs: Mapping[str, Cost]
    history_bytes: int | None
    scope: str
    timeline: Sequence[Point] = ()
    tally: Tally | None = None
    model_digest: str = ""

    @property
    def digest(self) -> str:
        """The model's digest."""
        return self.model_digest or digest(self.arrays)


@dataclass(frozen=True)
class Failure:
    """A strategy without an answer at one seed.

    Parameters
    ----------
    name : str
        As it was asked for: alias or ``module:Class``.
    strategy : str
        Alias.
    seed : int
        Of the federation.
    guarantee, scope : str
        Of the strategy and of the request.
    reason : str
        Why, on one line.
    """

    name: str
    strategy: str
    seed: int
    guarantee: str
    scope: str
    reason: str


def in_words(error: BaseException) -> str:
    """Return on one line why something failed.

    An error that is not written for users bears its kind and the place it comes from: it is the
    author of a strategy who reads it.
    """
    text = " ".join(str(error).split())
    if isinstance(error, FedUnlearnError):
        return text
    said = f"{type(error).__name__}: {text}".rstrip(": ")
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return said
    last = frames[-1]
    return f"{said} ({Path(last.filename).name}, line {last.lineno}, in {last.name})"


def without_arrays(party: Party) -> Party:
    """Return a party that names its model by the digest alone."""
    return replace(party, arrays={}, model_digest=party.digest)

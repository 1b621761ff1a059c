"""Every strategy with every model it works on, and small federations that have learned it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from experiments.models import networks as models
from strategies import registry
from strategies.base import EVERY_MODEL, UnlearningStrategy
from strategies.federation import LAST_LOCAL
from strategies.local_model.ewc_ascent import EwcAscent
from strategies.local_model.subspace import Subspace
from strategies.structure.class_pruning import ClassPruning
from strategies.structure.dampening import Dampening
from strategies.structure.parameter_estimation import ParameterEstimation
from strategies.structure.pruning_client import PruningClient
from tests.support.structure import toy_with
from tests.support.toy import TRAIN, DeepToyModel, ToyFederation, ToyModel
from unlearning.arrays import Arrays
from unlearning.protocol import Scalar

__all__ = [
    "BRIEF",
    "SETTINGS",
    "Learned",
    "everyone",
    "founded",
    "learned_once",
    "made",
    "network_for",
]

Learned = tuple[ToyFederation, Arrays]


def everyone() -> Iterator[object]:
    """Yield every strategy with every model it works on; None: a network."""
    for alias, cls in registry.strategies().items():
        network = cls.models is None or cls.models == EVERY_MODEL
        for model in [None] if network else sorted(cls.models or ()):
            yield pytest.param(cls, model, id=alias if network else f"{alias}-{model}")


# What selects something on a toy, where nobody moves a weight twice as far as all do on average
# and a twentieth of the weights is none; and no longer ascent than it takes to set its penalty.
SETTINGS: dict[type[UnlearningStrategy], dict[str, float]] = {
    Dampening: {"threshold": 0.95},
    EwcAscent: {"ascent_steps": 8},
    PruningClient: {"least": 0.34, "most": 0.5},
}


# One pass over the data: as much as any check of all strategies needs.
BRIEF: dict[str, Scalar] = {**TRAIN, "local_epochs": 1}


def made(cls: type[UnlearningStrategy]) -> UnlearningStrategy:
    """Return the strategy with its defaults, but fewer rounds."""
    known = registry.options(cls).items()
    few = {name: 2 for name, n in known if name.endswith("_rounds") and n > 2}
    return cls(**few, **SETTINGS.get(cls, {}))


def founded(home: Path, cls: type[UnlearningStrategy], model: str | None) -> ToyFederation:
    """Return a toy federation that keeps what a strategy needs and has learned nothing yet."""
    if model is None:
        toy = ToyFederation(home, network=network_for(cls), **_kept(cls))  # type: ignore[arg-type]
        toy.federation.train = BRIEF
        return toy
    found = models.array_model(model, (3,), 3, seed=0)
    assert found is not None
    return toy_with(home, found)


def _kept(cls: type[UnlearningStrategy]) -> dict[str, object]:
    return {"remember": LAST_LOCAL in cls.needs, "keepsakes": made(cls).keepsakes()}


def learned_once(
    root: Path,
    recovery_rounds: int,
    *,
    rounds: int = 3,
    prepare: Callable[[ToyFederation], None] = lambda toy: None,
) -> Callable[[type[UnlearningStrategy], str | None], Learned]:
    """Return a function that gives a federation that has learned, and its model.

    Strategies for which the same is founded share it: it is there to be branched from. ``prepare``
    changes what clients hold before they learn.
    """
    there: dict[str, Learned] = {}

    def learned(cls: type[UnlearningStrategy], model: str | None) -> Learned:
        key = f"{network_for(cls).__name__} {_kept(cls)}" if model is None else model
        if key not in there:
            toy = founded(root / str(len(there)), cls, model)
            toy.federation.recovery_rounds = recovery_rounds
            prepare(toy)
            there[key] = toy, toy.run(UnlearningStrategy(), rounds=rounds)
        return there[key]

    return learned


def network_for(cls: type[UnlearningStrategy]) -> type[ToyModel]:
    """Return a network on which a strategy can do its work."""
    return DeepToyModel if cls in (ClassPruning, ParameterEstimation, Subspace) else ToyModel

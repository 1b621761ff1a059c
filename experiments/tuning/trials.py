"""Trials of a study: many settings of one strategy on the same learned federations.

What is tuned on must not be what is reported: :func:`elsewhere` moves a config to other seeds and
to another forget set.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from experiments.config.loading import Config
from experiments.config.registry import make
from experiments.federation.conduct import Conductor
from experiments.federation.participants import in_process, is_stackable
from experiments.federation.party import Failure, Party
from experiments.federation.quiet import quiet
from experiments.federation.task import Scenario, task
from experiments.runs.results import ORIGINAL, RETRAIN
from experiments.tuning.controls import Watched
from unlearning.cost import Cost
from unlearning.errors import ConfigError
from unlearning.evaluation.scorecard import score
from unlearning.records.ledger import Ledger
from unlearning.request import Scope

__all__ = ["MEASURES", "Measured", "Try", "elsewhere", "measure"]

MEASURES = ("retain_accuracy", "forget_accuracy", "test_accuracy", "backdoor_success")

_SEED_STEP = 1000  # from the reported seed to the first that is tuned on


@dataclass(frozen=True)
class Try:
    """One setting of one strategy.

    Parameters
    ----------
    name : str
        Of the try; unique, without a colon.
    strategy : str
        Alias or ``module:Class``.
    options : mapping
        Of the strategy, beside those of the config.
    """

    name: str
    strategy: str
    options: Mapping[str, Any]


@dataclass(frozen=True)
class Measured:
    """What a try came to; means over seeds.

    Parameters
    ----------
    distance : float
        Mean over :data:`MEASURES` of the absolute difference to retraining, [0, 1].
    cost : float
        Examples processed, as a share of what retraining processed, recovery included.
    scores : mapping of str to float
        The measures themselves.
    edited : float
        Share of the weights that differ once the strategy has prepared, before any round.
    rounds : float
        Rounds of unlearning.
    failed : str
        Why there is no answer, or empty.
    """

    distance: float
    cost: float
    scores: Mapping[str, float]
    edited: float = 0.0
    rounds: float = 0.0
    failed: str = ""


def elsewhere(config: Config, seeds: int) -> tuple[Config, tuple[int, ...]]:
    """Return the config with another forget set, and seeds that are not its own.

    Clients move on by one, and the marker with them; of a class it is the next one.

    Raises
    ------
    ConfigError
        If a request names samples or tasks by hand: nobody can tell what would stand for them.
    """
    raw = config.to_dict()
    clients = config.data.clients
    if raw.get("marker"):
        raw["marker"]["client"] = _next(raw["marker"]["client"], clients)
    for request in raw.get("requests", ()):
        if request.get("tasks") or (request.get("samples") and request["samples"] != "marked"):
            raise ConfigError(
                "tune moves a request to another forget set, and cannot do so for samples or tasks "
                "named one by one; name clients, classes, or samples = 'marked'"
            )
        if request.get("clients"):
            request["clients"] = [_next(client, clients) for client in request["clients"]]
        if request.get("classes"):
            label = request["classes"][0]
            request["classes"] = [label - 1 if label else label + 1]
    own = range(config.seed + _SEED_STEP, config.seed + _SEED_STEP + seeds)
    return Config.model_validate(raw), tuple(own)


def _next(client: int, clients: int | None) -> int:
    return (client + 1) % clients if clients else client + 1


def measure(config: Config, seeds: Sequence[int], tries: Sequence[Try]) -> dict[str, Measured]:
    """Return what every try comes to, all on the same federations, in this process.

    Raises
    ------
    FedUnlearnError
        If the config cannot work; a try that fails is measured as failed.
    """
    found: dict[str, list[Measured]] = {}
    for seed in seeds:
        for name, measured in _at_seed(config.model_copy(update={"seed": seed}), tries).items():
            found.setdefault(name, []).append(measured)
    return {name: _mean(parts) for name, parts in found.items()}


def _at_seed(config: Config, tries: Iterable[Try]) -> dict[str, Measured]:
    made = task(Scenario.of(config))
    for request in made.requests(config):
        if request.scope is Scope.TASK:
            raise ConfigError("tune works on requests for clients, samples and classes")
    named = {
        one.name: Watched(make(one.strategy, {**config.options_for(one.strategy), **one.options}))
        for one in tries
    }
    chosen = {RETRAIN: make(RETRAIN, {})} | {n: watched.strategy for n, watched in named.items()}
    grid = in_process("stacked" if is_stackable(config, made) else "local", len(made.clients))
    with quiet("flwr"), tempfile.TemporaryDirectory() as place:
        conductor = Conductor(
            config, made, Path(place), Ledger(), lambda tick: None, lambda: False, glances=False
        )
        outcomes = list(conductor.compare(grid, chosen))
    parties = {one.strategy: one for one in outcomes if isinstance(one, Party)}
    if RETRAIN not in parties:
        why = next(one.reason for one in outcomes if isinstance(one, Failure))
        raise ConfigError(f"retraining failed, and nothing can be held against it: {why}")
    failed = {one.strategy: one.reason for one in outcomes if isinstance(one, Failure)}
    base = parties[RETRAIN]
    return {
        ORIGINAL: _measured(parties[ORIGINAL], base),
        RETRAIN: _measured(base, base),
    } | {
        name: replace(
            _measured(parties[name], base), edited=watched.edited, rounds=float(watched.rounds)
        )
        if name in parties
        else Measured(1.0, 1.0, {}, failed=failed.get(name, "no answer"))
        for name, watched in named.items()
    }


def _measured(party: Party, base: Party) -> Measured:
    own, goal = (score(one.outputs).to_json() for one in (party, base))
    scores = {
        name: float(value)
        for name in MEASURES
        if (value := own[name]) is not None and goal[name] is not None
    }
    gaps = [abs(value - float(goal[name] or 0)) for name, value in scores.items()]
    spent, again = (
        sum((cost for phase, cost in one.costs.items() if phase in ("unlearn", "recover")), Cost())
        for one in (party, base)
    )
    return Measured(float(np.mean(gaps)), spent.examples / max(1, again.examples), scores)


def _mean(parts: Sequence[Measured]) -> Measured:
    if why := next((one.failed for one in parts if one.failed), ""):
        return Measured(1.0, 1.0, {}, failed=why)
    return Measured(
        float(np.mean([one.distance for one in parts])),
        float(np.mean([one.cost for one in parts])),
        {name: float(np.mean([one.scores[name] for one in parts])) for name in parts[0].scores},
        float(np.mean([one.edited for one in parts])),
        float(np.mean([one.rounds for one in parts])),
    )

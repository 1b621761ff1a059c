"""Which models an audit needs, where each is kept, and which federations make those missing.

Three blocks of training seeds keep apart what must not share its noise. On *judged* seeds every
strategy answers, beside the controls and the doses; *reference* seeds give the retrained models
that all others are measured against, and originals of other seeds; *again* seeds give the second
retrained and original models: the null and the positive control.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from experiments.audit.jobs import Job, Model, Prepared
from experiments.audit.store import TraceStore, address, foundation, source_digest
from experiments.audit.traces import Trace
from experiments.config.loading import Config, alias_of
from experiments.config.registry import resolve
from experiments.federation.course import Course
from experiments.federation.task import Task
from experiments.runs.results import FINE_TUNE, ORIGINAL, RETRAIN
from unlearning.errors import ConfigError
from unlearning.request import Forgotten, Request, Scope

__all__ = ["DOSES", "Plan", "dose_request", "has_doses", "prepare", "settled"]

DOSES = (10, 25, 50)  # percent of the forget set still trained on, beside 0 and 100
_FEWEST = 4  # owners or features that doses of a request for features are told apart by
_DOSE = 5  # last part of the address of the draw of what is still trained on


def settled(config: Config) -> Config:
    """Return the config with all data fixed: models of an audit differ in training alone.

    Raises
    ------
    ConfigError
        If the requests are not all served after the last round, where alone models that never saw
        the data can be made without an original; if rounds end early, which makes models of
        unequal numbers of rounds.
    """
    if not config.requests:
        raise ConfigError("the config has no [[requests]], so there is nothing to audit; add one")
    if config.stop.tolerance is not None:
        raise ConfigError(
            f"stop.tolerance = {config.stop.tolerance}; an audit compares models of equal numbers "
            "of rounds: leave it out"
        )
    for place, request in enumerate(config.requests):
        if request.scope == "feature" and len(config.requests) > 1:
            raise ConfigError(
                f"requests.{place}: an audit takes a request for features alone, since its doses "
                "are of one kind; leave the other requests out"
            )
        if request.at_round not in (None, config.rounds):
            raise ConfigError(
                f"requests.{place}.at_round = {request.at_round}; an audit serves requests after "
                f"the last round ({config.rounds}): leave it out"
            )
    seed = config.seed if config.data.seed is None else config.data.seed
    return config.model_copy(update={"data": config.data.model_copy(update={"seed": seed})})


@dataclass(frozen=True)
class Plan:
    """All models of an audit.

    Parameters
    ----------
    config : Config
        A settled one.
    names : tuple of str
        Strategies by alias or ``module:Class``, without the controls.
    size : int
        K, models per side.
    key : str
        Hash of what all models have in common.
    doses : bool
        Whether models with a part of the forget set are wanted.
    """

    config: Config
    names: tuple[str, ...]
    size: int
    key: str
    doses: bool = True

    @classmethod
    def of(cls, config: Config, names: Sequence[str], size: int, *, doses: bool = True) -> Plan:
        """Return the plan of a settled config; code and data are hashed as they are now."""
        chosen = tuple(n for n in names if n not in (ORIGINAL, RETRAIN, FINE_TUNE))
        return cls(config, chosen, size, address(foundation(config)), doses)

    @property
    def judged(self) -> range:
        """Seeds on which the strategies answer."""
        return self._block(0)

    @property
    def reference(self) -> range:
        """Seeds of the models that all others are measured against."""
        return self._block(1)

    @property
    def again(self) -> range:
        """Seeds of the second controls."""
        return self._block(2)

    def models(self) -> dict[Model, str]:
        """Return every model and its address, in a fixed order."""
        roles = (ORIGINAL, RETRAIN, FINE_TUNE, *map(alias_of, self.names))
        wanted = [Model(role, seed) for seed in self.judged for role in roles]
        for block in (self.reference, self.again):
            wanted += [Model(role, seed) for seed in block for role in (ORIGINAL, RETRAIN)]
        if self.doses:
            wanted += [Model.dosed(k, seed) for seed in self.judged for k in DOSES]
        return {model: self._address(model) for model in wanted}

    def find(self, store: TraceStore) -> dict[Model, Trace]:
        """Return the traces that are there."""
        found = {model: store.get(key) for model, key in self.models().items()}
        return {model: trace for model, trace in found.items() if trace is not None}

    def jobs(self, there: Mapping[Model, Trace]) -> list[Job]:
        """Return the work that is left, the largest first; doses apart, to spread the load."""
        found: dict[tuple[int, bool], list[tuple[Model, str]]] = {}
        for model, key in self.models().items():
            if model not in there:
                found.setdefault((model.seed, model.dose is not None), []).append((model, key))
        made = [Job(seed, tuple(models)) for (seed, _), models in found.items()]
        return sorted(made, key=lambda job: -len(job.models))

    def _block(self, number: int) -> range:
        first = self.config.seed + number * self.size
        return range(first, first + self.size)

    def _address(self, model: Model) -> str:
        return address({"base": self.key, **self._facts(model)})

    def _facts(self, model: Model) -> dict[str, Any]:
        if model.role == ORIGINAL or model.dose is not None:
            return {"role": model.role, "seed": model.seed}
        name = next((n for n in self.names if alias_of(n) == model.role), model.role)
        return {
            "role": name,
            "seed": model.seed,
            "options": self.config.options_for(name),
            "source": source_digest(resolve(name).__module__),
        }


def dose_request(task: Task, requests: Sequence[Request], percent: int) -> Request:
    """Return the request that leaves ``percent`` of the forget set to be trained on.

    Every owner keeps that share of its examples, rounded; a larger dose holds all of a smaller one.
    Of a request for features, that share of the owners keeps all values or, where these are few,
    everyone keeps that share of the features.

    Raises
    ------
    ConfigError
        If so few examples, owners and features are concerned that nothing would be forgotten.
    """
    if features := [request for request in requests if request.scope is Scope.FEATURE]:
        return _without_features(task, features[0], percent)
    gone = Forgotten(tuple(requests))
    samples: dict[int, tuple[int, ...]] = {}
    for client in task.clients:
        named = np.flatnonzero(~task.kept(client, gone))
        order = np.random.default_rng([task.scenario.data_seed, 0, client, _DOSE]).permutation(
            named
        )
        if len(left := order[round(percent / 100 * len(named)) :]):
            samples[client] = tuple(sorted(int(i) for i in left))
    if not samples:
        raise ConfigError(f"{percent} % of so few examples is all of them; no dose can be made")
    return Request(Scope.SAMPLE, samples=samples, id=f"dose-{percent}")


def has_doses(task: Task, requests: Sequence[Request]) -> bool:
    """Return whether parts of what is forgotten can be left in; not of one feature of one owner."""
    return all(
        request.scope is not Scope.FEATURE or _parts(task, request) is not None
        for request in requests
    )


def _without_features(task: Task, request: Request, percent: int) -> Request:
    parts = _parts(task, request)
    if parts is None:
        raise ConfigError(f"{percent} % of so few owners and features is none; no dose can be made")
    order = np.random.default_rng([task.scenario.data_seed, 0, 0, _DOSE]).permutation(parts)
    left = tuple(sorted(int(i) for i in order[round(percent / 100 * len(parts)) :]))
    by_owner = parts == request.owners(task.clients)
    return Request(
        Scope.FEATURE,
        features=request.features if by_owner else left,
        clients=left if by_owner else request.clients,
        id=f"dose-{percent}",
    )


def _parts(task: Task, request: Request) -> tuple[int, ...] | None:
    """Return what doses are made of, owners or features; None: there are too few of both."""
    owners = tuple(request.owners(task.clients))
    if len(owners) >= _FEWEST:
        return owners
    return request.features if len(request.features) >= _FEWEST else None


def prepare(config: Config, names: Sequence[str], size: int) -> Prepared:
    """Check an audit as far as possible before it begins, and say what is left to do.

    Parameters
    ----------
    config : Config
        As it was read.
    names : sequence of str
        Strategies by alias or ``module:Class``; empty: those of the config; ``all``.
    size : int
        K, models per side.

    Raises
    ------
    FedUnlearnError
        For whatever can be seen to be wrong.
    """
    chosen = settled(config)
    course = Course.of_comparison(chosen, lambda _: None, tuple(names) or None)
    course.check()
    made = course.tasks[chosen.seed]
    if made.tasks:
        raise ConfigError("an audit works on models for one task; choose another model.name")
    serving, refused = course.serving(chosen.seed)
    requests = made.requests(chosen)
    plan = Plan.of(chosen, tuple(serving), size, doses=has_doses(made, requests))
    facts = made.facts()
    return Prepared(
        config=chosen,
        names=plan.names,
        size=size,
        doses=plan.doses,
        key=plan.key,
        jobs=tuple(plan.jobs(plan.find(TraceStore()))),
        total=len(plan.models()),
        refused=tuple((found.strategy, found.reason) for found in refused),
        scenario={
            "data": chosen.data.name,
            "partitioner": chosen.data.partitioner,
            "clients": len(facts.clients),
            "model": chosen.model.name,
            "marker": chosen.marker.model_dump(mode="json") if chosen.marker else None,
            "rounds": chosen.rounds,
            "recovery_rounds": chosen.recovery_rounds,
            "requests": [request.describe() for request in requests],
            "scope": chosen.requests[0].scope,
            "seeds": {
                "judged": [plan.judged[0], plan.judged[-1]],
                "reference": [plan.reference[0], plan.reference[-1]],
                "again": [plan.again[0], plan.again[-1]],
            },
        },
    )

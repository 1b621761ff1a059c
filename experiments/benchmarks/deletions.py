"""Deletions from a structural model, one after the other, each beside learning again without."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from experiments.benchmarks.rows import Row
from experiments.config.loading import Config
from experiments.config.registry import make
from experiments.federation.grids import LocalGrid
from experiments.federation.participants import client_app
from experiments.federation.task import Scenario, Task, task
from strategies.base import UnlearningStrategy
from strategies.federation import Federation
from strategies.roster import Roster
from strategies.wire import to_arrays, to_record
from unlearning.arrays import Arrays, digest
from unlearning.evaluation.metrics import accuracy, prediction_distance
from unlearning.fulfil import fulfil
from unlearning.protocol import Wire
from unlearning.records.history import History
from unlearning.records.ledger import Ledger
from unlearning.request import Request, Scope

__all__ = ["check", "deletions", "founded", "joined", "learned", "requests", "started"]


def deletions(
    config: Config,
    strategy: str,
    count: int,
    *,
    only_samples: bool = False,
    beside: Collection[str] = (),
) -> list[Row]:
    """Return one row per deletion: random samples, at the end a client and a class.

    After each one everything is learned again from nothing without the forgotten, in a federation
    of its own, and compared.

    Parameters
    ----------
    config : Config
        Data, model and rounds; its requests are passed over.
    strategy : str
        Alias of the strategy that answers.
    count : int
        Number of deletions.
    only_samples : bool, default False
        Leave out the client and the class.
    beside : collection of str
        Arrays that tell how a state came about, not what it is; they are not compared.
    """
    made = task(Scenario.of(config))
    rows: list[Row] = []
    with TemporaryDirectory() as home:
        ledger = Ledger()
        federation, grid = founded(config, made, ledger, Path(home))
        arrays = started(UnlearningStrategy(), federation, grid, config.rounds)
        for number, request in enumerate(requests(made, count, only_samples=only_samples), 1):
            answering = joined(strategy, config, federation)
            begun = time.perf_counter()
            arrays = fulfil(request, answering, arrays, federation.history, ledger)
            took = time.perf_counter() - begun
            other, grid = founded(config, made, ledger, Path(home))
            begun = time.perf_counter()
            again = started(UnlearningStrategy(), other, grid, config.rounds)
            retrain = time.perf_counter() - begun
            here, there = _without(arrays, beside), _without(again, beside)
            rows.append(
                {
                    "deletion": number,
                    "scope": request.scope.value,
                    "identical": digest(here) == digest(there),
                    "largest_difference": _difference(here, there),
                    "unlearn_s": took,
                    "retrain_s": retrain,
                    "ratio": retrain / took,
                }
            )
    return rows


def check(config: Config, tolerances: Sequence[float] = (1.0, 0.5, 0.2, 0.1)) -> list[Row]:
    """Return how far boosted trees are from retrained ones, method by method.

    A client leaves; in another federation every tenth sample of all clients goes. Distances are of
    predictions on the test set.
    """
    made = task(Scenario.of(config))
    sizes, test = made.facts().clients, made.test_set()
    tenth = {client: tuple(range(0, size, 10)) for client, size in sizes.items()}
    asked = (Request(Scope.CLIENT, clients=(2,)), Request(Scope.SAMPLE, samples=tenth))
    methods: list[tuple[str, dict[str, float]]] = [
        ("retrain", {}),
        ("boosting-replay", {}),
        ("leaf-refresh", {}),
        *(("leaf-refresh", {"tolerance": tolerance}) for tolerance in tolerances),
    ]
    rows: list[Row] = []
    for request in asked:
        reference = None
        for name, options in methods:
            with TemporaryDirectory() as home:
                ledger = Ledger()
                federation, grid = founded(config, made, ledger, Path(home))
                arrays = started(UnlearningStrategy(), federation, grid, config.rounds)
                answering = make(name, options)
                answering.join(federation)
                begun = time.perf_counter()
                arrays = fulfil(request, answering, arrays, federation.history, ledger)
                took = time.perf_counter() - begun
            found = made.predict(arrays, test.x)
            reference = found if reference is None else reference
            spent = federation.costs["unlearn"]
            rows.append(
                {
                    "seed": config.seed,
                    "scope": request.scope.value,
                    "strategy": name,
                    "tolerance": options.get("tolerance", ""),
                    "test_accuracy": accuracy(found, test.y),
                    "prediction_distance": prediction_distance(found, reference),
                    "splits": getattr(answering, "splits", ""),
                    "lost": getattr(answering, "lost", ""),
                    "client_rounds": spent.client_rounds,
                    "bytes_up": spent.bytes_up,
                    "unlearn_s": took,
                }
            )
    return rows


def learned(config: Config, made: Task) -> Arrays:
    """Return what a config learns, requests passed over."""
    with TemporaryDirectory() as home:
        federation, grid = founded(config, made, Ledger(), Path(home))
        return started(UnlearningStrategy(), federation, grid, config.rounds)


def founded(config: Config, made: Task, ledger: Ledger, home: Path) -> tuple[Federation, LocalGrid]:
    """Return a federation of its own that has learned nothing yet, and its clients."""
    grid = LocalGrid(client_app, len(made.clients))
    federation = Federation(
        seed=config.seed,
        history=History(),
        ledger=ledger,
        train=config.train.model_dump(exclude={"fraction"}),
        recovery_rounds=0,
        model=made.array_model,
        client_config={
            Wire.SCENARIO: made.scenario.to_json(),
            Wire.DEVICE: "cpu",
            Wire.HOME: str(home),
        },
    )
    federation.roster = Roster.discover(
        grid, len(made.clients), federation.client_config, timeout_s=60
    )
    federation.history.start(made.initial())
    return federation, grid


def started(
    strategy: UnlearningStrategy, federation: Federation, grid: LocalGrid, rounds: int
) -> Arrays:
    """Let a federation learn and return its model."""
    strategy.join(federation)
    initial = to_record(federation.history.initial)
    return to_arrays(strategy.start(grid, initial, num_rounds=rounds).arrays)


def joined(name: str, config: Config, federation: Federation) -> UnlearningStrategy:
    """Return a strategy that serves a federation."""
    strategy = make(name, config.options_for(name))
    strategy.join(federation)
    return strategy


def requests(made: Task, count: int, *, only_samples: bool) -> Iterator[Request]:
    """Yield requests that a seed decides; no sample is named twice."""
    generator = np.random.default_rng([made.scenario.seed, 100])
    sizes = made.facts().clients
    pairs = [(client, at) for client, size in sizes.items() for at in range(size)]
    last = 0 if only_samples else 2
    for pick in generator.permutation(len(pairs))[: count - last]:
        client, at = pairs[pick]
        yield Request(Scope.SAMPLE, samples={client: (at,)})
    if not only_samples:
        yield Request(Scope.CLIENT, clients=(int(generator.integers(len(sizes))),))
        yield Request(Scope.CLASS, classes=(int(generator.integers(made.num_classes)),))


def _without(arrays: Arrays, names: Collection[str]) -> Arrays:
    """Return the arrays but those called so, a client's ``name/client`` among them."""
    return {key: a for key, a in arrays.items() if key.partition("/")[0] not in names}


def _difference(left: Mapping[str, Any], right: Mapping[str, Any]) -> float:
    """Return the largest difference of any two entries; infinite where shapes differ."""
    largest = 0.0
    for name, array in left.items():
        if name not in right or array.shape != right[name].shape:
            return float("inf")
        if array.size:
            distance = np.abs(array.astype(np.float64) - right[name].astype(np.float64))
            largest = max(largest, float(distance.max()))
    return largest

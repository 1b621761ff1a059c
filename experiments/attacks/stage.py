"""A small federation to attack: digits, in this process, with some clients that do not play fair.

It learns once; every arm of an attack then goes on from a copy of all that was learned.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from flwr.app import Context
from numpy.typing import NDArray

from clients.app import make_client_app
from clients.participant import Participant
from clients.steps import Shard
from experiments.config.loading import from_mapping
from experiments.config.schema import Config, GuardConfig, MarkerConfig
from experiments.data import markers
from experiments.federation.grids import LocalGrid
from experiments.federation.guard import canaries, robust_of, watchman_of
from experiments.federation.participants import participant
from experiments.federation.task import Examples, Scenario, Task, task
from strategies.base import UnlearningStrategy
from strategies.federation import LAST_LOCAL, Federation
from strategies.roster import Roster
from strategies.wire import to_arrays, to_record
from unlearning.arrays import Arrays
from unlearning.evaluation.metrics import accuracy, backdoor_success
from unlearning.protocol import Scalar, Wire, names_in
from unlearning.records.commitment import Commitment
from unlearning.records.history import COLUMNS, History
from unlearning.records.ledger import Event, Ledger
from unlearning.request import Forgotten, Request

__all__ = ["Answer", "Fault", "Stage", "settings"]

Floats = NDArray[np.float32]
Fault = Callable[[Arrays, Arrays, dict[str, Any]], Arrays]
"""``(sent, answer, config) -> answer``: what a malicious client makes of its honest answer."""


def settings(seed: int, guard: Mapping[str, object] | None = None, **changes: object) -> Config:
    """Return the config of a stage: ten clients share scikit-learn's digits, twenty rounds."""
    plain: dict[str, Any] = {
        "seed": seed,
        "device": "cpu",
        "rounds": 20,
        "recovery_rounds": 5,
        "data": {"name": "digits", "clients": 10},
        "train": {"local_epochs": 2, "batch_size": 32, "learning_rate": 0.1},
        "engine": {"grid": "local"},
        "guard": dict(guard or {}),
    }
    return from_mapping({**plain, **changes}, "attack")


@dataclass(frozen=True)
class Answer:
    """What became of some requests.

    Parameters
    ----------
    arrays : Arrays
        The model in force at the end.
    unlearned : Arrays or None
        The last answer as it came from the strategy, guarded or not, before any recovery; None
        where no work was done.
    states : tuple of str
        Last event of every request.
    events : tuple of Event
        All events, in order.
    work : float
        Seconds that clients worked for it.
    """

    arrays: Arrays
    unlearned: Arrays | None
    states: tuple[str, ...]
    events: tuple[Event, ...]
    work: float

    def fact(self, name: str) -> Any:
        """Return the latest fact of that name in the ledger; None if there is none."""
        found = [event.facts[name] for event in self.events if name in event.facts]
        return found[-1] if found else None


class Stage:
    """One learned federation and what an attacker may do to it; use it as a context.

    Parameters
    ----------
    config : Config
        As :func:`settings` makes it.
    needs : collection of str
        What the strategies that will answer need to have been kept.
    """

    def __init__(self, config: Config, needs: Collection[str] = ()) -> None:
        self.config = config
        self.scenario = Scenario.of(config)
        self.task: Task = task(self.scenario)
        self.shards: dict[int, Shard] = {}  # in place of what the clients hold by right
        self.faults: dict[int, Fault] = {}  # what they do to their answers
        self._needs = frozenset(needs)
        self._home = Path(tempfile.mkdtemp(prefix="fedunlearn-attack-"))
        self._branches = 0
        torch.set_num_threads(1)
        self.judged: Examples
        self.seen, self.judged = canaries(self.task, config.guard.canaries)
        self._learned: Federation | None = None
        self.model: Arrays = {}

    def __enter__(self) -> Stage:
        """Return the stage itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Remove what the clients remembered."""
        shutil.rmtree(self._home, ignore_errors=True)

    def holds(self, client: int) -> Shard:
        """Return what a client trains on."""
        if client not in self.shards:
            found = self.task.client(client)
            x, y = torch.from_numpy(found.train_x), torch.from_numpy(found.train_y)
            return Shard(x, y)
        return self.shards[client]

    def learn(self) -> Arrays:
        """Learn, and keep what every arm starts from."""
        home = self._home / "learn"
        grid = self._grid()
        config = {
            Wire.SCENARIO: self.scenario.to_json(),
            Wire.DEVICE: "cpu",
            Wire.HOME: str(home),
        }
        train = self.config.train.model_dump()
        fraction = train.pop("fraction")
        asked: dict[str, Scalar] = {
            **config,
            Wire.COMMIT: True,
        }  # the registry is there whether it is used or not
        roster = Roster.discover(grid, len(self.task.clients), asked, timeout_s=60)
        self._learned = Federation(
            seed=self.config.seed,
            history=History(keep=self._needs & COLUMNS),
            ledger=Ledger(),
            train=train,
            recovery=train,
            recovery_rounds=self.config.recovery_rounds,
            fraction=fraction,
            client_config=config,
            remember=LAST_LOCAL in self._needs,
            robust=robust_of(self.config.guard),
            length_factor=0.0,  # each defence is looked at alone
            roster=roster,
        )
        self.model = self._run(
            UnlearningStrategy(), grid, self._learned, self.task.initial(), self.config.rounds
        )
        return self.model

    def registry(self) -> dict[int, Commitment]:
        """Return what the clients committed themselves to before the first round."""
        return dict(self._federation.roster.commitments)  # type: ignore[union-attr]

    def leaves(self, client: int, shard: Shard | None = None) -> list[bytes]:
        """Return the hashes of a client's samples, or of others in their place, with its salt."""
        home = self._home / "learn"
        owner = participant(client, self.scenario.to_json(), "cpu", home)
        held = shard if shard is not None else self.holds(client)
        return Participant(client, replace(owner.holdings, train=held), owner.memory).leaves()

    @property
    def _federation(self) -> Federation:
        if self._learned is None:
            raise RuntimeError("nothing was learned yet; call learn first")
        return self._learned

    def answer(
        self,
        strategy: UnlearningStrategy,
        *requests: Request,
        guard: GuardConfig | None = None,
        recovery_rounds: int | None = None,
        joined: Mapping[int, Shard] | None = None,
    ) -> Answer:
        """Let a strategy serve requests on a copy of everything.

        Parameters
        ----------
        strategy : UnlearningStrategy
            Who answers.
        *requests : Request
            All due at once.
        guard : GuardConfig or None
            In force; None: that of the config.
        recovery_rounds : int or None
            Rounds of the remaining clients afterwards; None: those of the config.
        joined : mapping of int to Shard or None
            What clients hold from now on, whatever they trained on.
        """
        learned = self._federation
        if learned.roster is None:
            raise RuntimeError("the federation has not met its clients")
        limits = self.config.guard if guard is None else guard
        self._branches += 1
        home = self._home / f"arm-{self._branches}"
        origin = self._home / "learn"
        if origin.exists():
            shutil.copytree(origin, home)
        grid = self._grid(joined)
        roster = Roster(grid, learned.roster.nodes, learned.roster.declared)
        robust = robust_of(limits)
        if robust is not None and learned.robust is not None and robust.how == learned.robust.how:
            robust = learned.robust
        rounds = self.config.recovery_rounds if recovery_rounds is None else recovery_rounds
        found: list[Arrays] = []

        def judge(request: Request, before: Arrays, after: Arrays) -> dict[str, float | None]:
            found.append(after)
            return {}

        federation = replace(
            learned,
            history=learned.history.fork(None),
            ledger=Ledger(),
            client_config={**learned.client_config, Wire.HOME: str(home)},
            roster=roster,
            guard=watchman_of(limits, self.task, learned.roster.commitments),
            robust=robust,
            batch=limits.batch,
            recovery_rounds=rounds,
            judge=judge,
            forgotten=Forgotten(),
            costs={},
        )
        if joined:
            # A client says itself how much it holds: it may say so again.
            roster.declared |= {client: len(shard) for client, shard in joined.items()}
        for request in requests:
            federation.ledger.receive(request)
        try:
            arrays = self._run(strategy, grid, federation, self.model, 0)
        finally:
            shutil.rmtree(home, ignore_errors=True)
        ledger = federation.ledger
        return Answer(
            arrays,
            found[-1] if found else None,
            tuple(ledger.state(request.id) for request in requests),
            tuple(ledger.events()),
            sum(cost.client_s for cost in federation.costs.values()),
        )

    def triggered(self, marker: MarkerConfig) -> Examples:
        """Return those of the judged examples that a trigger is to lead astray, with it."""
        x, y = self.judged
        others = markers.misled(y, marker, self.task.num_classes)
        return Examples(markers.trigger(x[others], marker), y[others])

    def backdoor(self, arrays: Arrays, marker: MarkerConfig) -> float:
        """Return the share of them that a model gives the trigger's label."""
        x, y = self.triggered(marker)
        target = markers.leads_to(y, marker, self.task.num_classes)
        return backdoor_success(self.task.predict(arrays, x).argmax(1), y, target)

    def accuracy(self, arrays: Arrays, examples: Examples | None = None) -> float:
        """Return the accuracy on the test examples that no guard has seen, or on others."""
        x, y = self.judged if examples is None else examples
        return accuracy(self.task.predict(arrays, x), y)

    def class_accuracy(self, arrays: Arrays, label: int) -> float:
        """Return the accuracy on those of them that belong to one class."""
        x, y = self.judged
        return self.accuracy(arrays, Examples(x[y == label], y[y == label]))

    def _run(
        self,
        strategy: UnlearningStrategy,
        grid: LocalGrid,
        federation: Federation,
        arrays: Arrays,
        rounds: int,
    ) -> Arrays:
        strategy.join(federation)
        return to_arrays(strategy.start(grid, to_record(arrays), num_rounds=rounds).arrays)

    def _grid(self, joined: Mapping[int, Shard] | None = None) -> LocalGrid:
        """Return the clients, some of them not as they should be."""
        stage, held = self, {**self.shards, **(joined or {})}

        class Crooked(Participant):
            def fit(
                self, parameters: list[Any], config: dict[str, Any]
            ) -> tuple[list[Any], int, dict[str, Any]]:
                arrays, count, metrics = super().fit(parameters, config)
                fault = stage.faults.get(self.client)
                if fault is None or str(config[Wire.STEP]) != "train":
                    return arrays, count, metrics
                names = names_in(str(metrics[Wire.NAMES]))
                sent = dict(zip(names_in(str(config[Wire.NAMES])), parameters, strict=True))
                bent = fault(sent, dict(zip(names, arrays, strict=True)), config)
                return [bent[name] for name in names], count, metrics

        def make(context: Context, config: dict[str, Scalar]) -> Participant:
            client = int(str(context.node_config["partition-id"]))
            home = Path(str(config[Wire.HOME]))
            honest = participant(client, str(config[Wire.SCENARIO]), "cpu", home)
            holdings = honest.holdings
            if client in held:
                holdings = replace(holdings, train=held[client])
            return Crooked(client, holdings, honest.memory)

        return LocalGrid(make_client_app(make), len(self.task.clients))

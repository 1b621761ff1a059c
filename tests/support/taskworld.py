"""A federation of several tasks for tests, of real data."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

from flwr.app import Context
from flwr.clientapp import ClientApp

from clients.app import make_client_app
from clients.participant import Participant
from clients.steps import Shard
from experiments.config.loading import Config, from_mapping
from experiments.federation.grids import LocalGrid
from experiments.federation.participants import client_app, of_node
from experiments.federation.task import Scenario, Task, task
from strategies.base import UnlearningStrategy
from strategies.federation import Federation
from strategies.roster import Roster
from strategies.wire import to_arrays as from_record
from strategies.wire import to_record
from unlearning import arrays as named
from unlearning.arrays import Arrays
from unlearning.protocol import Scalar, Wire
from unlearning.records.history import History
from unlearning.records.ledger import Ledger
from unlearning.request import Request, Scope

__all__ = ["PARITY", "World", "clients_without", "config"]

PARITY = Request(Scope.TASK, tasks=("parity",))


def clients_without(column: int, owners: Collection[int]) -> ClientApp:
    """Return clients of which some do not have the labels of one task, and never had them."""

    def participant(context: Context, settings: dict[str, Scalar]) -> Participant:
        found = of_node(context, settings)
        if found.client not in owners:
            return found
        train = found.holdings.train
        labels = train.labels.clone()
        labels[:, column] = -1
        there = (labels >= 0).any(1)
        if not bool(there.all()):
            raise ValueError("an example without any label would leave the client")
        holdings = replace(found.holdings, train=Shard(train.features, labels))
        return Participant(found.client, holdings, found.memory)

    return make_client_app(participant)


def config(**changes: object) -> Config:
    return from_mapping(
        {
            "rounds": 3,
            "recovery_rounds": 1,
            "data": {
                "name": "digit-pairs",
                "clients": 4,
                "limit": 240,
                "tasks_per_client": 2,
            },
            "model": {"name": "multi-task", "hidden": 16, "width": 8},
            "train": {"batch_size": 16, "learning_rate": 0.1, "momentum": 0.5},
            "requests": [{"scope": "task", "tasks": ["parity"]}],
            "engine": {"grid": "local"},
            **changes,
        }
    )


@dataclass(frozen=True)
class _Learned:
    """What a federation of several tasks has learned, to make others of that go on from there."""

    federation: Federation
    home: Path
    arrays: Arrays


_THERE: dict[str, _Learned] = {}  # by config, of the clients of the data
_ROOM = tempfile.TemporaryDirectory(prefix="taskworld-")  # until this process ends


class World:
    """A federation of several tasks in this process, learned for three rounds.

    It is learned once per process and config, and every world is a copy of its own of that.

    Parameters
    ----------
    home : Path
        Where clients remember.
    chosen : Config, optional
        Default: digit pairs, two tasks for each of four clients, parity to be forgotten.
    app : ClientApp
        The clients; default: those of the data.
    """

    def __init__(
        self, home: Path, chosen: Config | None = None, app: ClientApp = client_app
    ) -> None:
        self.config = chosen or config()
        self.task: Task = task(Scenario.of(self.config))
        self.initial = self.task.initial()
        self.grid = LocalGrid(app, len(self.task.clients))
        if app is not client_app:
            self._learn(home)
            return
        key = self.config.model_dump_json()
        if key not in _THERE:
            first = Path(_ROOM.name) / str(len(_THERE))
            self._learn(first)
            _THERE[key] = _Learned(self.federation, first, self.learned)
        self._copy(_THERE[key], home)

    def _settings(self, home: Path) -> dict[str, Scalar]:
        return {
            Wire.SCENARIO: self.task.scenario.to_json(),
            Wire.DEVICE: "cpu",
            Wire.HOME: str(home),
        }

    def _learn(self, home: Path) -> None:
        settings = self._settings(home)
        train = self.config.train.model_dump()
        fraction = float(train.pop("fraction"))
        self.federation = Federation(
            history=History(keep=("globals", "updates")),
            train=train,
            client_config=settings,
            recovery_rounds=1,
            has_tasks=True,
            attribute=True,
            fraction=fraction,
        )
        count = len(self.task.clients)
        self.federation.roster = Roster.discover(self.grid, count, settings, timeout_s=20)
        self.learned = self.run(UnlearningStrategy(), self.initial, self.config.rounds)

    def _copy(self, there: _Learned, home: Path) -> None:
        """Go on where another federation is, without touching anything of it."""
        if there.home.exists():  # else no client has anything to remember
            shutil.copytree(there.home, home, dirs_exist_ok=True)
        roster = there.federation.roster
        assert roster is not None
        self.learned = named.copy(there.arrays)
        self.federation = replace(
            there.federation,
            history=there.federation.history.fork(None),
            ledger=Ledger(),
            client_config=self._settings(home),
            roster=Roster(self.grid, roster.nodes, roster.declared, tasks=roster.tasks),
            costs=dict(there.federation.costs),
        )

    def run(self, strategy: UnlearningStrategy, arrays: Arrays, rounds: int) -> Arrays:
        strategy.join(self.federation)
        return from_record(strategy.start(self.grid, to_record(arrays), num_rounds=rounds).arrays)

    def unlearn(self, strategy: UnlearningStrategy, request: Request = PARITY) -> Arrays:
        strategy.join(self.federation)
        strategy.check(request)
        return strategy.unlearn(request, self.federation.history, self.learned)

"""What the tests of structural methods share: small federations of a model that is no network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from flwr.app import Context
from torch import nn

from clients.app import make_client_app
from clients.participant import Holdings, Participant
from clients.steps import Shard
from strategies.base import UnlearningStrategy
from strategies.federation import Federation
from strategies.global_model.retrain import Retrain
from strategies.roster import Roster
from strategies.wire import to_record
from tests.support.toy import ToyFederation, ToyGrid, request, shard
from unlearning import arrays as named
from unlearning.arrays import Arrays
from unlearning.models.array_model import ArrayModel
from unlearning.protocol import Scalar, Wire
from unlearning.records.history import History
from unlearning.records.ledger import Ledger
from unlearning.records.memory import ClientMemory
from unlearning.request import Request, Scope

__all__ = ["federation", "in_several_orders", "learned_and_asked", "mixed", "same", "toy_with"]


def mixed() -> list[Request]:
    """Return requests for samples, more samples, a client and a class, as trees can forget."""
    return [
        request("sample"),
        Request(Scope.SAMPLE, samples={1: (1, 7), 3: (0, 1, 2)}),
        request("client", 2),
        request("class"),
    ]


def in_several_orders() -> list[list[Request]]:
    """Return them in three orders."""
    orders = ((0, 1, 2, 3), (3, 2, 1, 0), (2, 0, 3, 1))
    return [[mixed()[place] for place in order] for order in orders]


def toy_with(home: Path, model: ArrayModel, **settings: object) -> ToyFederation:
    """Return the toy federation, learning ``model``; its points lie in [0, 1]."""
    toy = ToyFederation(home, keep=(), remember=False, **settings)  # type: ignore[arg-type]
    for client, size in toy.sizes.items():
        toy.shards[client] = _in_range(shard(client, size))
    toy.federation.model = model
    toy.initial = model.initial()
    return toy


def _in_range(points: Shard) -> Shard:
    return Shard(torch.sigmoid(points.features), points.labels)


def same(left: Arrays, right: Arrays) -> bool:
    """Return whether two states agree bit for bit."""
    return named.digest(left) == named.digest(right)


def learned_and_asked(
    toy: ToyFederation,
    strategy: UnlearningStrategy,
    requests: list[Request],
    rounds: int,
    home: Path,
) -> tuple[Arrays, Arrays]:
    """Return the states after all requests: of the strategy, and of retraining."""
    found = []
    arrays = toy.run(UnlearningStrategy(), rounds=rounds)
    for name, made in (("own", strategy), ("again", Retrain())):
        twin = toy.branch(home / name)
        for asked in requests:
            twin.federation.ledger.receive(asked)
        twin.federation.recovery_rounds = 0
        found.append(twin.run(made, arrays, rounds=0))
        states = [twin.federation.ledger.state(asked.id) for asked in requests]
        assert states == ["fulfilled"] * len(requests)
    return found[0], found[1]


def federation(
    home: Path, model: ArrayModel, shards: dict[int, Shard], seed: int = 0
) -> tuple[Federation, ToyGrid]:
    """Return a federation of given data."""

    def make(context: Context, config: dict[str, Scalar]) -> Participant:
        client = int(str(context.node_config["partition-id"]))
        held = shards[client]
        holdings = Holdings(held, held, lambda seed: nn.Identity(), nn.Identity(), model)
        return Participant(client, holdings, ClientMemory(Path(str(config[Wire.HOME])), client))

    grid = ToyGrid(make_client_app(make), len(shards))
    made = Federation(
        seed=seed,
        history=History(),
        ledger=Ledger(),
        recovery_rounds=0,
        client_config={Wire.HOME: str(home)},
        model=model,
    )
    made.roster = Roster.discover(grid, len(shards), made.client_config, timeout_s=10)
    return made, grid


def learn(made: Federation, grid: ToyGrid, rounds: int) -> Arrays:
    """Return the state after plain learning."""
    learner = UnlearningStrategy()
    learner.join(made)
    assert made.model is not None
    result = learner.start(grid, to_record(made.model.initial()), num_rounds=rounds)
    return {name: np.asarray(a.numpy()) for name, a in result.arrays.items()}

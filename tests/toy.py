"""A toy federation for the tests: a linear classifier, a few points, the in-process grid."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from flwr.app import Context
from torch import nn

from clients.app import make_client_app
from clients.participant import Holdings, Participant, arrays_of
from clients.steps import Shard
from experiments.grids import LocalGrid
from strategies.base import UnlearningStrategy
from strategies.federation import Federation
from strategies.roster import Roster
from strategies.wire import to_arrays, to_record
from unlearning.arrays import Arrays
from unlearning.history import History
from unlearning.ledger import Ledger
from unlearning.memory import ClientMemory
from unlearning.protocol import Scalar, Wire

FEATURES, CLASSES = 3, 3
TRAIN: dict[str, Scalar] = {
    "local_epochs": 2,
    "batch_size": 4,
    "learning_rate": 0.3,
    "momentum": 0.5,
}


class ToyModel(nn.Module):
    """A linear layer, with a float and an integer buffer beside it."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.layer = nn.Linear(FEATURES, CLASSES)
        self.register_buffer("running_mean", torch.zeros(FEATURES))
        self.register_buffer("num_batches_tracked", torch.tensor(0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits; in training, keep the statistics as normalisation layers do."""
        if self.training:
            self.running_mean = 0.9 * self.running_mean + 0.1 * x.mean(0).detach()
            self.num_batches_tracked = self.num_batches_tracked + 1
        logits: torch.Tensor = self.layer(x)
        return logits


def shard(client: int, size: int, *, salt: int = 0) -> Shard:
    """Return a client's points: class = the largest coordinate."""
    generator = np.random.default_rng([7, client, salt])
    x = generator.normal(size=(size, FEATURES)).astype(np.float32)
    return Shard(torch.from_numpy(x), torch.from_numpy(x.argmax(1)))


class ToyFederation:
    """Clients with unequal data behind a LocalGrid, and what a strategy needs to work with them.

    ``asked`` lists (client, step) of every call of ``fit``; ``faults`` maps a client to something
    that changes its answer or raises.
    """

    def __init__(
        self,
        home: Path,
        *,
        clients: int = 4,
        seed: int = 0,
        fraction: float = 1.0,
        history: History | None = None,
        keep: tuple[str, ...] = ("globals", "updates", "contributions", "sensitivities"),
        late: Mapping[int, int] | None = None,
    ) -> None:
        self.asked: list[tuple[int, str]] = []
        self.seen: list[tuple[int, str, int]] = []
        self.faults: dict[int, Callable[[list[np.ndarray]], list[np.ndarray]]] = {}
        self.sizes = {client: 8 + 3 * client for client in range(clients)}
        self.shards = {client: shard(client, size) for client, size in self.sizes.items()}
        self.home = home
        workbench = ToyModel(0)
        toy = self

        class Watched(Participant):
            def fit(self, parameters, config):  # type: ignore[no-untyped-def]
                toy.asked.append((self.client, str(config[Wire.STEP])))
                arrays, count, metrics = super().fit(parameters, config)
                toy.seen.append((self.client, str(config[Wire.STEP]), count))
                fault = toy.faults.get(self.client)
                return (fault(arrays) if fault else arrays), count, metrics

        def make(context: Context, config: dict[str, Scalar]) -> Participant:
            client = int(str(context.node_config["partition-id"]))
            holdings = Holdings(toy.shards[client], shard(client, 6, salt=1), ToyModel, workbench)
            return Watched(client, holdings, ClientMemory(Path(str(config[Wire.HOME])), client))

        self.initial: Arrays = arrays_of(ToyModel(seed))
        self.grid = LocalGrid(make_client_app(make), clients)
        self.late = dict(late or {})
        self.federation = Federation(
            seed=seed,
            history=history or History(keep=keep),
            ledger=Ledger(),
            train=TRAIN,
            recovery_rounds=2,
            fraction=fraction,
            timeout_s=30.0,
            client_config={Wire.HOME: str(home)},
            remember=True,
        )
        if self.late:
            self._delay_joining()
        self.federation.roster = Roster.discover(
            self.grid, clients, self.federation.client_config, timeout_s=10
        )

    def _delay_joining(self) -> None:
        draw, late = self.federation.sample, self.late

        def sample(server_round: int, clients: tuple[int, ...]) -> tuple[int, ...]:
            drawn = draw(server_round, clients)
            return tuple(c for c in drawn if server_round >= late.get(c, 1))

        self.federation.sample = sample  # type: ignore[method-assign]

    def run(
        self, strategy: UnlearningStrategy, arrays: Arrays | None = None, rounds: int = 4
    ) -> Arrays:
        """Let ``strategy`` learn, and serve what the ledger holds."""
        strategy.join(self.federation)
        result = strategy.start(self.grid, to_record(arrays or self.initial), num_rounds=rounds)
        return to_arrays(result.arrays)

    def learn(self, rounds: int = 4) -> Arrays:
        """Return the model after plain learning."""
        return self.run(UnlearningStrategy(), rounds=rounds)

"""A toy federation for the tests: a linear classifier, a few points, the in-process grid."""

from __future__ import annotations

import copy
import logging
import shutil
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from torch import nn

from clients.app import make_client_app
from clients.participant import Holdings, Participant, arrays_of
from clients.steps import Shard
from experiments.federation.grids import LocalGrid
from strategies.base import UnlearningStrategy
from strategies.federation import Federation
from strategies.roster import Roster
from strategies.wire import to_arrays, to_record
from unlearning import arrays as named
from unlearning.arrays import Arrays
from unlearning.protocol import Scalar, Settings, Wire
from unlearning.records.history import History
from unlearning.records.ledger import Ledger
from unlearning.records.memory import ClientMemory
from unlearning.request import Forgotten, Request, Scope

torch.set_num_threads(1)
logging.getLogger("flwr").setLevel(logging.WARNING)  # a summary per run, thousands of runs

FEATURES, CLASSES = 3, 3
TRAIN: dict[str, Scalar] = {
    "local_epochs": 2,
    "batch_size": 8,
    "learning_rate": 0.3,
    "momentum": 0.5,
}


class ToyModel(nn.Module):
    """A linear layer, with a float and an integer buffer beside it."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            self.layer = nn.Linear(FEATURES, CLASSES)
        self.register_buffer("running_mean", torch.zeros(FEATURES))
        self.register_buffer("num_batches_tracked", torch.tensor(0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits; in training, keep the statistics as normalisation layers do."""
        if self.training:
            self.running_mean.mul_(0.9).add_(0.1 * x.detach().mean(0))
            self.num_batches_tracked.add_(1)
        logits: torch.Tensor = self.layer(x)
        return logits


class DeepToyModel(ToyModel):
    """The same behind a hidden layer of units."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed + 1)
            self.hidden = nn.Linear(FEATURES, 8)
            self.layer = nn.Linear(8, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits; the same beside them."""
        if self.training:
            self.running_mean.mul_(0.9).add_(0.1 * x.detach().mean(0))
            self.num_batches_tracked.add_(1)
        logits: torch.Tensor = self.layer(self.hidden(x).relu())
        return logits


def shard(client: int, size: int, *, salt: int = 0) -> Shard:
    """Return a client's points: class = the largest coordinate."""
    generator = np.random.default_rng([7, client, salt])
    x = generator.normal(size=(size, FEATURES)).astype(np.float32)
    return Shard(torch.from_numpy(x), torch.from_numpy(x.argmax(1)))


class Census:
    """Counts how many of the messages' contents are still in memory."""

    def __init__(self) -> None:
        self._seen: list[weakref.ref[RecordDict]] = []
        self.most = 0

    def forget(self) -> None:
        """Begin anew."""
        self._seen.clear()
        self.most = 0

    def see(self, message: Message) -> None:
        """Note a message, and how many are there at this moment."""
        self._seen.append(weakref.ref(message.content))
        self.most = max(self.most, sum(one() is not None for one in self._seen))


def request(scope: Scope | str, client: int = 1) -> Request:
    """Return a request of a scope; what it names exists at ``client`` of every toy federation."""
    match Scope(scope):
        case Scope.CLIENT:
            return Request(Scope.CLIENT, clients=(client,))
        case Scope.SAMPLE:
            return Request(Scope.SAMPLE, samples={client: (0, 2, 5)})
        case Scope.CLASS:
            return Request(Scope.CLASS, classes=((client + 1) % CLASSES,))
        case Scope.FEATURE:
            return Request(Scope.FEATURE, clients=(client,), features=(client % FEATURES,))
        case Scope.TASK:
            return Request(Scope.TASK, clients=(client,), tasks=("reading",))


def half_taught(
    student: Arrays, teacher: Arrays, settings: Settings, seed: Sequence[int]
) -> tuple[Arrays, int]:
    """Return a model halfway from student to teacher, as a server with 7 examples might make."""
    half = named.scale(named.delta(student, teacher), 0.5)
    return named.apply_update(student, half), 7


class ToyGrid(LocalGrid):
    """Notes the type of every message and whom it went to."""

    def __init__(self, app: ClientApp, num_nodes: int) -> None:
        super().__init__(app, num_nodes)
        self.pushed: list[tuple[str, int]] = []

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Note, then push."""
        batch = list(messages)
        for message in batch:
            node = self.contexts[message.metadata.dst_node_id]
            client = int(str(node.node_config["partition-id"]))
            self.pushed.append((message.metadata.message_type, client))
        return super().push_messages(batch)


class RestlessGrid(ToyGrid):
    """Hands back one reply at a time, in an order that a seed shuffles."""

    def __init__(self, app: ClientApp, num_nodes: int, seed: int) -> None:
        super().__init__(app, num_nodes)
        self._generator = np.random.default_rng(seed)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Have one of the messages that wait answered."""
        there = [i for i in message_ids if i in self._waiting]
        return super().pull_messages(self._generator.permutation(there)[:1].tolist())


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
        remember: bool = True,
        keepsakes: Mapping[str, Settings] | None = None,
        network: type[ToyModel] | None = None,
    ) -> None:
        self.asked: list[tuple[int, str]] = []
        self.seen: list[tuple[int, str, int]] = []
        self.faults: dict[int, Callable[[list[np.ndarray]], list[np.ndarray]]] = {}
        self.sizes = {client: 8 + 3 * client for client in range(clients)}
        self.shards = {client: shard(client, size) for client, size in self.sizes.items()}
        held_out = {client: shard(client, 6, salt=1) for client in self.sizes}
        self.home = home
        network = network or ToyModel
        workbench = network(0)
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
            holdings = Holdings(toy.shards[client], held_out[client], network, workbench)
            return Watched(client, holdings, ClientMemory(Path(str(config[Wire.HOME])), client))

        self.initial: Arrays = arrays_of(network(seed))
        self.app = make_client_app(make)
        self.grid = ToyGrid(self.app, clients)
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
            remember=remember,
            keepsakes=keepsakes or {},
            distil=half_taught,
        )
        if self.late:
            self._delay_joining()
        self.federation.roster = Roster.discover(
            self.grid, clients, self.federation.client_config, timeout_s=10
        )

    def branch(self, home: Path, *, grid: ToyGrid | None = None) -> ToyFederation:
        """Return the same federation on copies of all it keeps, with an empty ledger.

        What was noted in ``asked`` and ``seen`` and planted in ``faults`` is wiped, for both.
        """
        twin, roster = copy.copy(self), self.federation.roster
        assert roster is not None
        for notes in (self.asked, self.seen, self.faults):
            notes.clear()  # type: ignore[attr-defined]
        if self.home.exists():
            shutil.copytree(self.home, home, dirs_exist_ok=True)
        twin.home, twin.grid = home, grid or ToyGrid(self.app, len(self.sizes))
        twin.federation = replace(
            self.federation,
            history=self.federation.history.fork(None),
            ledger=Ledger(),
            client_config={**self.federation.client_config, Wire.HOME: str(home)},
            roster=Roster(twin.grid, roster.nodes, roster.declared),
            forgotten=Forgotten(),
            costs={},
        )
        if self.late:
            twin._delay_joining()
        return twin

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

    def learn_without_serving(self, rounds: int) -> Arrays:
        """Return the model after plain learning during which the ledger lies closed."""
        ledger, self.federation.ledger = self.federation.ledger, Ledger()
        try:
            return self.learn(rounds)
        finally:
            self.federation.ledger = ledger

    def unlearn(self, strategy: UnlearningStrategy, request: Request, arrays: Arrays) -> Arrays:
        """Return what ``strategy`` makes of a request, the stores left as they are."""
        strategy.join(self.federation)
        return strategy.unlearn(request, self.federation.history, arrays)

    def unlearn_checked(
        self, strategy: UnlearningStrategy, request: Request, arrays: Arrays
    ) -> Arrays:
        """Return the same, after the strategy's own check of the request."""
        strategy.join(self.federation)
        strategy.check(request)
        return self.unlearn(strategy, request, arrays)

    def learn(self, rounds: int = 4) -> Arrays:
        """Return the model after plain learning."""
        return self.run(UnlearningStrategy(), rounds=rounds)

    def answers_alike(self, *strategies: UnlearningStrategy) -> bool:
        """Return whether, from the same history, all make the same of a client's leaving."""
        arrays, asked = self.learn(), request(Scope.CLIENT)
        twins = [self.branch(self.home / f"twin-{place}") for place in range(len(strategies))]
        pairs = zip(twins, strategies, strict=True)
        return len({named.digest(twin.unlearn(one, asked, arrays)) for twin, one in pairs}) == 1


def record_configs(toy: ToyFederation) -> list[dict[str, object]]:
    """Return a list that grows with the config of every training message."""
    seen: list[dict[str, object]] = []
    push = toy.grid.push_messages

    def noting(messages: Iterable[Message]) -> Iterable[str]:
        batch = list(messages)
        for message in batch:
            if message.metadata.message_type == "train":
                seen.append(dict(message.content["config"]))  # type: ignore[call-overload]
        return push(batch)

    toy.grid.push_messages = noting  # type: ignore[method-assign]
    return seen

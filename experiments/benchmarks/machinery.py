"""What the machinery costs: ``make bench``.

Every figure is a ratio of two things measured in turn within one run, so that a noisy machine
disturbs both. Prints a table, and with ``--json`` the same as JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from flwr.app import (
    ConfigRecord,
    Context,
    Message,
    MessageType,
    MetricRecord,
    RecordDict,
)
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg
from rich.console import Console
from rich.table import Table
from torch.nn import functional

from clients.app import make_client_app
from clients.participant import Holdings, Participant, arrays_of
from clients.steps import Local, Shard
from clients.steps.train import train
from experiments.config.loading import Config
from experiments.federation import launch
from experiments.federation.grids import LocalGrid
from experiments.models import networks as models
from strategies.base import UnlearningStrategy
from strategies.federation import Federation
from strategies.roster import Roster
from strategies.wire import to_record
from unlearning.arrays import Array, Arrays
from unlearning.protocol import Scalar, Wire
from unlearning.records.history import History
from unlearning.records.memory import ClientMemory

__all__ = ["main"]

Figures = dict[str, float]
Facts = dict[str, Any]  # what Flower's NumPyClient calls a config
_IMAGE, _CLASSES = (1, 28, 28), 10
_SGD: dict[str, Scalar] = {"batch_size": 128, "learning_rate": 0.01, "momentum": 0.9}


def _shard(size: int) -> Shard:
    generator = np.random.default_rng(0)
    x = generator.random((size, *_IMAGE), dtype=np.float32)
    return Shard(torch.from_numpy(x), torch.from_numpy(generator.integers(_CLASSES, size=size)))


def training(model_name: str, size: int, repeats: int) -> Figures:
    """Measure examples per second of the step ``train`` and of a bare PyTorch loop."""
    torch.set_num_threads(1)
    data, none = _shard(size), _shard(0)
    model = models.build(model_name, _IMAGE, _CLASSES)
    local = Local(data, none, none, lambda seed: model)

    def step() -> None:
        train(model, local, {**_SGD, "local_epochs": 1}, np.random.default_rng(0))

    def bare() -> None:
        optimiser = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
        order = torch.randperm(size)
        x, y = data.features[order], data.labels[order]
        for start in range(0, size, 128):
            optimiser.zero_grad()
            logits = model(x[start : start + 128])
            loss = functional.cross_entropy(logits, y[start : start + 128])
            torch.autograd.backward(loss)
            optimiser.step()

    ours, theirs = _in_turn(step, bare, repeats)
    return {
        f"{model_name} step (examples/s)": size / ours,
        f"{model_name} bare loop (examples/s)": size / theirs,
        f"{model_name} step / bare loop (ratio, at least 0.9)": theirs / ours,
    }


class _Idle(Participant):
    """A client that sends back what it was sent."""

    def fit(self, parameters: list[Array], config: Facts) -> tuple[list[Array], int, Facts]:
        """Return the parameters."""
        return parameters, 1, {Wire.NAMES: str(config[Wire.NAMES])}


def _idle(context: Context, config: dict[str, Scalar]) -> Participant:
    """Return an idle participant, without data."""
    none = _shard(1)
    holdings = Holdings(none, none, lambda seed: torch.nn.Identity(), torch.nn.Identity())
    client = int(str(context.node_config["partition-id"]))
    return _Idle(client, holdings, ClientMemory(None, client))


def _plain_answer(message: Message, context: Context) -> Message:
    """Answer as the empty client of a plain Flower app does."""
    record = message.content.array_records["arrays"]
    metrics = MetricRecord({"num-examples": 1})
    return Message(RecordDict({"arrays": record, "metrics": metrics}), reply_to=message)


class _Both(ClientApp):
    """Our client app for our messages, a plain Flower client for all others."""

    def __call__(self, message: Message, context: Context) -> Message:
        """Answer one message."""
        config = message.content.config_records.get(Wire.CONFIG, ConfigRecord())
        if message.metadata.message_type == MessageType.TRAIN and Wire.STEP not in config:
            return _plain_answer(message, context)
        return _ours(message, context)


_ours = make_client_app(_idle)
_both = _Both()


def messages(clients: int, rounds: int, repeats: int) -> Figures:
    """Measure seconds per client message on Ray: ours beside Flower's FedAvg, empty clients."""
    ours, plain = message_seconds(clients, 0, rounds, repeats)
    return {
        "message, ours (ms)": ours * 1e3,
        "message, plain FedAvg (ms)": plain * 1e3,
        "message, ours / plain (ratio, at most 1.1)": ours / plain,
    }


def message_seconds(clients: int, short: int, long: int, repeats: int) -> tuple[float, float]:
    """Return wall seconds of a message on Ray, in our strategy and in Flower's FedAvg.

    Parameters
    ----------
    clients : int
        Empty ones, which send back what they get.
    short, long : int
        Rounds; what the shorter run takes is subtracted. 0: nothing is.
    repeats : int
        Both are run in turn so often; medians count.
    """
    found: list[tuple[float, float]] = []
    arrays = arrays_of(models.build("mlp", _IMAGE, _CLASSES))

    def body(grid: Grid) -> None:
        federation = Federation(recovery_rounds=0)
        federation.roster = Roster.discover(grid, clients, {})

        def ours(rounds: int) -> None:
            strategy = UnlearningStrategy()
            federation.completed, federation.history = 0, History()
            strategy.join(federation)
            strategy.start(grid, to_record(arrays), num_rounds=rounds)

        def theirs(rounds: int) -> None:
            plain = FedAvg(
                fraction_evaluate=0.0, min_train_nodes=clients, min_available_nodes=clients
            )
            plain.start(grid, to_record(arrays), num_rounds=rounds)

        ours(1)  # workers import on first use
        theirs(1)
        for rounds in (short, long):
            if not rounds:
                found.append((0.0, 0.0))
                continue
            found.append(_in_turn(partial(ours, rounds), partial(theirs, rounds), repeats))

    config = Config.model_validate({"engine": {"workers": 2}, "device": "cpu"})
    launch.on_ray(config, clients, body, client_app=_both)
    (ours_short, plain_short), (ours_long, plain_long) = found
    sent = (long - short) * clients
    return (ours_long - ours_short) / sent, (plain_long - plain_short) / sent


def recording(clients: int, repeats: int, examples_per_s: float, examples: int) -> Figures:
    """Measure what recording adds to a round of the MNIST CNN, 12,000 examples a client."""
    arrays = arrays_of(models.build("cnn", _IMAGE, _CLASSES))
    seconds: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        history = History(Path(folder) / "history", keep=("globals", "updates"))
        history.start(arrays)
        for number in range(1, repeats + 1):
            begun = time.perf_counter()
            with history.record(number, arrays) as entry:
                for client in range(clients):
                    entry.add(client, examples, arrays)
            seconds.append(time.perf_counter() - begun)
        history.close()
    spent = statistics.median(seconds)
    trained = clients * examples / examples_per_s / 2  # two workers
    return {
        "recording a round (s)": spent,
        "training a round, two workers (s)": trained,
        "recording / training (share, at most 0.05)": spent / trained,
    }


def memory(counts: tuple[int, ...], parameters: int) -> Figures:
    """Measure the server's peak memory in one round, by the number of clients that reply."""
    arrays: Arrays = {"w": np.zeros(parameters, np.float32)}
    found: Figures = {}
    for clients in counts:
        grid = LocalGrid(_both, clients)
        federation = Federation(recovery_rounds=0)
        with tempfile.TemporaryDirectory() as folder:
            federation.history = History(Path(folder) / "history", keep=("globals", "updates"))
            federation.roster = Roster.discover(grid, clients, {})
            strategy = UnlearningStrategy()
            strategy.join(federation)
            tracemalloc.start()
            strategy.start(grid, to_record(arrays), num_rounds=1)
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            federation.history.close()
        found[f"peak memory, {clients} clients (models)"] = peak / arrays["w"].nbytes
    return found


def _in_turn(
    first: Callable[[], None], second: Callable[[], None], repeats: int
) -> tuple[float, float]:
    """Return the median seconds of two functions that are called in turn."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats):
        for function, found in zip((first, second), seconds, strict=True):
            begun = time.perf_counter()
            function()
            found.append(time.perf_counter() - begun)
    return statistics.median(seconds[0]), statistics.median(seconds[1])


def main() -> None:
    """Measure everything and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--quick", action="store_true", help="fewer repeats, for a smoke test")
    given = parser.parse_args()
    repeats = 2 if given.quick else 7
    figures = training("mlp", 4096, repeats * 3)
    cnn = training("cnn", 1024, repeats)
    figures |= cnn | recording(5, repeats, cnn["cnn step (examples/s)"], 12_000)
    figures |= memory((40, 100, 200) if not given.quick else (40, 80), 250_000)
    figures |= messages(10, 5, repeats)
    if given.json:
        print(json.dumps(figures, indent=1))
        return
    table = Table("Figure", "Value", title="fedunlearn bench")
    for name, value in figures.items():
        table.add_row(name, f"{value:,.4g}")
    Console().print(table)


if __name__ == "__main__":
    main()

"""Random sequences of deletions from small federations, each held against learning again.

``python -m experiments.benchmarks.sequences [--count 1000] [--features] [METHOD ...]`` draws,
sequence by sequence, clients and examples of random sizes, features and labels (some alike, some
clients with a single label), and two to five requests of random scopes; with ``--features`` most of
them ask for values of examples, of some clients or of all. After the last one the state is compared
with what a federation learns that never held what was named. Trees and clusters must agree bit for
bit, and so must heads of isolated tasks, of which one or two are forgotten; sums and machines, of
which something was taken out, to ``1e-6`` of the largest entry.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from experiments.benchmarks.deletions import founded, joined, started
from experiments.config.loading import from_mapping
from experiments.federation.task import Scenario, task
from strategies.base import UnlearningStrategy
from unlearning.arrays import Array, Arrays
from unlearning.fulfil import fulfil
from unlearning.records.ledger import Ledger
from unlearning.request import Request, Scope

__all__ = ["METHODS", "differ", "main"]

_COLUMNS = 3
_HOW = ("downdates", "inverse", "alpha", "history")  # how a state came about: not what it says

# Name -> strategy, model, rounds of learning, largest relative difference that rounding explains.
METHODS: dict[str, tuple[str, dict[str, Any], int, float]] = {
    "forest": ("forest-deletion", {"name": "forest", "trees": 5, "depth": 4}, 4, 0.0),
    "boosting": ("boosting-replay", {"name": "boosting", "iterations": 3, "depth": 2}, 6, 0.0),
    "local-forests": ("local-forest-removal", {"name": "local-forests", "trees": 3}, 1, 0.0),
    "k-means": ("k-means", {"name": "k-means", "clusters": 4}, 1, 0.0),
    "ridge": ("ridge", {"name": "ridge"}, 1, 1e-6),
    "svm-linear": ("svm", {"name": "svm", "kernel": "linear", "ceiling": 0.1}, 1, 1e-6),
    "svm-rbf": (
        "svm",
        {"name": "svm", "kernel": "rbf", "ceiling": 0.1, "features": 16},
        1,
        1e-6,
    ),
    "task-heads": ("isolated-adapters", {"name": "multi-task", "hidden": 4, "width": 4}, 2, 0.0),
}
_TASKS = ("left", "right", "parity")  # of the pairs of digits


def differ(method: str, number: int, *, features: bool = False) -> float:
    """Return by how much a random sequence's state differs from learning again, relatively.

    Parameters
    ----------
    method : str
        One of ``METHODS``.
    number : int
        Which sequence; the same number draws the same one.
    features : bool
        Whether most requests ask for values of examples.

    Returns
    -------
    float
        Largest difference of two entries over the largest entry, 0 where they agree bit for bit;
        infinite where names or shapes differ.
    """
    strategy, model, rounds, _ = METHODS[method]
    generator = np.random.default_rng([number, sorted(METHODS).index(method)])
    with TemporaryDirectory() as folder:
        home = Path(folder)
        isolated = _isolated(generator) if method == "task-heads" else ()
        seed = int(generator.integers(1000))
        config = from_mapping(
            {
                "seed": seed,
                "rounds": rounds,
                "strategy": strategy,
                **(_several(generator, isolated) if isolated else _one(generator, home)),
                "model": model | ({"isolated": ",".join(isolated)} if isolated else {}),
                "engine": {"grid": "local"},
            }
        )
        made = task(Scenario.of(config))
        ledger = Ledger()
        federation, grid = founded(config, made, ledger, home / "here")
        arrays = started(UnlearningStrategy(), federation, grid, rounds)
        sizes = dict(made.facts().clients)
        asked = (
            (Request(Scope.TASK, tasks=(one,)) for one in generator.permutation(isolated).tolist())
            if isolated
            else _requests(generator, sizes, made.num_classes, features)
        )
        for request in asked:
            answering = joined(strategy, config, federation)
            arrays = fulfil(request, answering, arrays, federation.history, ledger)
        other, grid = founded(config, made, ledger, home / "again")
        again = started(UnlearningStrategy(), other, grid, rounds)
    return _distance(_said(arrays), _said(again))


def main(arguments: Iterable[str]) -> int:
    """Print, method by method, how many of the sequences differ; return whether any does."""
    parser = argparse.ArgumentParser(
        description=__doc__, prog="python -m experiments.benchmarks.sequences"
    )
    parser.add_argument("methods", nargs="*", metavar="METHOD", help=", ".join(METHODS))
    parser.add_argument("--count", type=int, default=1000, help="sequences per method")
    parser.add_argument("--features", action="store_true", help="ask for values of examples")
    parser.add_argument("--first", type=int, default=0, help="number of the first sequence")
    chosen = parser.parse_args(list(arguments))
    if unknown := sorted(set(chosen.methods) - METHODS.keys()):
        parser.error(f"unknown method {unknown[0]!r} (known: {', '.join(METHODS)})")
    logging.getLogger("flwr").setLevel(logging.WARNING)  # a summary per learning
    print("| method | sequences | differ | largest relative difference |")
    print("| --- | --- | --- | --- |", flush=True)
    wrong = 0
    for method in chosen.methods or METHODS:
        numbers = range(chosen.first, chosen.first + chosen.count)
        found = [differ(method, n, features=chosen.features) for n in numbers]
        bad = [chosen.first + n for n, d in enumerate(found) if d > METHODS[method][3]]
        wrong += len(bad)
        named = f" (numbers {', '.join(map(str, bad[:5]))})" if bad else ""
        print(f"| {method} | {len(found)} | {len(bad)}{named} | {max(found):.2g} |", flush=True)
    return int(wrong > 0)


def _one(generator: np.random.Generator, home: Path) -> dict[str, Any]:
    """Return the settings of a random table."""
    return {
        "data": {"name": f"npz:{_drawn(generator, home)}", "partitioner": "natural-id"},
        "requests": [{"scope": "client", "clients": [0]}],
    }


def _isolated(generator: np.random.Generator) -> tuple[str, ...]:
    """Return which tasks do not train the trunk: at least one, not all."""
    count = int(generator.integers(1, len(_TASKS)))
    return tuple(sorted(generator.choice(_TASKS, count, replace=False).tolist()))


def _several(generator: np.random.Generator, isolated: Sequence[str]) -> dict[str, Any]:
    """Return the settings of random pairs of digits, of which clients hold random tasks."""
    return {
        "data": {
            "name": "digit-pairs",
            "clients": int(generator.integers(3, 6)),
            "limit": int(generator.integers(60, 120)),
            "tasks_per_client": int(generator.integers(1, len(_TASKS) + 1)),
        },
        "train": {"batch_size": 8, "learning_rate": 0.1, "momentum": 0.5, "local_epochs": 1},
        "requests": [{"scope": "task", "tasks": [isolated[0]]}],
    }


def _drawn(generator: np.random.Generator, home: Path) -> Path:
    """Write random examples of three to five clients; return the file."""
    clients = int(generator.integers(3, 6))
    sizes = generator.integers(3, 9, clients)
    owners = np.repeat(np.arange(clients), sizes)
    x = generator.random((len(owners), _COLUMNS)).astype(np.float32)
    x[generator.random(len(x)) < 0.1] = x[0]  # some alike
    y = generator.integers(0, 3, len(x))
    y[:3] = np.arange(3)
    y[owners == clients - 1] = 0  # a client with a single label
    path = home / "drawn.npz"
    np.savez(path, x=x, y=y, x_test=x[:6], y_test=y[:6], client=owners)
    return path


def _requests(
    generator: np.random.Generator, sizes: Mapping[int, int], num_classes: int, features: bool
) -> Iterable[Request]:
    """Yield two to five requests; at least two clients stay members."""
    gone: set[int] = set()
    for _ in range(int(generator.integers(2, 6))):
        client = int(generator.choice(sorted(sizes.keys() - gone)))
        if features and generator.random() < 0.7:
            some = generator.choice(_COLUMNS, int(generator.integers(1, _COLUMNS)), replace=False)
            owners = (client,) if generator.random() < 0.6 else ()
            yield Request(Scope.FEATURE, clients=owners, features=tuple(map(int, some)))
            continue
        kind = generator.random()
        if kind < 0.2 and len(sizes) - len(gone) > 2:
            gone.add(client)
            yield Request(Scope.CLIENT, clients=(client,))
        elif kind < 0.3:
            yield Request(Scope.CLASS, classes=(int(generator.integers(num_classes)),))
        elif sizes[client]:
            count = int(generator.integers(1, 3))
            picked = generator.choice(sizes[client], min(count, sizes[client]), replace=False)
            yield Request(Scope.SAMPLE, samples={client: tuple(sorted(map(int, picked)))})


def _said(arrays: Arrays) -> Arrays:
    return {name: a for name, a in arrays.items() if name.partition("/")[0] not in _HOW}


def _distance(left: Mapping[str, Array], right: Mapping[str, Array]) -> float:
    if left.keys() != right.keys():
        return float("inf")
    largest = 0.0
    for name, array in left.items():
        other = right[name]
        if array.shape != other.shape:
            return float("inf")
        if array.size and not np.array_equal(array, other):
            gap = np.abs(array.astype(np.float64) - other.astype(np.float64)).max()
            largest = max(largest, float(gap / max(np.abs(other).max(), 1.0)))
    return largest


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

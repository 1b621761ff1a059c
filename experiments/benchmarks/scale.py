"""How cost grows: ``python -m experiments.benchmarks.scale [--clients 10,100] [--models mlp,cnn]``.

Clients in this process, four examples each, one local epoch: bytes of history, CPU seconds and
memory of a round, then of one request after the other. Every figure comes from a process of its
own. What a million clients would ask for is worked out, not measured: bytes by what the strategies
keep. Prints the page that ``experiments/results/scale.md`` keeps.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from experiments.benchmarks.speed.clock import HERE, Child, child
from experiments.config.loading import load
from experiments.data.embedded import read_digits
from experiments.federation.task import Scenario, task
from strategies.registry import strategies

__all__ = ["by_clients", "by_requests", "kept", "main"]

_CONFIG = "experiments/configs/digits_client.toml"
_CLIENTS = (10, 100, 1_000, 10_000)
_MODELS = {
    "mlp": ("model.name=mlp",),
    "cnn": ("model.name=cnn", "model.hidden=32", "model.width=8"),
}
_EACH, _ROUNDS, _REQUESTS, _ASKED = 4, 2, 8, 100
_ON_RAY = 8  # rounds there
_MANY, _SAMPLED = 1_000_000, 1_000
_SPEED = Path(__file__).parent / "speed"
_PAGE = """# How cost grows

Made by `python -m experiments.benchmarks.scale`. Clients in one process, one thread, four digits
each, one local epoch; whatever is kept for `fed-eraser` lies on the disk: each round's model and
every update. A row is a process of its own; seconds are of its processor, a mean over two rounds
after the first. The `cnn` is a narrow one (8 and 16 channels, 32 hidden units); its clients
are trained one after the other, those of the `mlp` side by side. Load average before: {load:.1f}
on {cores} cores, which stretches seconds, not bytes.
"""
_ASKING = """## Requests

{clients} clients with the `mlp`, four rounds learned; requests for one sample each, one after the
other, served by `{strategy}` through ledger and history on the disk.
"""
_CLUSTER = """## On a Ray cluster

The same on two nodes, a head and a worker of one processor each, joined by `engine.ray_address`;
made by the command with `--ray`. History is as above, since the server keeps it. Wall seconds of a
round, a mean over {rounds} after the first, include the look at the model after each; processor
seconds are those of all processes, the start and the end of the cluster among them. Load average
before: {load:.1f} on {cores} cores.
"""
_PAPER = """## A million clients, on paper

Not measured: a model's bytes times what a strategy keeps. Where all of a million train in a round
that keeps updates, these have to be sampled; nothing else grows by the round.
"""
_PLAIN = ("train.local_epochs=1", "data.held_out=0")

Row = tuple[object, ...]


def _data(folder: Path, count: int) -> str:
    """Write so many digits, each a little different from the one it was made of; return a name."""
    found = read_digits(None, download=False)
    generator = np.random.default_rng(0)
    chosen = generator.integers(len(found.train_y), size=count)
    x = found.train_x[chosen]
    x = np.clip(x + generator.normal(0, 0.01, x.shape).astype(np.float32), 0, 1)
    path = folder / f"{count}.npz"
    test_x, test_y = found.test_x[:200], found.test_y[:200]
    np.savez(path, x=x, y=found.train_y[chosen], x_test=test_x, y_test=test_y)
    return f"data.name=npz:{path}"


def _changes(folder: Path, clients: int, model: str) -> list[str]:
    data = _data(folder, _EACH * clients)
    return [data, f"data.clients={clients}", *_MODELS[model], *_PLAIN]


def by_clients(counts: Sequence[int], models: Sequence[str]) -> Iterable[Row]:
    """Yield a row per number of clients and model, of a round after the first."""
    for model in models:
        for clients in counts:
            with TemporaryDirectory() as home:
                asked = {"config": _CONFIG, "changes": _changes(Path(home), clients, model)}
                found = _measured("clients_child.py", {**asked, "rounds": _ROUNDS})
            seconds = found.answer["round_s"]
            size = found.answer["history_bytes"] / (_ROUNDS + 1)
            yield (
                model, clients, f"{size / 1e6:.3g}", f"{size / clients / 1e3:.1f}",
                f"{seconds:.3g}", f"{1e3 * seconds / clients:.2f}", f"{found.megabytes:.0f}",
            )  # fmt: skip


def by_cluster(counts: Sequence[int], models: Sequence[str]) -> Iterable[Row]:
    """Yield a row per number of clients and model, on a Ray cluster of two nodes."""
    for model in models:
        for clients in counts:
            with TemporaryDirectory() as home:
                changes = [*_changes(Path(home), clients, model), "recovery_rounds=1"]
                asked = {"config": _CONFIG, "changes": changes, "rounds": _ON_RAY}
                found = _measured("ray_child.py", asked)
            seconds = float(found.answer["round_s"])
            yield (
                model, clients, f"{seconds:.3g}", f"{1e3 * seconds / clients:.1f}",
                f"{found.cpu_s:.0f}", f"{found.megabytes:.0f}",
            )  # fmt: skip


def by_requests(strategy: str, clients: int = _ASKED, count: int = _REQUESTS) -> Iterable[Row]:
    """Yield a row per request for one sample, served one after the other."""
    with TemporaryDirectory() as home:
        asked = {"config": _CONFIG, "changes": [*_changes(Path(home), clients, "mlp"), "rounds=4"]}
        needs = sorted(strategies()[strategy].needs)
        further = {"strategy": strategy, "count": count, "keep": needs}
        found = _measured("deletions_child.py", {**asked, **further})
    answers = zip(found.answer["deletions_s"], found.answer["history_bytes"], strict=True)
    total = 0.0
    for number, (seconds, size) in enumerate(answers, 1):
        total += seconds
        yield number, f"{seconds:.3g}", f"{total:.3g}", f"{size / 1e6:.3g}"


def kept(model_bytes: int) -> Iterable[Row]:
    """Yield what each kind of strategy keeps, and gigabytes at a million clients, on paper.

    Parameters
    ----------
    model_bytes : int
        Of one model; an update is as large.
    """
    groups: dict[str, list[str]] = {}
    for alias, kind in strategies().items():
        groups.setdefault(", ".join(sorted(kind.needs)) or "nothing", []).append(alias)
    for needs, names in sorted(groups.items()):
        per_round, once = model_bytes * ("globals" in needs), 0
        each = model_bytes * ("updates" in needs)
        if "contributions" in needs:
            once = 2 * model_bytes * _MANY  # sums in float64, of everybody who ever took part
        gigabytes = [(per_round + clients * each) / 1e9 for clients in (_MANY, _SAMPLED)]
        shown = [f"{size:.3g}" for size in (*gigabytes, once / 1e9)]
        yield needs, len(names), ", ".join(sorted(names)[:4]), *shown


def _measured(script: str, asked: dict[str, object]) -> Child:
    return child(_SPEED / script, HERE, [json.dumps(asked)], timeout_s=1_200)


def _table(head: Sequence[str], rows: Iterable[Row]) -> None:
    print(f"| {' | '.join(head)} |\n|{' --- |' * len(head)}", flush=True)
    for row in rows:
        print(f"| {' | '.join(map(str, row))} |", flush=True)
    print(flush=True)


def main(arguments: Sequence[str]) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", default=",".join(map(str, _CLIENTS)), metavar="10,100")
    parser.add_argument("--models", default="mlp,cnn", metavar="mlp,cnn")
    parser.add_argument("--strategy", default="fed-eraser", help="who serves the requests")
    parser.add_argument(
        "--ray", action="store_true", help="on a Ray cluster of two nodes, started for it; no more"
    )
    chosen = parser.parse_args(list(arguments))
    counts = [int(one) for one in chosen.clients.split(",")]
    models = chosen.models.split(",")
    if unknown := [name for name in models if name not in _MODELS]:
        parser.error(f"--models {unknown[0]} is unknown; give {' or '.join(_MODELS)}")
    if chosen.ray:
        cores, load_before = os.cpu_count(), os.getloadavg()[0]
        print(_CLUSTER.format(load=load_before, cores=cores, rounds=_ON_RAY - 1))
        _table(
            ("model", "clients", "wall s a round", "ms a client", "CPU s of all", "MB of memory"),
            by_cluster(counts, models),
        )
        return 0
    print(_PAGE.format(load=os.getloadavg()[0], cores=os.cpu_count()))
    _table(
        ("model", "clients", "MB of history a round", "kB a client", "CPU s a round",
         "ms a client", "MB of memory"),
        by_clients(counts, models),
    )  # fmt: skip
    print(_ASKING.format(clients=_ASKED, strategy=chosen.strategy))
    _table(
        ("requests", "CPU s of the last", "CPU s of all", "MB of history"),
        by_requests(chosen.strategy),
    )
    print(_PAPER)
    for model in models:
        made = task(Scenario.of(load(HERE / _CONFIG, _MODELS[model])))
        size = sum(array.nbytes for array in made.initial().values())
        print(f"{model}, {size / 1e3:.1f} kB, at {_MANY:,} clients:\n")
        _table(
            ("kept", "strategies", "such as", "GB a round, all train",
             f"GB a round, {_SAMPLED:,} sampled", "GB once"),
            kept(size),
        )  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

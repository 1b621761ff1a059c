"""Measure task unlearning: python -m experiments.taskbench [CONFIG] [--seeds N] [--out FILE].

Beside the scorecard of a comparison: accuracy of the retained tasks and of the worst of them, the
old head on the new trunk, a fresh head on the frozen trunk, rounds to relearn, and how alike the
trunks are; each seed is a line per strategy, and the means go to the terminal.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from clients.multitask import NONE, MultiTask
from experiments import models
from experiments.app import client_app
from experiments.conduct import Conductor, Party
from experiments.config import Config, load
from experiments.grids import LocalGrid
from experiments.registry import make
from experiments.results import FINE_TUNE, ORIGINAL, RETRAIN
from experiments.runfolder import RunFolder
from experiments.taskjudge import task_accuracy
from experiments.tasks import Scenario, Task, task
from strategies.base import UnlearningStrategy
from strategies.federation import Federation
from strategies.roster import Roster
from strategies.wire import to_record
from unlearning.arrays import Arrays
from unlearning.heads import task_of
from unlearning.history import History
from unlearning.ledger import Ledger
from unlearning.protocol import Wire
from unlearning.scorecard import score, summarise

__all__ = ["linear_cka", "measure", "probe_accuracy"]

_PROBE = 300  # labelled examples that a fresh head is trained on
_RELEARN = 20  # rounds at most
_NEAR = 0.02  # relearned: within this of the original's accuracy

Floats = NDArray[np.float32]


def features(found: Task, arrays: Arrays, x: Floats) -> Floats:
    """Return what the trunk makes of some inputs, shape (n, width)."""
    model = models.load(found.fresh_model(0), arrays)
    if not isinstance(model, MultiTask):
        raise TypeError(f"{type(model).__name__} has no trunk; take the model multi-task")
    with torch.inference_mode():
        read: Floats = model.eval().trunk(torch.from_numpy(np.ascontiguousarray(x))).numpy()
    return read


def probe_accuracy(found: Task, arrays: Arrays, name: str, seed: int) -> float:
    """Return the test accuracy of a fresh ridge head for a task on the frozen trunk.

    It is trained on 300 labelled examples of the clients' data, the same for every trunk.
    """
    from sklearn.linear_model import RidgeClassifier

    place = list(found.tasks).index(name)
    xs, ys = [], []
    for client in found.clients:
        labels, _ = found.task_labels(client)
        there = labels[:, place] != NONE
        xs.append(found.client(client).train_x[there])
        ys.append(labels[there, place])
    x, y = np.concatenate(xs), np.concatenate(ys)
    some = np.random.default_rng([seed, 300]).permutation(len(y))[:_PROBE]
    head = RidgeClassifier().fit(features(found, arrays, x[some]), y[some])
    labels = found.test_task_labels()[:, place]
    there = labels != NONE
    read = features(found, arrays, found.test_set().x[there])
    return float((head.predict(read) == labels[there]).mean())


def linear_cka(left: Floats, right: Floats) -> float:
    """Return the linear CKA of two representations of the same inputs, 0 to 1."""
    a, b = (part - part.mean(axis=0) for part in (left.astype(np.float64), right))
    cross = np.linalg.norm(a.T @ b) ** 2
    scale = np.linalg.norm(a.T @ a) * np.linalg.norm(b.T @ b)
    return float(cross / scale) if scale else 0.0


def relearn_rounds(config: Config, found: Task, arrays: Arrays, name: str, goal: float) -> int:
    """Return the rounds of ordinary learning, the task included, until its accuracy is back.

    More than twenty count as twenty-one.
    """
    grid = LocalGrid(client_app, len(found.clients))
    reached: list[int] = []

    def watch(phase: str, server_round: int, now: Arrays) -> None:
        if not reached and task_accuracy(found, now)[name] >= goal:
            reached.append(server_round)

    with tempfile.TemporaryDirectory() as home:
        settings = {
            Wire.SCENARIO: found.scenario.to_json(),
            Wire.DEVICE: "cpu",
            Wire.HOME: home,
        }
        train = config.train.model_dump()
        fraction = train.pop("fraction")
        federation = Federation(
            seed=config.seed + 1000,
            history=History(),
            ledger=Ledger(),
            train=train,
            fraction=fraction,
            recovery_rounds=0,
            client_config=settings,
            watch=watch,
            stop=lambda: False,
        )
        federation.roster = Roster.discover(grid, len(found.clients), settings, timeout_s=60)
        for _ in range(_RELEARN):
            learner = UnlearningStrategy()
            learner.join(federation)
            result = learner.start(grid, to_record(arrays), num_rounds=1)
            arrays = {k: v.numpy() for k, v in result.arrays.items()}
            if reached:
                return reached[0]
    return _RELEARN + 1


def _line(
    config: Config, found: Task, party: Party, all_: Mapping[str, Party]
) -> dict[str, object]:
    (request,) = config.domain_requests({})
    name = request.tasks[0]
    original, retrained = all_[ORIGINAL], all_[RETRAIN]
    seen, base = task_accuracy(found, party.arrays), task_accuracy(found, retrained.arrays)
    stays = [q for q in found.tasks if q not in request.tasks]
    old = {
        n: original.arrays[n] if task_of(n) == name else array for n, array in party.arrays.items()
    }
    test = found.test_set().x[found.test_task_labels()[:, list(found.tasks).index(name)] != NONE]
    here = features(found, party.arrays, test)
    card = score(party.outputs, retrained.outputs)
    goal = task_accuracy(found, original.arrays)[name] - _NEAR
    spent = [party.costs[p].examples for p in ("unlearn", "recover") if p in party.costs]
    again = [retrained.costs[p].examples for p in ("unlearn", "recover") if p in retrained.costs]
    return {
        "seed": config.seed,
        "strategy": party.strategy,
        "guarantee": party.guarantee,
        "retained": float(np.mean([seen[q] for q in stays])),
        "retained_worst": min(seen[q] for q in stays),
        "worst_change": min(seen[q] - base[q] for q in stays),
        "old_head": task_accuracy(found, old)[name],
        "own_head": seen[name],
        "probe": probe_accuracy(found, party.arrays, name, config.seed),
        "relearn_rounds": relearn_rounds(config, found, party.arrays, name, goal),
        "cka_retrained": linear_cka(here, features(found, retrained.arrays, test)),
        "cka_original": linear_cka(here, features(found, original.arrays, test)),
        "mia_auc": card.mia_auc,
        "speedup_examples": sum(again) / sum(spent) if sum(spent) else None,
    }


def measure(config: Config, strategies: Mapping[str, str]) -> list[dict[str, object]]:
    """Return a line per strategy for the config's seed.

    Parameters
    ----------
    config : Config
        With one request of scope task.
    strategies : mapping of str to str
        Name of the line to ``alias`` or ``alias:option=number,...``.
    """
    found = task(Scenario.of(config))
    found.requests(config)
    grid = LocalGrid(client_app, len(found.clients))
    chosen = {}
    for label, text in strategies.items():
        alias, _, options = text.partition(":")
        pairs = (part.split("=") for part in options.split(",") if part)
        given = {key: float(value) if "." in value else int(value) for key, value in pairs}
        chosen[label] = make(alias, {**config.options_for(alias), **given})
    with tempfile.TemporaryDirectory() as folder:
        run = RunFolder.claim(Path(folder) / "run", config.to_dict())
        conductor = Conductor(config, found, run, Ledger(), lambda tick: None, lambda: False)
        parties = {party.strategy: party for party in conductor.compare(grid, chosen)}
    return [_line(config, found, party, parties) for party in parties.values()]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the measurement that the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m experiments.taskbench")
    parser.add_argument("config", nargs="?", default="experiments/configs/digit_pairs_task.toml")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", default="experiments/results/tasks.csv")
    parser.add_argument("--set", action="append", default=[], help="key=value, as for compare")
    parser.add_argument("--strategy", action="append", default=[], help="alias[:option=value,...]")
    given = parser.parse_args(arguments)
    config = load(given.config, [*given.set, "device=cpu", "engine.grid=local"])
    names = given.strategy or [
        "head-drop",
        "task-subtraction:alpha=0.1",
        "task-subtraction:alpha=0.2",
        "task-subtraction:alpha=0.3",
        "task-subtraction:alpha=0.75",
        "task-osd",
        "task-negation",
    ]
    # A colon would make a module of the name.
    wanted = dict.fromkeys((RETRAIN, FINE_TUNE, *names))
    strategies = {name.replace(":", " "): name for name in wanted}
    lines: list[dict[str, object]] = []
    for seed in range(given.seeds):
        lines += measure(config.model_copy(update={"seed": seed}), strategies)
        _write(Path(given.out), lines)
        print(f"seed {seed} done", flush=True)
    _show(lines)


def _write(path: Path, lines: Sequence[Mapping[str, object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(lines[0]), lineterminator="\n")
        writer.writeheader()
        for line in lines:
            writer.writerow(
                {k: round(v, 6) if isinstance(v, float) else v for k, v in line.items()}
            )


def _show(lines: Sequence[Mapping[str, object]]) -> None:
    columns = ("retained", "retained_worst", "worst_change", "old_head", "probe", "relearn_rounds",
               "cka_retrained", "speedup_examples")  # fmt: skip
    print(f"{'strategy':40s}" + "".join(f"{c:>18s}" for c in columns))
    for name in dict.fromkeys(str(line["strategy"]) for line in lines):
        cells = []
        for column in columns:
            values = [float(str(v)) for line in lines if line["strategy"] == name
                      and (v := line[column]) is not None]  # fmt: skip
            if not values:
                cells.append("-")
                continue
            spread = summarise(values)
            cells.append(f"{spread.mean:.3f}" + (f" ± {spread.sd:.3f}" if spread.sd else ""))
        print(f"{name:40s}" + "".join(f"{c:>18s}" for c in cells))


if __name__ == "__main__":
    main()

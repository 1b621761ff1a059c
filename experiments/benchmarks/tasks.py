"""Measure task unlearning.

Call: ``python -m experiments.benchmarks.tasks [CONFIG] [--seeds N] [--out FILE]``.

A line per seed and strategy with what a comparison measures of tasks, and what it cost; the means
go to the terminal. Each ``--recovery`` is a budget, the same for all: ``start-again`` spends it on
learning from the initial model, which is retraining cut to what the others may spend.
"""

from __future__ import annotations

import argparse
import csv
import logging
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from clients.multitask import NONE
from experiments.config.loading import Config, load
from experiments.config.registry import make_from_text
from experiments.federation.conduct import Conductor
from experiments.federation.grids import LocalGrid
from experiments.federation.participants import client_app
from experiments.federation.party import Party
from experiments.federation.task import Scenario, Task, task
from experiments.federation.task_judge import pair_predictions
from experiments.federation.task_measures import measure
from experiments.runs.details import TaskMeasure
from experiments.runs.folder import RunFolder
from experiments.runs.results import FINE_TUNE, ORIGINAL, RETRAIN
from strategies.base import UnlearningStrategy
from unlearning.arrays import Arrays, digest
from unlearning.evaluation.metrics import accuracy
from unlearning.evaluation.scorecard import score, summarise
from unlearning.records.history import History
from unlearning.records.ledger import Ledger
from unlearning.request import Guarantee, Request, Scope

__all__ = ["chosen_by_validation", "lines_of"]

START_AGAIN, SUBTRACTION = "start-again", "task-subtraction"
_POOLED = ("retained", "retained_worst", "worst_change")
_OF_TASK = ("old_head", "probe", "relearn_rounds", "cka_retrained", "cka_original")
_MARGIN = 0.01  # that the retained tasks may lose on held-out data where an option is chosen


class StartAgain(UnlearningStrategy):
    """The initial model; the recovery rounds are all the learning there is."""

    scopes = frozenset(Scope)
    guarantee = Guarantee.EXACT

    def prepare(self, request: Request, history: History, arrays: Arrays) -> tuple[Arrays, int]:
        """Go back to the model that nobody influenced."""
        return history.initial, 0


def _line(
    config: Config,
    found: Task,
    party: Party,
    parties: Mapping[str, Party],
    measured: Sequence[TaskMeasure],
) -> dict[str, object]:
    (request,) = config.domain_requests({})
    name = request.tasks[0]
    own = [m for m in measured if m.strategy == party.strategy]
    pooled = {m.measure: m.value for m in own if m.measure in _POOLED}
    of_task = {m.measure: m.value for m in own if m.task == name}
    original, retrained = parties[ORIGINAL], parties[RETRAIN]
    card = score(party.outputs, retrained.outputs)
    spent = [party.costs[p].examples for p in ("unlearn", "recover") if p in party.costs]
    again = [retrained.costs[p].examples for p in ("unlearn", "recover") if p in retrained.costs]
    return {
        "seed": config.seed,
        "recovery_rounds": config.recovery_rounds,
        "strategy": party.strategy,
        "guarantee": party.guarantee,
        **{key: pooled.get(key) for key in _POOLED},
        "retained_held_out": validation_accuracy(found, party.arrays, request),
        "own_head": of_task["accuracy"],
        **{key: of_task.get(key) for key in _OF_TASK},
        "forget_accuracy": card.forget_accuracy,
        "mia_auc": card.mia_auc,
        "prediction_distance": card.prediction_distance,
        "equals_retrained": digest(party.arrays) == digest(retrained.arrays),
        "others_as_original": np.array_equal(
            party.outputs.test.probabilities, original.outputs.test.probabilities
        ),
        "examples": sum(spent),
        "speedup_examples": sum(again) / sum(spent) if sum(spent) else None,
    }


def validation_accuracy(found: Task, arrays: Arrays, request: Request) -> float:
    """Return the accuracy of the retained tasks on the clients' held-out data, none of it test."""
    gone = np.array([name in request.tasks and not request.clients for name in found.tasks])
    xs, ys = [], []
    for client in found.clients:
        _, labels = found.task_labels(client)
        xs.append(found.client(client).held_x)
        ys.append(np.where(gone, NONE, labels))
    pairs = pair_predictions(found, found.predict(arrays, np.concatenate(xs)), np.concatenate(ys))
    return accuracy(pairs.probabilities, pairs.labels)


def chosen_by_validation(lines: Sequence[Mapping[str, object]]) -> dict[str, object] | None:
    """Return the line of the task subtraction that an operator would choose, without test data.

    That of the largest alpha whose retained tasks lose at most 0.01 on held-out data against the
    original; None if there is none, or no choice.
    """
    (before,) = (line for line in lines if line["strategy"] == ORIGINAL)
    least = float(str(before["retained_held_out"])) - _MARGIN
    tried = {
        float(str(line["strategy"]).partition("alpha=")[2]): line
        for line in lines
        if str(line["strategy"]).startswith(f"{SUBTRACTION} alpha=")
    }
    good = [a for a, line in tried.items() if float(str(line["retained_held_out"])) >= least]
    if len(tried) < 2 or not good:
        return None
    return {**tried[max(good)], "strategy": f"{SUBTRACTION} by validation"}


def lines_of(
    config: Config, strategies: Sequence[str], relearn: int | None = None
) -> list[dict[str, object]]:
    """Return a line per strategy for the config's seed and recovery rounds.

    Parameters
    ----------
    config : Config
        With one request of scope task.
    strategies : sequence of str
        ``alias`` or ``alias:option=number,...``.
    relearn : int or None
        Rounds after which relearning is given up, as for
        :func:`experiments.federation.task_measures.measure`.
    """
    found = task(Scenario.of(config))
    requests = found.requests(config)
    grid = LocalGrid(client_app, len(found.clients))
    chosen = {}
    # A colon would make a module of the name.
    for text in dict.fromkeys((RETRAIN, FINE_TUNE, *strategies)):
        chosen[text.replace(":", " ")] = _strategy(config, text)
    with tempfile.TemporaryDirectory() as folder:
        run = RunFolder.claim(Path(folder) / "run", config.to_dict())
        conductor = Conductor(config, found, run, Ledger(), lambda tick: None, lambda: False)
        outcomes = list(conductor.compare(grid, chosen))
    parties = [outcome for outcome in outcomes if isinstance(outcome, Party)]
    for failure in outcomes:
        if not isinstance(failure, Party):
            print(f"{failure.strategy}: {failure.reason}", flush=True)
    measured = measure(grid, config, found, requests, parties, limit=relearn)
    by_name = {party.strategy: party for party in parties}
    lines = [_line(config, found, party, by_name, measured) for party in parties]
    by_validation = chosen_by_validation(lines)
    return lines if by_validation is None else [*lines, by_validation]


def _strategy(config: Config, text: str) -> UnlearningStrategy:
    if text.partition(":")[0] == START_AGAIN:
        return StartAgain()
    return make_from_text(text, config)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the measurement that the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m experiments.benchmarks.tasks")
    parser.add_argument("config", nargs="?", default="experiments/configs/digit_pairs_task.toml")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--recovery", type=int, action="append", default=[], help="rounds")
    parser.add_argument("--relearn", type=int, help="rounds at most; 0: do not relearn")
    parser.add_argument("--out", default="experiments/results/tasks.csv")
    parser.add_argument("--append", action="store_true", help="add to the file")
    parser.add_argument("--set", action="append", default=[], help="key=value, as for compare")
    parser.add_argument("--strategy", action="append", default=[], help="alias[:option=value,...]")
    given = parser.parse_args(arguments)
    logging.getLogger("flwr").setLevel(logging.ERROR)
    config = load(given.config, [*given.set, "device=cpu", "engine.grid=local"])
    names = given.strategy or [
        "head-drop",
        *(f"{SUBTRACTION}:alpha={alpha}" for alpha in (0.1, 0.2, 0.3, 0.75)),
        "task-osd",
        "task-negation",
        "task-restart",
    ]
    lines: list[dict[str, object]] = _read(Path(given.out)) if given.append else []
    before = len(lines)
    for seed in range(given.first, given.first + given.seeds):
        for rounds in given.recovery or [config.recovery_rounds]:
            changes = {"seed": seed, "recovery_rounds": rounds}
            lines += lines_of(config.model_copy(update=changes), names, given.relearn)
            _write(Path(given.out), lines)
            print(f"seed {seed}, {rounds} rounds of recovery: done", flush=True)
    _show(lines[before:])


def _read(path: Path) -> list[dict[str, object]]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [dict(line) for line in csv.DictReader(file)]


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
               "cka_retrained", "forget_accuracy", "mia_auc", "examples")  # fmt: skip
    print(f"{'strategy':36s}" + "".join(f"{c:>17s}" for c in columns))
    for rounds, name in dict.fromkeys(
        (line["recovery_rounds"], line["strategy"]) for line in lines
    ):
        cells = []
        for column in columns:
            values = [
                float(str(value))
                for line in lines
                if (line["recovery_rounds"], line["strategy"]) == (rounds, name)
                and (value := line[column]) is not None
            ]
            if not values:
                cells.append("-")
                continue
            spread = summarise(values)
            cells.append(f"{spread.mean:.3f}" + (f" ± {spread.sd:.3f}" if spread.sd else ""))
        print(f"{f'{name}, {rounds} rounds':36s}" + "".join(f"{c:>17s}" for c in cells))


if __name__ == "__main__":
    main()

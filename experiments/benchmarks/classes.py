"""Measure class unlearning.

Call: ``python -m experiments.benchmarks.classes [CONFIG ...] [--seeds 0,1] [--out F]``.

A line per config, seed and strategy: accuracy on the class and on the others before, right after
unlearning and after recovery, on at most a thousand training examples of each, and what it cost
beside retraining. ``--strategy class-pruning:share=0.2`` (may be repeated) tries other options on
the same learned model.
"""

from __future__ import annotations

import argparse
import csv
import logging
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from experiments.config.loading import Config, load
from experiments.config.registry import make_from_text
from experiments.federation.conduct import Conductor
from experiments.federation.grids import LocalGrid
from experiments.federation.participants import client_app
from experiments.federation.party import Party
from experiments.federation.task import Scenario, task
from experiments.runs.details import Point
from experiments.runs.folder import RunFolder
from experiments.runs.results import FINE_TUNE, ORIGINAL, RETRAIN
from strategies.base import UnlearningStrategy
from unlearning.cost import Cost, speedup
from unlearning.records.ledger import Ledger

__all__ = ["matched_round", "measure"]

_NEAR = 0.02  # as good as retrained: the others' accuracy lacks at most so much

Line = dict[str, object]


def measure(config: Config, strategies: Mapping[str, UnlearningStrategy]) -> list[Line]:
    """Return a line per strategy for the config's seed.

    Parameters
    ----------
    config : Config
        With one request of scope class.
    strategies : mapping of str to UnlearningStrategy
        By the name of the line; ``retrain`` must be among them.
    """
    found = task(Scenario.of(config))
    found.requests(config)
    grid = LocalGrid(client_app, len(found.clients))
    with tempfile.TemporaryDirectory() as place:
        folder = RunFolder.claim(Path(place) / "run", config.to_dict())
        conductor = Conductor(config, found, folder, Ledger(), lambda tick: None, lambda: False)
        found_all = list(conductor.compare(grid, strategies))
        parties = {one.strategy: one for one in found_all if isinstance(one, Party)}
    return [_line(party, parties[ORIGINAL], parties[RETRAIN]) for party in parties.values()]


def matched_round(recovery: Sequence[Point], goal: float) -> int | None:
    """Return after how many recovery rounds the others' accuracy has come near ``goal``; or None.

    Near is two points below; 0 would mean that it never left.
    """
    for number, point in enumerate(recovery, 1):
        if point.retain_accuracy is not None and point.retain_accuracy >= goal - _NEAR:
            return number
    return None


def _line(party: Party, original: Party, retrained: Party) -> Line:
    line: Line = {"seed": party.seed, "strategy": party.strategy}
    stages = {
        "before": _phase(original, "learn"),
        "unlearned": _phase(party, "unlearn"),
        "recovered": _phase(party, "recover"),
    }
    for label, points in stages.items():
        last = points[-1] if points else None
        line[f"class_{label}"] = last.forget_accuracy if last else None
        line[f"others_{label}"] = last.retain_accuracy if last else None
    if party is original:
        return line
    own, base = party.costs, retrained.costs
    spent, again = (sum(costs.values(), Cost()) for costs in (own, base))
    line["speedup_examples"] = speedup(again.examples, spent.examples)
    line["speedup_wall"] = speedup(again.wall_s, spent.wall_s)
    goal = _phase(retrained, "unlearn")[-1].retain_accuracy
    number = matched_round(stages["recovered"], goal) if goal is not None else None
    line["matched_round"] = number
    if number is not None and party is not retrained:
        part = number / len(stages["recovered"])
        need = own.get("unlearn", Cost()), own.get("recover", Cost())
        line["class_matched"] = stages["recovered"][number - 1].forget_accuracy
        line["speedup_matched_examples"] = speedup(
            base["unlearn"].examples, need[0].examples + part * need[1].examples
        )
        line["speedup_matched_wall"] = speedup(
            base["unlearn"].wall_s, need[0].wall_s + part * need[1].wall_s
        )
    return line


def _phase(party: Party, phase: str) -> list[Point]:
    return [point for point in party.timeline if point.phase == phase]


def _strategies(config: Config, texts: Sequence[str]) -> dict[str, UnlearningStrategy]:
    """Return the strategies that ``alias`` or ``alias:option=number,...`` name, controls first."""
    found: dict[str, UnlearningStrategy] = {}
    for text in dict.fromkeys((RETRAIN, FINE_TUNE, *(texts or config.strategies))):
        # A colon would make a module of the name.
        found[text.replace(":", " ")] = make_from_text(text, config)
    return found


def _write(path: Path, lines: Sequence[Line]) -> None:
    columns = dict.fromkeys(key for line in lines for key in line)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(columns), lineterminator="\n")
        writer.writeheader()
        for line in lines:
            writer.writerow(
                {k: round(v, 6) if isinstance(v, float) else v for k, v in line.items()}
            )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the measurement that the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m experiments.benchmarks.classes")
    parser.add_argument("configs", nargs="*", default=["experiments/configs/digits_class.toml"])
    parser.add_argument("--seeds", default="0,1,2", help="separated by commas")
    parser.add_argument("--out", default="experiments/results/classes.csv")
    parser.add_argument("--set", action="append", default=[], help="key=value, as for compare")
    parser.add_argument("--strategy", action="append", default=[], help="alias[:option=value,...]")
    given = parser.parse_args(arguments)
    logging.getLogger("flwr").setLevel(logging.WARNING)  # it would tell of every round
    lines: list[Line] = []
    for path in given.configs:
        for seed in map(int, given.seeds.split(",")):
            config = load(path, [*given.set, f"seed={seed}", "engine.grid=local"])
            chosen = _strategies(config, given.strategy)
            for line in measure(config, chosen):
                lines.append({"config": Path(path).stem, **line})
                cells = (f"{v:.3f}" if isinstance(v, float) else str(v) for v in line.values())
                print("  ".join(cells), flush=True)
            _write(Path(given.out), lines)


if __name__ == "__main__":
    main()

"""Measure class unlearning: python -m experiments.classbench [CONFIG ...] [--seeds N] [--out FILE].

A line per config, seed and strategy: accuracy on the class and on the others before, right after
unlearning and after recovery, on at most a thousand training examples of each, and what it cost
beside retraining.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from collections.abc import Sequence
from pathlib import Path

from experiments import launch
from experiments.config import load
from experiments.results import read_details, read_results

__all__ = ["measure"]

_PHASES = {"before": "learn", "unlearned": "unlearn", "recovered": "recover"}


def measure(path: str, seeds: Sequence[int], changes: Sequence[str]) -> list[dict[str, object]]:
    """Return a line per seed and strategy of a config with one request of scope class."""
    config = load(path, [*changes, "engine.grid=local"])
    with tempfile.TemporaryDirectory() as place:
        folder = launch.compare(
            config, Path(place) / "run", seeds=seeds, observer=lambda tick: None
        )
        _, rows = read_results(folder)
        details = read_details(folder)
    lines: list[dict[str, object]] = []
    for row in rows:
        line: dict[str, object] = {
            "config": Path(path).stem,
            "seed": row.seed,
            "strategy": row.strategy,
        }
        for label, phase in _PHASES.items():
            owner = "original" if phase == "learn" else row.strategy
            points = [
                point
                for point in details.timeline
                if (point.strategy, point.seed, point.phase) == (owner, row.seed, phase)
            ]
            last = points[-1] if points else None
            line[f"class_{label}"] = last.forget_accuracy if last else None
            line[f"others_{label}"] = last.retain_accuracy if last else None
        line["speedup_examples"] = row.cost["speedup_examples"]
        line["speedup_wall"] = row.cost["speedup_wall"]
        lines.append(line)
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the measurement that the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m experiments.classbench")
    parser.add_argument("configs", nargs="*", default=["experiments/configs/digits_class.toml"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", default="experiments/results/classes.csv")
    parser.add_argument("--set", action="append", default=[], help="key=value, as for compare")
    given = parser.parse_args(arguments)
    lines: list[dict[str, object]] = []
    for path in given.configs:
        lines += measure(path, range(given.seeds), given.set)
    out = Path(given.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(lines[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
    for line in lines:
        print("  ".join(f"{v:.3f}" if isinstance(v, float) else str(v) for v in line.values()))


if __name__ == "__main__":
    main()

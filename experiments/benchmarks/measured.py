"""What this code measured, worked out from the recorded results and from nothing else."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean, median

from experiments.runs.table import with_sd
from unlearning.evaluation.scorecard import summarise

__all__ = [
    "RESULTS",
    "Measure",
    "accuracy",
    "alone",
    "backdoor",
    "both",
    "gap",
    "nothing",
    "pruned_images",
    "ratio",
    "recent",
    "speed_up",
    "timeline",
]

RESULTS = Path(__file__).parents[1] / "results"

Row = Mapping[str, str]
Rows = Sequence[Row]
Measure = Callable[[str], str]  # strategy -> what we measured
_SALUN = ("retain_accuracy", "forget_accuracy", "test_accuracy", "mia_auc")


def _read(name: str) -> Rows:
    with (RESULTS / name).open(newline="") as file:
        return list(csv.DictReader(file))


def _pairs(name: str, strategy: str, other: str = "retrain") -> Iterator[tuple[Row, Row]]:
    """Yield a strategy's row beside another's, seed by seed."""
    rows = _read(name)
    others = {row["seed"]: row for row in rows if row["strategy"] == other}
    yield from ((row, others[row["seed"]]) for row in rows if row["strategy"] == strategy)


def _spread(values: Sequence[float], digits: int = 3) -> str:
    return with_sd(summarise(values), digits)


def accuracy(name: str) -> Measure:
    """Say the test accuracy of a file, beside retraining's."""

    def measure(strategy: str) -> str:
        pairs = list(_pairs(name, strategy))
        ours = _spread([float(row["test_accuracy"]) for row, _ in pairs])
        theirs = _spread([float(row["test_accuracy"]) for _, row in pairs])
        return f"test accuracy {ours}, retrained {theirs} (`{name}`)"

    return measure


def speed_up(name: str) -> Measure:
    """Say how many times fewer examples than retraining."""

    def measure(strategy: str) -> str:
        values = [float(row["speedup_examples"]) for row, _ in _pairs(name, strategy)]
        return f"{_spread(values, 2)}x by examples, recovery included (`{name}`)"

    return measure


def backdoor(name: str) -> Measure:
    """Say the backdoor's success, before and after."""

    def measure(strategy: str) -> str:
        before = [float(r["backdoor_success"]) for _, r in _pairs(name, strategy, "original")]
        after = [float(r["backdoor_success"]) for r, _ in _pairs(name, strategy)]
        return f"backdoor success {_spread(before)} to {_spread(after)} (`{name}`)"

    return measure


def gap(name: str) -> Measure:
    """Say the average gap to retraining over four measures, seed by seed."""

    def measure(strategy: str) -> str:
        gaps = [
            100 * mean(abs(float(row[key]) - float(other[key])) for key in _SALUN)
            for row, other in _pairs(name, strategy)
        ]
        return f"Avg Gap {_spread(gaps, 2)} points (`{name}`)"

    return measure


def alone(name: str, column: str) -> Measure:
    """Compare unlearning without the recovery that follows; fine-tuning is nothing but recovery."""

    def measure(strategy: str) -> str:
        recovery = {row["seed"]: float(row[column]) for row, _ in _pairs(name, "fine-tune")}
        ratios = [
            (float(other[column]) - recovery[row["seed"]])
            / (float(row[column]) - recovery[row["seed"]])
            for row, other in _pairs(name, strategy)
        ]
        what = column.replace("_", " ")
        saved = f"; {100 * (1 - 1 / mean(ratios)):.0f} % saved" if "client" in column else ""
        return f"{_spread(ratios, 2)}x by {what}{saved}, unlearning alone (`{name}`)"

    return measure


def timeline(phase: str, rounds: Sequence[int], name: str) -> Measure:
    """Read the recovery of a run over its timeline."""

    def measure(strategy: str) -> str:
        rows = [row for row in _read(name) if row["strategy"] == strategy and row["phase"] == phase]
        found = [rows[number - 1] for number in rounds]
        values = [
            f"{float(row['backdoor_success']):.3f} at {float(row['test_accuracy']):.3f} clean"
            for row in found
        ]
        after = " and ".join(str(number) for number in rounds)
        return f"after {after} rounds: {'; '.join(values)} (`{name}`)"

    return measure


def ratio(name: str) -> Measure:
    """Say the ratio that a file of the machinery holds."""

    def measure(strategy: str) -> str:
        rows = _read(name)
        identical = sum(row["identical"] == "True" for row in rows)
        ratio = median(float(row["ratio"]) for row in rows)
        largest = max(float(row["largest_difference"]) for row in rows)
        return (
            f"median {ratio:.1f}x; {identical} of {len(rows)} deletions identical, largest "
            f"difference {largest:.1e} (`{name}`)"
        )

    return measure


def recent(scope: str) -> Measure:
    """Tell accuracy, what is left of the forgotten and the speed-up, all beside retraining."""

    def measure(strategy: str) -> str:
        name = f"recent_{scope}.csv"
        key = "forget_accuracy" if scope == "class" else "backdoor_success"
        word = "the class" if scope == "class" else "marker"
        pairs = list(_pairs(name, strategy))
        told = []
        for label, column in (("test accuracy", "test_accuracy"), (word, key)):
            ours, theirs = (_spread([float(pair[at][column]) for pair in pairs]) for at in (0, 1))
            told.append(f"{label} {ours}, retrained {theirs}")
        speed = _spread([float(row["speedup_examples"]) for row, _ in pairs], 2)
        return f"{'; '.join(told)}; {speed}x by examples (`{name}`)"

    return measure


def both(first: Measure, second: Measure) -> Measure:
    """Say one thing, then another."""

    def measure(strategy: str) -> str:
        return f"{first(strategy)}; {second(strategy)}"

    return measure


def pruned_images(config: str) -> Measure:
    """Say what class pruning came to on images."""

    def measure(strategy: str) -> str:
        name = "classes_cifar10.csv"
        rows = [r for r in _read(name) if (r["config"], r["strategy"]) == (config, strategy)]
        whole, matched = (
            _spread([float(row[key]) for row in rows], 1)
            for key in ("speedup_examples", "speedup_matched_examples")
        )
        return (
            f"{whole}x by examples, {matched}x until the other classes are within two points of "
            f"retraining (`{name}`)"
        )

    return measure


def nothing(strategy: str) -> str:
    """Say that nothing was measured."""
    return "not measured in these terms"

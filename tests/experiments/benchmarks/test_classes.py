"""Measuring class unlearning: when others are well again, and a line per strategy and seed."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from experiments.benchmarks import classes as classbench
from experiments.benchmarks.classes import matched_round
from experiments.runs.details import Point
from unlearning.errors import ConfigError

SMALL = """
rounds = 3
recovery_rounds = 2
strategies = ["class-pruning"]
[data]
name = "digits"
clients = 3
limit = 200
[model]
name = "mlp"
hidden = 16
[train]
batch_size = 16
[[requests]]
scope = "class"
classes = [4]
"""


def recovery(*accuracies: float) -> list[Point]:
    return [
        Point(strategy="s", seed=0, phase="recover", round=i, retain_accuracy=a, wall_s=0.0)
        for i, a in enumerate(accuracies, 1)
    ]


@pytest.mark.parametrize(
    ("accuracies", "expected"), [((0.5, 0.78, 0.9), 2), ((0.8,), 1), ((0.5, 0.7), None), ((), None)]
)
def test_the_first_round_within_two_points(
    accuracies: tuple[float, ...], expected: int | None
) -> None:
    assert matched_round(recovery(*accuracies), 0.8) == expected


def test_a_line_per_strategy_and_seed(tmp_path: Path) -> None:
    config = tmp_path / "small.toml"
    config.write_text(SMALL)
    out = tmp_path / "out.csv"
    wanted = ["--strategy", "class-pruning", "--strategy", "class-pruning:share=0.4"]
    classbench.main([str(config), "--seeds", "0,7", "--out", str(out), *wanted])
    with out.open() as file:
        lines = list(csv.DictReader(file))
    names = ["original", "retrain", "fine-tune", "class-pruning", "class-pruning share=0.4"]
    assert [(line["seed"], line["strategy"]) for line in lines] == [
        (seed, name) for seed in ("0", "7") for name in names
    ]
    by_name = {line["strategy"]: line for line in lines[:5]}
    assert by_name["retrain"]["class_recovered"] == "0.0"
    assert by_name["retrain"]["speedup_examples"] == "1.0"
    assert by_name["original"]["class_recovered"] == by_name["fine-tune"]["class_unlearned"] == ""
    stages = [by_name[name]["others_unlearned"] for name in names[3:]]
    assert len({by_name["original"]["others_before"], *stages}) == 3
    assert float(by_name["class-pruning"]["speedup_examples"]) > 1
    with pytest.raises(ConfigError, match="shar"):
        classbench.main([str(config), "--strategy", "class-pruning:shar=0.4"])

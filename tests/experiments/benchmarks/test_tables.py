"""The figures on Adult, on a table of a few rows that looks like it."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from experiments.benchmarks import tables
from experiments.benchmarks.deletions import check
from experiments.benchmarks.rows import CONFIGS
from experiments.benchmarks.tables import main
from experiments.config.loading import load as config_of
from experiments.data.datasets import load
from experiments.federation.task import _of_text

ROW = "{age}, {work}, {weight}, {school}, 9, {state}, Sales, Wife, White, Male, {gain}, 0, 40, Cuba"


def rows(count: int, seed: int) -> str:
    """Return lines of a table in which age and marital state say who earns much."""
    generator = np.random.default_rng(seed)
    lines = []
    for _ in range(count):
        age, married = int(generator.integers(18, 80)), bool(generator.integers(2))
        line = ROW.format(
            age=age,
            work=generator.choice(["Private", "?", "State-gov"]),
            weight=int(generator.integers(1e4, 1e6)),
            school=generator.choice(["9th", "Masters"]),
            state="Married" if married else "Divorced",
            gain=int(generator.integers(2)) * 5000,
        )
        lines.append(f"{line}, {'>50K' if married and age > 30 else '<=50K'}")
    return "\n".join(lines) + "\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "adult.data").write_text(rows(150, 0))
    (tmp_path / "adult.test").write_text(rows(60, 1))
    load.cache_clear()
    _of_text.cache_clear()
    return tmp_path


def test_deletions_are_compared_with_retraining(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    methods = ("forest", "local-forests")
    for (
        name
    ) in methods:  # this table has fewer categories than Adult, whose columns the config names
        config, strategy, changes = tables._METHODS[name]
        fewer = (config, strategy, (*changes, "model.binary=6-17"))
        monkeypatch.setitem(tables._METHODS, name, fewer)
    main(
        [
            "deletions",
            "--root",
            str(root),
            "--out",
            str(root),
            "--count",
            "3",
            "--methods",
            *methods,
        ]
    )
    with (root / "adult_deletions.csv").open() as file:
        found = list(csv.DictReader(file))
    assert [(row["method"], row["scope"]) for row in found] == [
        (method, scope) for method in methods for scope in ("sample", "client", "class")
    ]
    assert all(row["identical"] == "True" for row in found)


def test_the_check_sets_methods_beside_retraining() -> None:
    changes = ["model.iterations=3", "rounds=6", "model.depth=2", "data.limit=120"]
    config = config_of(CONFIGS / "boosting_cancer.toml", changes)
    found = {
        (row["scope"], row["strategy"], row["tolerance"]): row for row in check(config, (0.0,))
    }
    assert len(found) == 2 * 4
    for scope in ("client", "sample"):
        distances = {
            (name, tolerance): found[scope, name, tolerance]["prediction_distance"]
            for name, tolerance in (
                ("boosting-replay", ""),
                ("leaf-refresh", ""),
                ("leaf-refresh", 0.0),
            )
        }
        assert distances["boosting-replay", ""] == distances["leaf-refresh", 0.0] == 0
        assert distances["leaf-refresh", ""] > 0
        plain, checked = (found[scope, "leaf-refresh", t] for t in ("", 0.0))
        assert int(str(plain["bytes_up"])) < int(str(checked["bytes_up"]))
        assert plain["splits"]
        assert checked["lost"]

"""Measure tree methods on UCI's Adult table: deletions, growth with its size, accuracy.

``python -m experiments.benchmarks.tables --root DATA deletions growth accuracy`` runs the parts
that are named and writes ``adult_<part>.csv`` to ``experiments/results/``. DATA holds the table's
official files, or a folder ``adult`` that does. A part is a function named ``bench_<part>``.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from experiments.benchmarks.deletions import check, deletions, learned
from experiments.benchmarks.rows import CONFIGS, RESULTS, Row, line, parts_of, summary, write
from experiments.config.loading import Config, load
from experiments.federation.task import Scenario, task
from unlearning.evaluation.metrics import accuracy
from unlearning.request import Forgotten

__all__ = ["main"]

_SIZES = (2000, 4000, 8000, 16000, 32561)
# Config, strategy, and what is changed so that a deletion can be set beside retraining many times.
_METHODS = {
    "forest": ("forest_adult", "forest-deletion", ("model.trees=20",)),
    "boosting": ("boosting_adult", "boosting-replay", ()),
    "leaf-refresh": ("boosting_adult", "leaf-refresh", ()),
    "local-forests": (
        "forest_adult",
        "local-forest-removal",
        ("model.name=local-forests", "model.trees=4", "rounds=1"),
    ),
}


@dataclass(frozen=True)
class Settings:
    """What the command line says."""

    root: str
    limit: int
    count: int
    seeds: tuple[int, ...]
    methods: tuple[str, ...]

    def config(self, method: str, *changes: str) -> Config:
        """Return a method's config with the folder of the data filled in."""
        name, _, own = _METHODS[method]
        return load(CONFIGS / f"{name}.toml", [f'data.root="{self.root}"', *own, *changes])


def bench_deletions(settings: Settings) -> list[Row]:
    """Random samples, a client and a class, each compared with learning again."""
    rows: list[Row] = []
    for method in settings.methods:
        config = settings.config(method, f"data.limit={settings.limit}")
        found = deletions(config, _METHODS[method][1], settings.count)
        rows += [{"method": method, "limit": settings.limit, **row} for row in found]
        print(line(summary(method, found)))
    return rows


def bench_growth(settings: Settings) -> list[Row]:
    """Time of forgetting one sample as the number of examples grows."""
    rows: list[Row] = []
    for method in settings.methods:
        for size in _SIZES:
            fewer = ("model.trees=5",) if method == "forest" else ()
            config = settings.config(method, f"data.limit={size}", *fewer)
            found = deletions(config, _METHODS[method][1], settings.count, only_samples=True)
            rows.append({"limit": size, **summary(method, found)})
            print(line(rows[-1]))
    return rows


def bench_check(settings: Settings) -> list[Row]:
    """Leaf refresh with and without a check of its splits, beside the replay."""
    limit = f"data.limit={settings.limit}"
    rows = []
    for seed in settings.seeds:
        rows += check(settings.config("leaf-refresh", limit, f"seed={seed}"))
    return [{"limit": settings.limit, **row} for row in rows]


def bench_accuracy(settings: Settings) -> list[Row]:
    """Accuracy on the official test part beside scikit-learn's ensembles on the pooled examples."""
    from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier

    rows: list[Row] = []
    for seed in settings.seeds:
        common = (f"seed={seed}", f"data.limit={settings.limit}")
        own = {
            "forest": settings.config("forest", *common, "model.trees=50"),
            "local-forests": settings.config("local-forests", *common, "model.trees=10"),
            "boosting": settings.config("boosting", *common),
        }
        made = task(Scenario.of(own["boosting"]))
        (x, y), test = made.retain_set(Forgotten()), made.test_set()
        theirs = {
            "RandomForestClassifier": RandomForestClassifier(50, random_state=seed),
            "RandomForestClassifier, depth 10": RandomForestClassifier(
                50, max_depth=10, random_state=seed
            ),
            "HistGradientBoostingClassifier": HistGradientBoostingClassifier(random_state=seed),
            "HistGradientBoostingClassifier, 20 of depth 3": HistGradientBoostingClassifier(
                max_iter=20, max_depth=3, learning_rate=0.3, random_state=seed
            ),
        }
        row: Row = {"seed": seed, "examples": len(y)}
        for name, config in own.items():
            begun = time.perf_counter()
            arrays = learned(config, task(Scenario.of(config)))
            row[f"{name} learn_s"] = time.perf_counter() - begun
            row[name] = accuracy(task(Scenario.of(config)).predict(arrays, test.x), test.y)
        for name, model in theirs.items():
            row[name] = float(model.fit(x, y).score(test.x, test.y))
        print(line(row))
        rows.append(row)
    return rows


def main(arguments: Iterable[str]) -> None:
    """Run the named parts and write their results."""
    parser = argparse.ArgumentParser(
        description=__doc__, prog="python -m experiments.benchmarks.tables"
    )
    parser.add_argument("parts", nargs="+", choices=sorted(parts_of(globals())))
    parser.add_argument("--root", default="data", help="folder of the table's files")
    parser.add_argument("--limit", type=int, default=_SIZES[-1], help="training rows; default: all")
    parser.add_argument("--count", type=int, default=10, help="deletions, 3 or more")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--methods", nargs="+", choices=list(_METHODS), default=list(_METHODS))
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the CSV files")
    chosen = parser.parse_args(list(arguments))
    settings = Settings(
        chosen.root, chosen.limit, chosen.count, tuple(range(chosen.seeds)), tuple(chosen.methods)
    )
    for name in chosen.parts:
        write(chosen.out / f"adult_{name}.csv", parts_of(globals())[name](settings))


if __name__ == "__main__":
    main(sys.argv[1:])

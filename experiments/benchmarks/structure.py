"""Measure structural methods: random deletions against retraining, accuracy beside scikit-learn.

``python -m experiments.benchmarks.structure forest boosting growth accuracy`` runs the parts that
are named, in this process, and writes one CSV each to ``experiments/results/``. A part is a
function named ``bench_<part>``; one for a further family needs no more than a config and a
strategy.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

from experiments.benchmarks.deletions import check, deletions, learned
from experiments.benchmarks.removals import removals
from experiments.benchmarks.rows import CONFIGS, RESULTS, Row, line, parts_of, summary, write
from experiments.config.loading import load
from experiments.federation.task import Scenario, task
from unlearning.evaluation.metrics import accuracy
from unlearning.request import Forgotten

__all__ = ["main"]

_HOW = ("downdates", "inverse", "alpha")  # how a state came about: not what it says


def bench_forest(count: int) -> list[Row]:
    """Random deletions from the forest of ``forest_cancer.toml``."""
    return deletions(load(CONFIGS / "forest_cancer.toml"), "forest-deletion", count)


def bench_forest_digits(count: int) -> list[Row]:
    """Random deletions from a forest of handwritten digits, ten classes."""
    changes = ["data.name=digits", "data.clients=10", "model.trees=20"]
    return deletions(load(CONFIGS / "forest_cancer.toml", changes), "forest-deletion", count)


def bench_boosting(count: int) -> list[Row]:
    """Random deletions from boosted trees, ten iterations, by replay."""
    changes = ["model.iterations=10", "rounds=30"]
    return deletions(load(CONFIGS / "boosting_cancer.toml", changes), "boosting-replay", count)


def bench_leaf_refresh(count: int) -> list[Row]:
    """Random deletions from boosted trees by new leaves: how far an approximation stays."""
    changes = ["model.iterations=10", "rounds=30"]
    return deletions(load(CONFIGS / "boosting_cancer.toml", changes), "leaf-refresh", count)


def bench_local_forests(count: int) -> list[Row]:
    """Random deletions from the forests of ``local_forests_cancer.toml``."""
    config = load(CONFIGS / "local_forests_cancer.toml")
    return deletions(config, "local-forest-removal", count)


def bench_leaf_check(count: int) -> list[Row]:
    """Leaf refresh with and without a check of its splits, beside the replay, three seeds."""
    rows: list[Row] = []
    for seed in range(3):
        config = load(CONFIGS / "boosting_cancer.toml", [f"seed={seed}"])
        rows += check(config)
    return rows


def bench_growth(count: int) -> list[Row]:
    """Time of forgetting one sample of a forest as the number of examples grows."""
    rows: list[Row] = []
    for limit in (180, 360, 720, 1437):
        changes = ["data.name=digits", "model.trees=20", f"data.limit={limit}"]
        config = load(CONFIGS / "forest_cancer.toml", changes)
        found = deletions(config, "forest-deletion", min(count, 20), only_samples=True)
        rows.append({"limit": limit, **summary("growth", found)})
    return rows


def bench_accuracy(count: int) -> list[Row]:
    """Test accuracy beside scikit-learn's ensembles on the same pooled examples, five seeds."""
    from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier

    rows: list[Row] = []
    for data, rounds in (("breast-cancer", 60), ("digits", 60)):
        for seed in range(5):
            common = [f"data.name={data}", f"seed={seed}"]
            forest = load(CONFIGS / "forest_cancer.toml", [*common, "model.trees=100"])
            boosting = load(CONFIGS / "boosting_cancer.toml", [*common, f"rounds={rounds}"])
            made = task(Scenario.of(forest))
            x, y = made.retain_set(Forgotten())
            test, flat = made.test_set(), (len(y), -1)
            found: Row = {"data": data, "seed": seed, "examples": len(y)}
            for name, config in (("forest", forest), ("boosting", boosting)):
                own = task(Scenario.of(config))
                found[name] = accuracy(own.predict(learned(config, own), test.x), test.y)
            theirs = (
                ("RandomForestClassifier", RandomForestClassifier(100, random_state=seed)),
                (
                    "HistGradientBoostingClassifier",
                    HistGradientBoostingClassifier(random_state=seed),
                ),
            )
            for name, model in theirs:
                fitted = model.fit(x.reshape(flat), y)
                found[name] = float(fitted.score(test.x.reshape(len(test.y), -1), test.y))
            rows.append(found)
    return rows


def bench_ridge(count: int) -> list[Row]:
    """Random deletions from the sums of ``digits_ridge.toml``."""
    config = load(CONFIGS / "digits_ridge.toml", ["rounds=1"])
    return deletions(config, "ridge", count, beside=_HOW)


def bench_ridge_head(count: int) -> list[Row]:
    """Random deletions from a ridge head on what a frozen network reads in digits."""
    config = load(CONFIGS / "mnist_ridge_head.toml", ["data.name=digits", "data.limit="])
    return deletions(config, "ridge", count, beside=_HOW)


def bench_ridge_head_mnist(count: int) -> list[Row]:
    """Random deletions from a ridge head on what a frozen network reads in MNIST's images."""
    return deletions(load(CONFIGS / "mnist_ridge_head.toml"), "ridge", count, beside=_HOW)


def bench_k_means(count: int) -> list[Row]:
    """Random deletions from the clusters of ``digits_k_means.toml``."""
    return deletions(load(CONFIGS / "digits_k_means.toml", ["rounds=1"]), "k-means", count)


def bench_svm(count: int) -> list[Row]:
    """Random deletions from the kernel machines of ``wine_svm.toml``."""
    return deletions(load(CONFIGS / "wine_svm.toml"), "svm", count, beside=_HOW)


def bench_svm_cancer(count: int) -> list[Row]:
    """Random deletions from kernel machines of tumours, more examples per client."""
    config = load(CONFIGS / "wine_svm.toml", ["data.name=breast-cancer"])
    return deletions(config, "svm", count, beside=_HOW)


def bench_growth_parts(count: int) -> list[Row]:
    """Time of forgetting one sample as the number of examples grows: ridge, k-means, SVM."""
    rows: list[Row] = []
    for strategy, name in (("ridge", "digits_ridge"), ("k-means", "digits_k_means"), ("svm", "")):
        for limit in (180, 360, 720, 1437):
            changes = ["rounds=1", "data.name=digits", f"data.limit={limit}"]
            config = load(CONFIGS / f"{name or 'wine_svm'}.toml", changes)
            some = min(count, 10)
            found = deletions(config, strategy, some, only_samples=True, beside=_HOW)
            rows.append({"limit": limit, **summary(strategy, found)})
    return rows


def bench_newton(count: int) -> list[Row]:
    """Twice ``count`` removals by Newton steps: the gradient left, its bound, the budget used."""
    return removals(load(CONFIGS / "breast_cancer_newton.toml"), 2 * count)


def bench_newton_head(count: int) -> list[Row]:
    """Remove samples from a Newton head on 512 frozen features, by conjugate gradients."""
    return removals(load(CONFIGS / "mnist_newton_head.toml"), count)


def main(arguments: Iterable[str]) -> None:
    """Run the named parts and write their results."""
    parser = argparse.ArgumentParser(
        description=__doc__, prog="python -m experiments.benchmarks.structure"
    )
    parser.add_argument("parts", nargs="+", choices=sorted(parts_of(globals())))
    parser.add_argument("--count", type=int, default=100, help="deletions, 3 or more")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the CSV files")
    chosen = parser.parse_args(list(arguments))
    for name in chosen.parts:
        rows = parts_of(globals())[name](chosen.count)
        write(chosen.out / f"structure_{name}.csv", rows)
        if "ratio" in rows[0]:
            rows = [summary(name, rows)]
        for row in rows:
            print(line(row))


if __name__ == "__main__":
    main(sys.argv[1:])

"""Measure structural methods: random deletions against retraining, accuracy beside scikit-learn.

``python -m experiments.benchmarks.structure forest boosting growth accuracy`` runs the parts that
are named, in this process, and writes one CSV each to ``experiments/results/``. A part is a
function named ``bench_<part>``; one for a further family needs no more than a config and a
strategy.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from experiments.config.loading import Config, load
from experiments.config.registry import make
from experiments.federation.grids import LocalGrid
from experiments.federation.participants import client_app
from experiments.federation.task import Scenario, Task, task
from strategies.base import UnlearningStrategy
from strategies.federation import Federation
from strategies.roster import Roster
from strategies.wire import to_arrays, to_record
from unlearning.arrays import Array, Arrays, digest
from unlearning.evaluation.metrics import accuracy, prediction_distance
from unlearning.fulfil import fulfil
from unlearning.models import conjugate, newton
from unlearning.models.logistic_model import LogisticModel
from unlearning.protocol import Wire
from unlearning.records.history import History
from unlearning.records.ledger import Ledger
from unlearning.request import Forgotten, Request, Scope

__all__ = ["Row", "check", "deletions", "learned", "main", "summary", "write"]

_HOW = ("downdates", "inverse", "alpha")  # how a state came about: not what it says

RESULTS = Path(__file__).parents[1] / "results"
CONFIGS = Path(__file__).parents[1] / "configs"

Row = dict[str, object]


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
    return _removals(load(CONFIGS / "breast_cancer_newton.toml"), 2 * count)


def bench_newton_head(count: int) -> list[Row]:
    """Remove samples from a Newton head on 512 frozen features, by conjugate gradients."""
    return _removals(load(CONFIGS / "mnist_newton_head.toml"), count)


def _removals(config: Config, count: int) -> list[Row]:
    made = task(Scenario.of(config))
    if not isinstance(made.array_model, LogisticModel):
        raise TypeError("removals are measured of the model logistic")
    with TemporaryDirectory() as home:
        ledger = Ledger()
        federation, grid = _federation(config, made, ledger, Path(home))
        arrays = _start(UnlearningStrategy(), federation, grid, config.rounds)
        rows: list[Row] = []
        for number, request in enumerate(_requests(made, count, only_samples=True), 1):
            answering = _fresh("newton", config, federation)
            before = arrays
            begun = time.perf_counter()
            arrays = fulfil(request, answering, arrays, federation.history, ledger)
            took = time.perf_counter() - begun
            left = made.retain_set(ledger.forgotten())
            found = _certificate(made.array_model, before, arrays, made.seen(left.x), left.y)
            budget = float(getattr(answering, "budget", float("nan")))
            rows.append({"removal": number, **found, "budget": budget, "unlearn_s": took})
    return rows


def _certificate(
    model: LogisticModel, before: Arrays, after: Arrays, x: Array, labels: Array
) -> Row:
    """Compare the gradient that a removal left with its bound, and the model with the optimum."""
    rows, penalty, noise = newton.rows_of(x), model.penalty, model.noise(after)
    found = newton.terms(after["weights"], rows, labels, matrices=False)
    residual = np.linalg.norm(newton.gradient(after["weights"], found, noise, penalty))
    anew = int(after["epoch"][0]) > int(before["epoch"][0])
    best = after["weights"]
    for _ in range(4):
        best = best + _step(best, rows, labels, noise, penalty)
    # Learned anew there is no removal to bound, and the noise is another.
    bound = float("nan") if anew else float(after["spent"][0] - before["spent"][0])
    moved = float("nan") if anew else float(np.linalg.norm(before["weights"] - best))
    return {
        "residual": float(residual),
        "bound": bound,
        "spent": float(after["spent"][0]),
        "anew": anew,
        "distance_before": moved,
        "distance_after": float(np.linalg.norm(after["weights"] - best)),
    }


def _step(weights: Array, rows: Array, labels: Array, noise: Array, penalty: float) -> Array:
    """Return the Newton step on pooled examples, without a matrix of shape (d, d)."""
    found = newton.terms(weights, rows, labels, matrices=False)
    search = conjugate.begin(-newton.gradient(weights, found, noise, penalty))
    for _ in range(min(100, rows.shape[1])):
        ridge = penalty * len(rows) * search.direction
        product = newton.products(rows, search.direction, weights)
        search = conjugate.advance(search, product + ridge)
    return search.solution


def deletions(
    config: Config,
    strategy: str,
    count: int,
    *,
    only_samples: bool = False,
    beside: Collection[str] = (),
) -> list[Row]:
    """Return one row per deletion: random samples, at the end a client and a class.

    After each one everything is learned again from nothing without the forgotten, in a federation
    of its own, and compared.

    Parameters
    ----------
    config : Config
        Data, model and rounds; its requests are passed over.
    strategy : str
        Alias of the strategy that answers.
    count : int
        Number of deletions.
    only_samples : bool, default False
        Leave out the client and the class.
    beside : collection of str
        Arrays that tell how a state came about, not what it is; they are not compared.
    """
    made = task(Scenario.of(config))
    rows: list[Row] = []
    with TemporaryDirectory() as home:
        ledger = Ledger()
        federation, grid = _federation(config, made, ledger, Path(home))
        arrays = _start(UnlearningStrategy(), federation, grid, config.rounds)
        for number, request in enumerate(_requests(made, count, only_samples=only_samples), 1):
            answering = _fresh(strategy, config, federation)
            begun = time.perf_counter()
            arrays = fulfil(request, answering, arrays, federation.history, ledger)
            took = time.perf_counter() - begun
            other, grid = _federation(config, made, ledger, Path(home))
            begun = time.perf_counter()
            again = _start(UnlearningStrategy(), other, grid, config.rounds)
            retrain = time.perf_counter() - begun
            here, there = _without(arrays, beside), _without(again, beside)
            rows.append(
                {
                    "deletion": number,
                    "scope": request.scope.value,
                    "identical": digest(here) == digest(there),
                    "largest_difference": _difference(here, there),
                    "unlearn_s": took,
                    "retrain_s": retrain,
                    "ratio": retrain / took,
                }
            )
    return rows


def check(config: Config, tolerances: Sequence[float] = (1.0, 0.5, 0.2, 0.1)) -> list[Row]:
    """Return how far boosted trees are from retrained ones, method by method.

    A client leaves; in another federation every tenth sample of all clients goes. Distances are of
    predictions on the test set.
    """
    made = task(Scenario.of(config))
    sizes, test = made.facts().clients, made.test_set()
    tenth = {client: tuple(range(0, size, 10)) for client, size in sizes.items()}
    asked = (Request(Scope.CLIENT, clients=(2,)), Request(Scope.SAMPLE, samples=tenth))
    methods: list[tuple[str, dict[str, float]]] = [
        ("retrain", {}),
        ("boosting-replay", {}),
        ("leaf-refresh", {}),
        *(("leaf-refresh", {"tolerance": tolerance}) for tolerance in tolerances),
    ]
    rows: list[Row] = []
    for request in asked:
        reference = None
        for name, options in methods:
            with TemporaryDirectory() as home:
                ledger = Ledger()
                federation, grid = _federation(config, made, ledger, Path(home))
                arrays = _start(UnlearningStrategy(), federation, grid, config.rounds)
                answering = make(name, options)
                answering.join(federation)
                begun = time.perf_counter()
                arrays = fulfil(request, answering, arrays, federation.history, ledger)
                took = time.perf_counter() - begun
            found = made.predict(arrays, test.x)
            reference = found if reference is None else reference
            spent = federation.costs["unlearn"]
            rows.append(
                {
                    "seed": config.seed,
                    "scope": request.scope.value,
                    "strategy": name,
                    "tolerance": options.get("tolerance", ""),
                    "test_accuracy": accuracy(found, test.y),
                    "prediction_distance": prediction_distance(found, reference),
                    "splits": getattr(answering, "splits", ""),
                    "lost": getattr(answering, "lost", ""),
                    "client_rounds": spent.client_rounds,
                    "bytes_up": spent.bytes_up,
                    "unlearn_s": took,
                }
            )
    return rows


def _fresh(name: str, config: Config, federation: Federation) -> UnlearningStrategy:
    strategy = make(name, config.options_for(name))
    strategy.join(federation)
    return strategy


def _requests(made: Task, count: int, *, only_samples: bool) -> Iterator[Request]:
    """Yield requests that a seed decides; no sample is named twice."""
    generator = np.random.default_rng([made.scenario.seed, 100])
    sizes = made.facts().clients
    pairs = [(client, at) for client, size in sizes.items() for at in range(size)]
    last = 0 if only_samples else 2
    for pick in generator.permutation(len(pairs))[: count - last]:
        client, at = pairs[pick]
        yield Request(Scope.SAMPLE, samples={client: (at,)})
    if not only_samples:
        yield Request(Scope.CLIENT, clients=(int(generator.integers(len(sizes))),))
        yield Request(Scope.CLASS, classes=(int(generator.integers(made.num_classes)),))


def _federation(
    config: Config, made: Task, ledger: Ledger, home: Path
) -> tuple[Federation, LocalGrid]:
    grid = LocalGrid(client_app, len(made.clients))
    federation = Federation(
        seed=config.seed,
        history=History(),
        ledger=ledger,
        train=config.train.model_dump(exclude={"fraction"}),
        recovery_rounds=0,
        model=made.array_model,
        client_config={
            Wire.SCENARIO: made.scenario.to_json(),
            Wire.DEVICE: "cpu",
            Wire.HOME: str(home),
        },
    )
    federation.roster = Roster.discover(
        grid, len(made.clients), federation.client_config, timeout_s=60
    )
    federation.history.start(made.initial())
    return federation, grid


def _start(
    strategy: UnlearningStrategy, federation: Federation, grid: LocalGrid, rounds: int
) -> Arrays:
    strategy.join(federation)
    initial = to_record(federation.history.initial)
    return to_arrays(strategy.start(grid, initial, num_rounds=rounds).arrays)


def learned(config: Config, made: Task) -> Arrays:
    """Return what a config learns, requests passed over."""
    with TemporaryDirectory() as home:
        federation, grid = _federation(config, made, Ledger(), Path(home))
        return _start(UnlearningStrategy(), federation, grid, config.rounds)


def _without(arrays: Arrays, names: Collection[str]) -> Arrays:
    """Return the arrays but those called so, a client's ``name/client`` among them."""
    return {key: a for key, a in arrays.items() if key.partition("/")[0] not in names}


def _difference(left: Mapping[str, Any], right: Mapping[str, Any]) -> float:
    """Return the largest difference of any two entries; infinite where shapes differ."""
    largest = 0.0
    for name, array in left.items():
        if name not in right or array.shape != right[name].shape:
            return float("inf")
        if array.size:
            distance = np.abs(array.astype(np.float64) - right[name].astype(np.float64))
            largest = max(largest, float(distance.max()))
    return largest


def summary(name: str, rows: Sequence[Row]) -> Row:
    """Return one row about all deletions of a part."""
    if "ratio" not in rows[0]:
        return {"part": name, "rows": len(rows)}

    def column(key: str) -> list[float]:
        return [float(str(row[key])) for row in rows]

    return {
        "part": name,
        "deletions": len(rows),
        "identical": sum(bool(row["identical"]) for row in rows),
        "largest_difference": max(column("largest_difference")),
        "median_unlearn_s": median(column("unlearn_s")),
        "median_retrain_s": median(column("retrain_s")),
        "median_ratio": median(column("ratio")),
    }


def write(path: Path, rows: Sequence[Row]) -> None:
    """Write rows as CSV, numbers with six digits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(
            {key: f"{v:.6g}" if isinstance(v, float) else v for key, v in row.items()}
            for row in rows
        )


def _parts() -> dict[str, Callable[[int], list[Row]]]:
    return {
        name.removeprefix("bench_").replace("_", "-"): value
        for name, value in globals().items()
        if name.startswith("bench_")
    }


def main(arguments: Iterable[str]) -> None:
    """Run the named parts and write their results."""
    parser = argparse.ArgumentParser(
        description=__doc__, prog="python -m experiments.benchmarks.structure"
    )
    parser.add_argument("parts", nargs="+", choices=sorted(_parts()))
    parser.add_argument("--count", type=int, default=100, help="deletions, 3 or more")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the CSV files")
    chosen = parser.parse_args(list(arguments))
    for name in chosen.parts:
        rows = _parts()[name](chosen.count)
        write(chosen.out / f"structure_{name}.csv", rows)
        if "ratio" in rows[0]:
            rows = [summary(name, rows)]
        for row in rows:
            print(
                " ".join(
                    f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in row.items()
                )
            )


if __name__ == "__main__":
    main(sys.argv[1:])

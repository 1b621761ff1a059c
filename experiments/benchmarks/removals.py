"""Removals by Newton steps: the gradient that each leaves, its bound, the budget used."""

from __future__ import annotations

import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from experiments.benchmarks.deletions import founded, joined, requests, started
from experiments.benchmarks.rows import Row
from experiments.config.loading import Config
from experiments.federation.task import Scenario, task
from strategies.base import UnlearningStrategy
from unlearning.arrays import Array, Arrays
from unlearning.fulfil import fulfil
from unlearning.models import conjugate, newton
from unlearning.models.logistic_model import LogisticModel
from unlearning.records.ledger import Ledger

__all__ = ["removals"]


def removals(config: Config, count: int) -> list[Row]:
    """Return one row per removed sample, each held against the optimum of what is left.

    Raises
    ------
    TypeError
        If the config's model is not ``logistic``.
    """
    made = task(Scenario.of(config))
    if not isinstance(made.array_model, LogisticModel):
        raise TypeError("removals are measured of the model logistic")
    with TemporaryDirectory() as home:
        ledger = Ledger()
        federation, grid = founded(config, made, ledger, Path(home))
        arrays = started(UnlearningStrategy(), federation, grid, config.rounds)
        rows: list[Row] = []
        for number, request in enumerate(requests(made, count, only_samples=True), 1):
            answering = joined("newton", config, federation)
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

"""What a request for features did: how a model still reacts to them, and what it gives away.

References
----------
Gu, Ong, Chan, Fan L., "Ferrari: Federated Feature Unlearning via Optimizing Feature Sensitivity",
NeurIPS 2024 (arXiv 2405.17462), for the sensitivity. Yeom, Giacomelli, Fredrikson, Jha, "Privacy
Risk in Machine Learning: Analyzing the Connection to Overfitting", CSF 2018 (arXiv 1709.01604), for
attribute inference by the loss, on members beside others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from experiments.federation.party import Party
from experiments.federation.task import Examples, Task
from experiments.runs.details import FeatureMeasure
from unlearning.arrays import Array
from unlearning.evaluation.metrics import accuracy, auc_null_se, example_losses
from unlearning.evaluation.ranks import auc
from unlearning.request import Forgotten, Request

__all__ = ["feature_measures"]

_ROWS = 256  # of an owner that are looked at
_DRAWS = 20  # of noise per row, the authors' number
_SMALLEST, _LARGEST = 0.05, 1.0  # standard deviations of the noise, the authors' values
_NOISE = 8  # last part of the address of the noise

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class _Owner:
    """One owner's rows, trained on and not, and the positions that it withdrew."""

    client: int
    features: Integers
    train: Examples
    held_out: Examples


def feature_measures(
    found: Task, requests: Iterable[Request], parties: Sequence[Party], device: str = "cpu"
) -> Iterator[FeatureMeasure]:
    """Yield what requests for features did, model by model; nothing if none names one.

    Parameters
    ----------
    found : Task
        Data and model of the parties' seed.
    requests : iterable of Request
        All that were served.
    parties : sequence of Party
        With their arrays.
    device : str
        Where models are evaluated.
    """
    gone = Forgotten(tuple(requests))
    owners = [_owner(found, client, gone) for client in found.clients]
    held = [owner for owner in owners if len(owner.features) and len(owner.train.y)]
    if not held:
        return
    for party in parties:
        measured = {
            "sensitivity": _sensitivity(found, party.arrays, held, party.seed, device),
            "accuracy_without": _without(found, party.arrays, held, device),
            **_inference(found, party.arrays, held, device),
        }
        for name, value in measured.items():
            yield FeatureMeasure(
                strategy=party.strategy, seed=party.seed, measure=name, value=value
            )


def _owner(found: Task, client: int, gone: Forgotten) -> _Owner:
    data, withdrawn = found.client(client), sorted(gone.omission(client).features)
    kept = np.flatnonzero(found.kept(client, gone)) if withdrawn else np.empty(0, np.int64)
    some = kept[np.linspace(0, len(kept) - 1, min(len(kept), _ROWS)).astype(int)]
    return _Owner(
        client,
        np.array(withdrawn, np.int64),
        Examples(data.train_x[some], data.train_y[some]),
        Examples(data.held_x[:_ROWS], data.held_y[:_ROWS]),
    )


def _sensitivity(
    found: Task, arrays: Mapping[str, Array], owners: Sequence[_Owner], seed: int, device: str
) -> float:
    """Return the mean of ``|f(x) - f(x + d)| / |d|``; the same d for every model.

    d is Gaussian noise, and on the columns of a category the way to that of another row.
    """
    total, count = 0.0, 0
    for owner in owners:
        generator = np.random.default_rng([seed, 0, owner.client, _NOISE])
        clean = found.scores(arrays, owner.train.x, device)
        for _ in range(_DRAWS):
            moved, length = _moved(found, owner, generator)
            some = length > 0  # a category drawn for itself moves nothing
            away = np.linalg.norm(found.scores(arrays, moved, device) - clean, axis=1)
            total += float(np.sum(away[some] / length[some]))
            count += int(some.sum())
    return total / count if count else 0.0


def _moved(
    found: Task, owner: _Owner, generator: np.random.Generator
) -> tuple[Floats, NDArray[np.float64]]:
    """Return an owner's rows with other values in the features, and how far each was moved."""
    rows = owner.train.x
    size = generator.uniform(_SMALLEST, _LARGEST)
    noise = generator.normal(size=(len(rows), len(owner.features))) * size
    flat = rows.reshape(len(rows), -1)
    for group in found.columns.categories(owner.features.tolist()):
        others = flat[generator.permutation(len(rows))][:, group]
        noise[:, np.isin(owner.features, group)] = others - flat[:, group]
    moved = rows.copy()
    moved.reshape(len(moved), -1)[:, owner.features] += noise.astype(np.float32)
    return moved, np.linalg.norm(noise, axis=1)


def _without(
    found: Task, arrays: Mapping[str, Array], owners: Sequence[_Owner], device: str
) -> float:
    """Return the test accuracy with 0 for whatever any owner withdrew."""
    x, y = found.test_set()
    blank = x.copy()
    every = np.unique(np.concatenate([owner.features for owner in owners]))
    blank.reshape(len(blank), -1)[:, every] = 0
    return accuracy(found.predict(arrays, blank, device), y)


def _inference(
    found: Task, arrays: Mapping[str, Array], owners: Sequence[_Owner], device: str
) -> dict[str, float]:
    """Return how well the loss tells a high from a low value, on trained and on other rows.

    The attacker knows a row but for the features, its label, and from rows of other people what
    high and low values look like: it tries both and takes the one that the model likes better.
    """
    test = found.test_set().x
    measured: dict[str, float] = {}
    for name, part in (("attribute_auc", "train"), ("attribute_null", "held_out")):
        scores, truths = [], []
        for owner in owners:
            rows: Examples = getattr(owner, part)
            known = test.reshape(len(test), -1)[:, owner.features]
            middle = np.median(known.mean(axis=1))
            is_high = known.mean(axis=1) > middle
            if not len(rows.y) or not is_high.any() or is_high.all():
                continue
            own = rows.x.reshape(len(rows.y), -1)[:, owner.features].mean(axis=1)
            tried = []
            for like in (known[~is_high], known[is_high]):
                x = rows.x.copy()
                x.reshape(len(x), -1)[:, owner.features] = like.mean(axis=0)
                tried.append(example_losses(found.predict(arrays, x, device), rows.y))
            scores.append(tried[0] - tried[1])
            truths.append(own > middle)
        truth = np.concatenate(truths) if truths else np.empty(0, bool)
        if truth.any() and not truth.all():
            measured[name] = auc(truth.astype(float), np.concatenate(scores))
            if part == "train":
                ones = int(truth.sum())
                measured["attribute_se"] = auc_null_se(ones, len(truth) - ones)
    return measured

"""Models that are no network: kept as named arrays, made by the clients' sums.

Every builder is given the shape of an example, the number of classes and the seed; its further
arguments are the further keys of ``[model]``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import fields
from functools import wraps
from typing import Any

import numpy as np

from unlearning.models.array_model import ArrayModel
from unlearning.models.boosting import Boosting
from unlearning.models.cluster_model import ClusterModel
from unlearning.models.forest import Forest
from unlearning.models.local_forests import LocalForests
from unlearning.models.logistic_model import LogisticModel
from unlearning.models.ridge_model import RidgeModel
from unlearning.models.svm_model import SvmModel
from unlearning.models.trees import Plan

Shape = tuple[int, ...]


def array_ridge(
    input_shape: Shape,
    num_classes: int,
    seed: int,
    penalty: float = 1.0,
    refactorise_every: int = 50,
) -> ArrayModel:
    """Return ridge regression on the classes as 0 and 1."""
    return RidgeModel(int(np.prod(input_shape)), num_classes, penalty, refactorise_every)


def array_k_means(
    input_shape: Shape,
    num_classes: int,
    seed: int,
    clusters: int = 0,
    cell: float = 0.05,
    restarts: int = 10,
) -> ArrayModel:
    """Return federated k-means; ``clusters`` 0: as many as there are classes."""
    width = int(np.prod(input_shape))
    return ClusterModel(width, num_classes, seed, clusters or num_classes, cell, restarts)


def array_svm(
    input_shape: Shape,
    num_classes: int,
    seed: int,
    kernel: str = "rbf",
    ceiling: float = 1.0,
    gamma: float = 0.0,
    features: int = 256,
) -> ArrayModel:
    """Return the average of local support vector machines, one per class against the rest.

    ``kernel``: ``linear``, or ``rbf`` through random Fourier ``features``; ``gamma`` 0: 3 / d.
    """
    width = int(np.prod(input_shape))
    return SvmModel(width, num_classes, seed, kernel, ceiling, gamma or 3 / width, features)


def array_logistic(
    input_shape: Shape,
    num_classes: int,
    seed: int,
    penalty: float = 1e-3,
    sigma: float = 1.0,
    direct_up_to: int = 256,
    products: int = 100,
    tolerance: float = 1e-8,
) -> ArrayModel:
    """Return logistic regression with a perturbed objective, for certified removal.

    With more features than ``direct_up_to`` a Newton step is searched for by conjugate gradients,
    over up to ``products`` + 2 rounds.
    """
    width = int(np.prod(input_shape))
    return LogisticModel(width, num_classes, penalty, sigma, direct_up_to, products, tolerance)


def _growing(**other: Any) -> Callable[[Callable[..., ArrayModel]], Callable[..., ArrayModel]]:
    """Return a decorator for builders whose further keys are those of :class:`Plan` as well.

    The builder is given the plan itself; ``other`` are defaults that differ from the plan's.
    """

    def decorate(build: Callable[..., ArrayModel]) -> Callable[..., ArrayModel]:
        own = list(inspect.signature(build).parameters.values())[2:]
        defaults = {field.name: other.get(field.name, field.default) for field in fields(Plan)[2:]}

        @wraps(build)
        def builder(input_shape: Shape, num_classes: int, seed: int, **params: Any) -> ArrayModel:
            growth = {key: params.pop(key, default) for key, default in defaults.items()}
            return build(Plan(seed, int(np.prod(input_shape)), **growth), num_classes, **params)

        given = list(inspect.signature(builder, follow_wrapped=False).parameters.values())[:3]
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        keys = [inspect.Parameter(key, kind, default=value) for key, value in defaults.items()]
        builder.__signature__ = inspect.Signature([*given, *own, *keys])  # type: ignore[attr-defined]
        return builder

    return decorate


@_growing()
def array_forest(plan: Plan, num_classes: int, trees: int = 50) -> ArrayModel:
    """Return a forest that clients grow together, a level per round."""
    return Forest(plan, num_classes, trees)


@_growing()
def array_local_forests(plan: Plan, num_classes: int, trees: int = 10) -> ArrayModel:
    """Return the union of forests that each client grows alone, ``trees`` each, in one round."""
    return LocalForests(plan, num_classes, trees)


@_growing(depth=3)
def array_boosting(
    plan: Plan, num_classes: int, iterations: int = 20, rate: float = 0.3, l2: float = 1.0
) -> ArrayModel:
    """Return gradient-boosted trees, a level of an iteration per round."""
    return Boosting(plan, num_classes, iterations, rate, l2)

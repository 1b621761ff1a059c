"""Synthetic examples whose gradients are those of the real ones: what QuickDrop's clients keep.

References
----------
Dhasade, Ding, Guo, Kermarrec, De Vos, Wu, "QuickDrop: Efficient Federated Unlearning via Synthetic
Data Generation", Middleware 2024 (arXiv 2311.15603).

Zhao, Mopuri, Bilen, "Dataset Condensation with Gradient Matching", ICLR 2021 (arXiv 2006.05929).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from clients.sequences import is_sequential
from clients.steps import Local, Outcome, Shard
from clients.training import loss_of, number, trained
from unlearning.arrays import Arrays
from unlearning.errors import FederationError
from unlearning.protocol import Settings


def synthetic(
    model: nn.Module, local: Local, settings: Settings, generator: np.random.Generator
) -> Outcome:
    """Return this client's synthetic examples, a little better than it kept them.

    Of every class it holds n examples of, ``ceil(share * n)`` are kept: real ones to begin with,
    moved from round to round so that the gradient of the loss on them points where the gradient on
    real ones points. Answers ``features`` and ``labels``; the model is left as it is.

    Settings: ``share`` (s), ``image_rate`` (step on the features), ``matching_steps`` (per call),
    ``matching_batch`` (real examples per step and class, at most).
    """
    if is_sequential(model):
        raise FederationError(
            "synthetic moves examples along a slope, and tokens of a text have none; leave "
            "quick-drop out, or learn something else than text"
        )
    model.eval()  # a gradient must be a function of the weights alone
    share, rate = number(settings, "share"), number(settings, "image_rate")
    steps, size = (int(number(settings, key)) for key in ("matching_steps", "matching_batch"))
    weights = trained(model)
    parts, processed = [], 0
    for real, start in zip(
        classes(local.retain), examples(local, local.retain, share, generator), strict=True
    ):
        features = start.features.clone()
        for _ in range(steps):
            order = torch.from_numpy(generator.permutation(len(real))[:size])
            batch = real.take(order.to(real.labels.device))
            loss = loss_of(model)(model(batch.features), batch.labels)
            wanted = torch.autograd.grad(loss, weights)
            features.requires_grad_(True)
            loss = loss_of(model)(model(features), start.labels)
            found = torch.autograd.grad(loss, weights, create_graph=True)
            (slope,) = torch.autograd.grad(mismatch(wanted, found), features)
            features = (features - rate * slope).detach()
            processed += len(batch) + 3 * len(features)  # a gradient of a gradient costs three
        parts.append(Shard(features, start.labels))
    return Outcome(len(local.retain), processed, arrays=to_arrays(parts))


def mismatch(left: Sequence[torch.Tensor], right: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return the sum over arrays of one minus the cosine between two gradients."""
    angles = [
        1 - functional.cosine_similarity(a.flatten(), b.flatten(), dim=0)
        for a, b in zip(left, right, strict=True)
    ]
    return torch.stack(angles).sum()


def examples(
    local: Local, real: Shard, share: float, generator: np.random.Generator
) -> list[Shard]:
    """Return the synthetic examples that stand for ``real``, class by class.

    Those that the client kept; where it kept none of a class, or another number of them, real
    examples drawn at random, which is what every set begins as.
    """
    kept = _from_arrays(local.kept.get("synthetic"), real)
    own = {} if kept is None else {int(part.labels[0]): part for part in classes(kept)}
    found = []
    for part in classes(real):
        mine = own.get(int(part.labels[0]))
        count = int(np.ceil(share * len(part)))
        if mine is None or len(mine) != count:
            order = torch.from_numpy(generator.permutation(len(part))[:count])
            mine = part.take(order.to(part.labels.device))
        found.append(mine)
    return found


def classes(shard: Shard) -> Iterator[Shard]:
    """Yield the examples of each class that is there, in the order of labels."""
    if not len(shard):
        return
    order = torch.argsort(shard.labels, stable=True)
    mixed = shard.take(order)
    counts = torch.unique_consecutive(mixed.labels, return_counts=True)[1].tolist()
    features, labels = (torch.split(tensor, counts) for tensor in (mixed.features, mixed.labels))
    for x, y in zip(features, labels, strict=True):
        yield Shard(x, y)


def to_arrays(parts: Sequence[Shard]) -> Arrays:
    """Return examples as arrays to keep; none at all if there is no example."""
    if not parts:
        return {}
    return {
        "features": torch.cat([part.features for part in parts]).cpu().numpy(),
        "labels": torch.cat([part.labels for part in parts]).cpu().numpy(),
    }


def _from_arrays(arrays: Arrays | None, like: Shard) -> Shard | None:
    if not arrays:
        return None
    features, labels = torch.from_numpy(arrays["features"]), torch.from_numpy(arrays["labels"])
    return Shard(features.to(like.features), labels.to(like.labels))

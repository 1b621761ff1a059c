"""Synthetic examples of many clients at once, moved as the step ``synthetic`` moves each one's."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from clients.local import Outcome, Shard
from clients.stacked.jobs import Job, Made, Unfit, laid
from clients.stacked.layers import ALIGNED, Layers
from clients.stacked.passes import gradients, slopes
from clients.steps.synthetic import classes, examples, to_arrays
from clients.training import number

__all__ = ["synthetic"]

_TINY = 1e-8  # as PyTorch's cosine: a shorter gradient has no direction


@dataclass
class _Class:
    """One class of one client: what stands for it, and the real examples of every step."""

    client: int
    stands: Shard
    real: Shard
    orders: list[torch.Tensor]


def synthetic(layers: Layers, jobs: Sequence[Job]) -> Made:
    """Return what each client's synthetic examples come to, in order.

    Classes of all clients with the same numbers of examples are moved together.

    Raises
    ------
    Unfit
        If examples would not begin where a tensor of their own does.
    """
    if jobs[0].local.retain.features[:1].numel() % ALIGNED:
        raise Unfit("examples begin at odd addresses")
    steps = int(number(jobs[0].settings, "matching_steps"))
    found = [_classes(client, job, steps) for client, job in enumerate(jobs)]
    sizes: set[Hashable] = set()
    if steps:
        alike: dict[tuple[int, int], list[_Class]] = {}
        for one in (one for parts in found for one in parts):
            alike.setdefault((len(one.orders[0]), len(one.stands)), []).append(one)
        for size, group in alike.items():
            sizes.add((*size, steps))
            _move(layers, jobs, group, steps)
    outcomes = [
        Outcome(
            len(job.local.retain),
            # A gradient of a gradient costs three passes.
            sum(len(order) + 3 * len(one.stands) for one in parts for order in one.orders),
            arrays=to_arrays([one.stands for one in parts]),
        )
        for job, parts in zip(jobs, found, strict=True)
    ]
    return Made(outcomes, sizes)


def _classes(client: int, job: Job, steps: int) -> list[_Class]:
    """Return the classes that a client holds examples of; it draws as it does alone."""
    generator = np.random.default_rng(list(job.address))
    retain, size = job.local.retain, int(number(job.settings, "matching_batch"))
    stands = examples(job.local, retain, number(job.settings, "share"), generator)
    return [
        _Class(
            client,
            own,
            real,
            [torch.from_numpy(generator.permutation(len(real))[:size]) for _ in range(steps)],
        )
        for real, own in zip(classes(retain), stands, strict=True)
    ]


def _move(layers: Layers, jobs: Sequence[Job], group: Sequence[_Class], steps: int) -> None:
    """Move what stands for some classes, equally many examples of each."""
    rate = number(jobs[0].settings, "image_rate")
    with torch.no_grad():
        weights = {name: _weights(jobs, group, name) for name in jobs[0].start}
        features = torch.stack([one.stands.features for one in group])
        labels = torch.stack([one.stands.labels for one in group])
        for step in range(steps):
            real = laid([one.real.take(one.orders[step]) for one in group])
            wanted, _ = gradients(layers, weights, *real)
            found, gone = gradients(layers, weights, features.flatten(2), labels)
            pulls = {name: _pull(wanted[name], found[name]) for name in found}
            slope = slopes(layers, weights, gone, pulls).view_as(features)
            features = features - rate * slope
    for one, moved in zip(group, features, strict=True):
        one.stands = Shard(moved, one.stands.labels)


def _weights(jobs: Sequence[Job], group: Sequence[_Class], name: str) -> torch.Tensor:
    """Return an array of the model that each class is worked on with; what all share, once."""
    first = jobs[0].start[name]
    if all(job.start[name] is first for job in jobs):
        return torch.from_numpy(np.array(first)).expand(len(group), *first.shape)
    return torch.from_numpy(np.stack([jobs[one.client].start[name] for one in group]))


def _pull(wanted: torch.Tensor, found: torch.Tensor) -> torch.Tensor:
    """Return how one minus the cosine of each pair of gradients changes with the second.

    In the steps that PyTorch takes back through ``cosine_similarity``.
    """
    a, b = wanted.flatten(1), found.flatten(1)
    lengths = torch.linalg.vector_norm(b, dim=1, keepdim=True)
    size = lengths.clamp_min(_TINY)
    unit = a / torch.linalg.vector_norm(a, dim=1, keepdim=True).clamp_min(_TINY)
    along = (unit * (b / size / size)).sum(1, keepdim=True)
    turn = along * (b / lengths).masked_fill_(lengths == 0, 0)
    pull: torch.Tensor = turn - unit / size
    return pull.view_as(found)

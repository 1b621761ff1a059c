"""What clients side by side are asked for, and what came of it."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from clients.local import Local, Outcome, Shard
from clients.stacked.layers import Layers
from unlearning.arrays import Arrays
from unlearning.protocol import Settings

__all__ = ["Job", "Made", "Order", "Unfit", "Working", "by_size", "in_step", "laid", "stacked"]


class Unfit(Exception):  # noqa: N818 - a reason, not an error
    """Why some clients' work cannot be done side by side, in words."""


@dataclass(frozen=True)
class Job:
    """What one client is to do.

    Parameters
    ----------
    start : Arrays
        The model it was sent; clients of one round share it.
    local : Local
        Its data.
    address : tuple of int
        Of its randomness.
    settings : mapping
        Of the step; clients side by side differ in nothing but whose draws they are.
    """

    start: Arrays
    local: Local
    address: tuple[int, ...]
    settings: Settings


class Made(NamedTuple):
    """What clients came to, in order, and in which sizes their arrays were worked on.

    What was tried both ways in these sizes need not be tried again.
    """

    outcomes: list[Outcome]
    sizes: set[Hashable]


Working = Callable[[Layers, Sequence[Job]], Made]


def stacked(jobs: Sequence[Job], name: str) -> torch.Tensor:
    """Return an array of the models of several clients, one behind the other; a copy."""
    first = jobs[0].start[name]
    if all(job.start[name] is first for job in jobs):
        return torch.from_numpy(np.repeat(first[None], len(jobs), axis=0))
    return torch.from_numpy(np.stack([job.start[name] for job in jobs]))


def laid(shards: Sequence[Shard]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return K batches of n examples each as features, ``(K, n, d)``, and labels, ``(K, n)``."""
    features = torch.stack([shard.features for shard in shards]).flatten(2)
    return features, torch.stack([shard.labels for shard in shards])


class Order(list[int]):
    """Places of clients in another order than theirs."""

    def undone(self, outcomes: Sequence[Outcome]) -> list[Outcome]:
        """Return outcomes that are in this order in that of the clients."""
        found = dict(zip(self, outcomes, strict=True))
        return [found[place] for place in range(len(self))]


def by_size(jobs: Sequence[Job]) -> Order:
    """Return the order in which clients with equally large batches lie side by side."""
    return Order(sorted(range(len(jobs)), key=lambda i: len(jobs[i].local.retain)))


def in_step(streams: Sequence[Iterator[Shard]]) -> Iterator[tuple[slice, list[Shard]]]:
    """Yield the batches of clients step by step: those of one size that stand in a row, and where.

    Clients that have no batch left are passed over.
    """
    while True:
        now = [next(stream, None) for stream in streams]
        sizes = [0 if batch is None else len(batch) for batch in now]
        if not any(sizes):
            return
        for first, last in _runs(sizes):
            yield slice(first, last), [batch for batch in now[first:last] if batch is not None]


def _runs(sizes: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield where equal sizes stand in a row, as (first, behind the last); zeros are left out."""
    first = 0
    for place in range(1, len(sizes) + 1):
        if place == len(sizes) or sizes[place] != sizes[first]:
            if sizes[first]:
                yield first, place
            first = place

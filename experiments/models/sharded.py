"""Networks in shards, for clients in groups that never exchange anything."""

from __future__ import annotations

import torch
from torch import nn

from clients.sharded import Sharded
from experiments.models import networks

Shape = tuple[int, ...]


def build_sharded(
    input_shape: Shape,
    num_classes: int,
    of: str = "mlp",
    shards: int = 4,
    answer: str = "vote",
) -> nn.Module:
    """Return ``shards`` networks called ``of``; they vote, or (``answer = "merge"``) are averaged.

    Each begins with values of its own.
    """
    if shards < 1:
        raise ValueError(f"shards = {shards}; give 1 or more")
    if answer not in ("vote", "merge"):
        raise ValueError(f"answer = {answer!r}; give vote or merge")
    seeds = torch.randint(2**31, (shards,)).tolist()
    nets = [networks.build(of, input_shape, num_classes, seed=seed) for seed in seeds]
    return Sharded(nets, merge=answer == "merge")

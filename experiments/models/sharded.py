"""Networks in shards, for clients in groups that never exchange anything."""

from __future__ import annotations

import torch
from torch import nn

from clients.sharded import Sharded
from clients.sharded_tree import ShardedTree
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


def build_sharded_tree(
    input_shape: Shape,
    num_classes: int,
    of: str = "mlp",
    levels: int = 3,
    rounds: int = 20,
) -> nn.Module:
    """Return a binary tree of networks called ``of``, two shards merging into one, up to the root.

    ``levels`` counts leaves and root. The leaves are trained for half of ``rounds``, every level
    above for half of what is left, the root for the rest.
    """
    if levels < 1 or rounds < levels:
        raise ValueError(f"levels = {levels}, rounds = {rounds}; give 1 or more, a round per level")
    per_level, left = [], rounds
    for above in reversed(range(levels)):
        per_level.append(left if above == 0 else min(max(1, left // 2), left - above))
        left -= per_level[-1]
    nets = [
        [
            networks.build(of, input_shape, num_classes, seed=seed)
            for seed in torch.randint(2**31, (2 ** (levels - 1 - level),)).tolist()
        ]
        for level in range(levels)
    ]
    if any(True for _ in nets[0][0].buffers()):
        raise ValueError(f"of = {of!r} has buffers, which have no mean; take another network")
    return ShardedTree(nets, per_level)

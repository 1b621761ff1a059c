"""A network in shards that are merged two by two: every node goes on from its children's mean.

References
----------
Bourtoule et al., "Machine Unlearning", S&P 2021 (arXiv 1912.03817), for shards; Wen, Zhang, Yang,
Ding, "FedShard", AAAI 2026 (arXiv 2508.09866), for merging them in a tree: its rules of who is
merged follow updates and were not read, here they follow public ids.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from clients.sharded import Part, merged
from unlearning.models.shards import node_name

__all__ = ["Node", "ShardedTree"]


class Node(Part):
    """One node's network, and in how many rounds it is trained at most (as an integer buffer)."""

    rounds: torch.Tensor

    def __init__(self, net: nn.Module, rounds: int) -> None:
        super().__init__(net)
        self.register_buffer("rounds", torch.tensor(rounds))

    @property
    def is_done(self) -> bool:
        """Whether it has had its rounds."""
        return int(self.trained) >= int(self.rounds)


class ShardedTree(nn.Module):
    """A binary tree of networks: leaves are shards of clients, the root answers.

    Parameters
    ----------
    nets : sequence of sequence of nn.Module
        One per node, level by level: 2^d leaves first, the root last. Without buffers of
        normalisation, which have no mean.
    rounds : sequence of int
        Rounds in which the nodes of each level are trained.

    Notes
    -----
    A node begins with the mean of its children that were trained, by their examples. Before the
    root is trained the nodes of the highest level that is vote.
    """

    def __init__(self, nets: Sequence[Sequence[nn.Module]], rounds: Sequence[int]) -> None:
        super().__init__()
        self.levels = len(nets)
        self.nodes = nn.ModuleDict(
            {
                node_name(level, place): Node(net, rounds[level])
                for level, row in enumerate(nets)
                for place, net in enumerate(row)
            }
        )
        del self.node(self.levels - 1, 0).examples  # the root is merged with nobody

    def node(self, level: int, place: int) -> Node:
        """Return one node; leaves are level 0."""
        found = self.nodes[node_name(level, place)]
        assert isinstance(found, Node)
        return found

    def due(self, leaf: int) -> tuple[int, int] | None:
        """Return level and place of the node that a leaf's clients train next; None: all done."""
        for level in range(self.levels):
            if not self.node(level, leaf >> level).is_done:
                return level, leaf >> level
        return None

    def begin(self, level: int, place: int) -> None:
        """Give a node that was never trained the mean of its children's weights."""
        node = self.node(level, place)
        if level == 0 or int(node.trained):
            return
        children = [self.node(level - 1, 2 * place + side) for side in (0, 1)]
        there = [child for child in children if int(child.trained)]
        if there:
            node.net.load_state_dict(merged(there))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logarithm of the probabilities, ``(n, classes)``."""
        for level in reversed(range(self.levels)):
            row = [self.node(level, place) for place in range(2 ** (self.levels - 1 - level))]
            voting = [node for node in row if int(node.trained)]
            if voting or level == 0:
                break
        logs = torch.stack([node(x).log_softmax(1) for node in voting or row])
        return logs.logsumexp(0) - float(torch.tensor(float(len(logs))).log())

"""A network made of modules that are trained one after the other, in several orders of the groups.

References
----------
Basu Roy Chowdhury et al., "Towards Scalable Exact Machine Unlearning Using Parameter-Efficient
Fine-Tuning" (S3T), ICLR 2025 (arXiv 2406.16257); over groups of clients: Zhang, Guan, Lee, Liu,
Zou, Xiong, FedSGT, 2025 (arXiv 2511.23393).
"""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.func import functional_call

from clients.sharded import Part
from unlearning.models.sequences import module_name

__all__ = ["Sequenced"]


class Sequenced(nn.Module):
    """A frozen base, and for every order of the groups one additive step of all weights per module.

    With modules 1 to i of an order the network has the base's weights and the sum of their steps.

    Parameters
    ----------
    base : nn.Module
        Without buffers; its values are kept as they are. They must not come from the clients' data.
    groups : int
        Groups of clients, and modules per order (L).
    orders : int
        How many (B); order j begins with group j.
    stage_rounds : int
        Rounds in which a module is trained before the next one begins (R).

    Notes
    -----
    It answers with the order that has most trained modules in a row, the first of equals; without
    any with the base.
    """

    def __init__(self, base: nn.Module, groups: int, orders: int, stage_rounds: int) -> None:
        super().__init__()
        if any(True for _ in base.buffers()):
            raise ValueError(
                "a network in sequences must have no buffers, such as those of normalisation; "
                "take another one"
            )
        self.groups, self.orders, self.stage_rounds = groups, orders, stage_rounds
        nothing = copy.deepcopy(base)
        with torch.no_grad():
            for weight in nothing.parameters():
                weight.zero_()
        self.base = base.requires_grad_(False)
        self.sequences = nn.ModuleDict(
            {
                module_name(order, place): Part(copy.deepcopy(nothing))
                for order in range(orders)
                for place in range(groups)
            }
        )

    def module(self, order: int, place: int) -> Part:
        """Return one module, both counted from 0."""
        part = self.sequences[module_name(order, place)]
        assert isinstance(part, Part)
        return part

    def length(self, order: int, rounds: int = 1) -> int:
        """Return how many modules of an order, from the first on, were trained so many rounds."""
        for place in range(self.groups):
            if int(self.module(order, place).trained) < rounds:
                return place
        return self.groups

    @property
    def finished(self) -> bool:
        """Whether every module has had its rounds."""
        lengths = [self.length(order, self.stage_rounds) for order in range(self.orders)]
        return min(lengths) == self.groups

    def weights(self, order: int, length: int) -> dict[str, torch.Tensor]:
        """Return the weights of the base with the first modules of an order."""
        found: dict[str, torch.Tensor] = dict(self.base.named_parameters())
        for place in range(length):
            for name, step in self.module(order, place).net.named_parameters():
                found[name] = found[name] + step
        return found

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits, ``(n, classes)``."""
        lengths = [self.length(order) for order in range(self.orders)]
        best = max(range(self.orders), key=lambda order: (lengths[order], -order))
        logits: torch.Tensor = functional_call(self.base, self.weights(best, lengths[best]), (x,))
        return logits

"""Networks in sequences of modules: to forget, the modules from a group on are switched off."""

from __future__ import annotations

from torch import nn

from clients.sequenced import Sequenced
from experiments.models import networks

Shape = tuple[int, ...]


def build_sequences(
    input_shape: Shape,
    num_classes: int,
    of: str = "mlp",
    groups: int = 4,
    orders: int = 4,
    stage_rounds: int = 5,
) -> nn.Module:
    """Return a network called ``of`` with ``orders`` sequences of a module per group.

    Learning takes ``groups * stage_rounds`` rounds; what comes later trains modules that were
    switched off, and nothing once all are trained. The cost of a round is ``orders`` times that of
    one network.
    """
    if groups < 1 or not 1 <= orders <= groups or stage_rounds < 1:
        raise ValueError(
            f"groups = {groups}, orders = {orders}, stage_rounds = {stage_rounds}; give 1 or more, "
            "and no more orders than groups"
        )
    base = networks.build(of, input_shape, num_classes)
    return Sequenced(base, groups, orders, stage_rounds)

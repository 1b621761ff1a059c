from __future__ import annotations

import pytest
import torch
from torch import nn

from clients.linear import LinearSvm
from clients.stacked.layers import layers_of
from clients.stacked.stack import Stack, stack_of
from experiments.models.networks import build
from tests.support.side_by_side import mlp


def _frozen() -> nn.Module:
    model = mlp()
    next(model.parameters()).requires_grad_(False)
    return model


class _OwnLoss(nn.Sequential):
    def loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return logits.sum()


@pytest.mark.parametrize(
    "model",
    [
        build("cnn", (1, 28, 28), 10),
        LinearSvm(16, 4, 1e-3),
        _frozen(),
        nn.Sequential(nn.Flatten(), nn.Linear(16, 4), nn.ReLU()),
        nn.Sequential(nn.Flatten(), nn.Linear(16, 4), nn.Dropout(), nn.Linear(4, 4)),
        nn.Sequential(nn.Flatten(), nn.Linear(16, 4)).double(),
        _OwnLoss(nn.Flatten(), nn.Linear(16, 4)),
        nn.Sequential(nn.Flatten(), nn.Linear(5, 3)),
        nn.Sequential(nn.Flatten(), nn.Linear(1000, 1000), nn.ReLU(), nn.Linear(1000, 4)),
    ],
    ids=["cnn", "own-class", "frozen", "relu-last", "dropout", "double", "own-loss", "odd", "wide"],
)
def test_other_networks_are_not_stacked(model: nn.Module) -> None:
    assert layers_of(model) is None
    assert "small linear layers" in Stack(layers_of(model)).refused("train")


def test_networks_of_the_same_layers_share_what_is_known() -> None:
    one, other = mlp(), mlp()
    assert stack_of(one) is stack_of(other)
    assert stack_of(one) is not stack_of(build("mlp", (1, 4, 4), 4, {"hidden": 12}))

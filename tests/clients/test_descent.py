"""Plain SGD beside PyTorch's: the same bits, without its imports."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from clients.descent import PlainSGD


def _net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(108, 10)
    )


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("decay", [0.0, 5e-4])
@pytest.mark.parametrize("to_none", [True, False])
def test_its_weights_are_those_of_pytorch_bit_for_bit(
    momentum: float, decay: float, to_none: bool
) -> None:
    x, y = torch.randn(40, 1, 8, 8), torch.arange(40) % 10
    ours, theirs = _net(), _net()
    nets = (ours, theirs)
    mine = PlainSGD(ours.parameters(), 0.1, momentum=momentum, weight_decay=decay)
    other = torch.optim.SGD(theirs.parameters(), 0.1, momentum=momentum, weight_decay=decay)
    for net, sgd in zip(nets, (mine, other), strict=True):
        for at in range(0, 40, 16):
            sgd.zero_grad(set_to_none=to_none)
            functional.cross_entropy(net(x[at : at + 16]), y[at : at + 16]).backward()
            sgd.step()
    for here, there in zip(ours.parameters(), theirs.parameters(), strict=True):
        np.testing.assert_array_equal(here.detach().numpy(), there.detach().numpy())


def test_a_weight_without_a_gradient_stays_and_reset_forgets_the_momentum() -> None:
    moved, still = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.ones(2))
    sgd = PlainSGD([moved, still], 1.0, momentum=0.5, weight_decay=0.5)
    sgd.zero_grad()
    sgd.step()  # nothing has a gradient: nothing moves
    moved.grad = torch.ones(2)
    sgd.step()
    assert moved.tolist() == [-1, -1]
    sgd.reset()
    moved.grad = torch.zeros(2)
    sgd.step()  # of the decay alone: the step before is forgotten
    assert moved.tolist() == [-0.5, -0.5]
    assert still.tolist() == [1, 1]

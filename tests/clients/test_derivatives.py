"""Gradients of a whole shard against autograd, also where modules and parameters are shared."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from clients.derivatives import mean_squared_gradient
from clients.steps import Shard


class Shared(nn.Module):
    """One module under two names, and one weight in two modules."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(3)
            self.first, self.second, self.last = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3)
        self.second.weight = self.first.weight
        self.again = self.second

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        hidden = torch.tanh(self.second(torch.tanh(self.first(x))))
        logits: torch.Tensor = self.last(torch.tanh(self.again(hidden)))
        return logits


def test_squared_gradients_of_a_model_that_shares_modules_leave_it_usable() -> None:
    model, draw = Shared(), torch.Generator().manual_seed(0)
    data = Shard(torch.randn(5, 4, generator=draw), torch.tensor([0, 1, 2, 0, 1]))
    found = mean_squared_gradient(model, data)
    expected = {name: torch.zeros_like(weight) for name, weight in model.named_parameters()}
    for x, y in zip(data.features, data.labels, strict=True):
        model.zero_grad()
        torch.autograd.backward(functional.cross_entropy(model(x[None]), y[None]))
        for name, weight in model.named_parameters():
            assert weight.grad is not None
            expected[name] += weight.grad.square() / len(data)
    for name, values in expected.items():
        torch.testing.assert_close(found[name], values)
    assert found.keys() == expected.keys()  # a tensor under several names is one parameter

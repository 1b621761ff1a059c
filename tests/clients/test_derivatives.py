"""Gradients of a whole shard against autograd, also where modules and parameters are shared."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from clients import derivatives
from clients.derivatives import mean_gradient, mean_squared_gradient
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


def _row(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), *layers)


@pytest.mark.parametrize("size", [1, 30])
@pytest.mark.parametrize(
    "model",
    [
        _row(nn.Linear(60, 4)),
        _row(nn.Linear(60, 33), nn.ReLU(), nn.Linear(33, 4)),
        _row(
            nn.Linear(60, 16), nn.ReLU(), nn.Linear(16, 9, bias=False), nn.ReLU(), nn.Linear(9, 4)
        ),
    ],
)
def test_a_row_of_layers_has_the_bits_of_vmap_without_it(
    model: nn.Module, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first gradient through ``vmap`` imports PyTorch's compiler in every process."""
    draw = torch.Generator().manual_seed(size)
    x = torch.randn((size, 3, 20), generator=draw)
    data = Shard(x, torch.randint(4, (size,), generator=draw))
    counts = torch.rand(size, generator=draw)
    with monkeypatch.context() as patch:
        patch.setattr(derivatives, "_rows_of", lambda model: None)
        expected = [mean_squared_gradient(model, data, share) for share in (None, counts)]
    monkeypatch.setattr(derivatives, "vmap", lambda *given, **named: None)  # cannot be called
    for share, wanted in zip((None, counts), expected, strict=True):
        found = mean_squared_gradient(model, data, share)
        assert found.keys() == wanted.keys()
        assert all(torch.equal(found[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize(
    "model",
    [
        nn.Sequential(nn.Linear(4, 3)),
        _row(nn.Linear(4, 3), nn.Tanh()),
        _row(nn.ReLU()),
        _row(nn.Linear(4, 3).requires_grad_(False)),
        _row(*[nn.Linear(4, 4)] * 2),
        nn.Sequential(nn.Flatten(0), nn.Linear(4, 3)),
        nn.Sequential(),
    ],
    ids=["not-flat", "tanh", "no-layer", "frozen", "twice", "flat-whole", "empty"],
)
def test_other_networks_are_no_such_row(model: nn.Module) -> None:
    assert derivatives._rows_of(model) is None


class Recurrent(nn.Module):
    """A recurrent layer, of which vmap makes nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.last = nn.GRU(2, 3, batch_first=True), nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        logits: torch.Tensor = self.last(self.layer(x.reshape(len(x), 2, 2))[0][:, -1])
        return logits


class Sparse(nn.Module):
    """An embedding whose gradient has the rows it saw alone."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.last = nn.EmbeddingBag(9, 3, mode="mean", sparse=True), nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        logits: torch.Tensor = self.last(self.layer(x.abs().long().clamp(0, 8)))
        return logits


@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")
@pytest.mark.parametrize("kind", [Recurrent, Sparse])
@pytest.mark.parametrize("counts", [None, [0.5, 1.0, 0.0, 2.0, 1.0]])
def test_gradients_of_layers_without_a_batched_form(
    kind: type[nn.Module], counts: list[float] | None
) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(3)
        model = kind()
        data = Shard(4 * torch.randn(5, 4), torch.tensor([0, 1, 2, 0, 1]))
    shares = None if counts is None else torch.tensor(counts)
    found = mean_squared_gradient(model, data, shares)
    expected = {name: torch.zeros_like(weight) for name, weight in model.named_parameters()}
    for x, y, count in zip(data.features, data.labels, counts or [1.0] * 5, strict=True):
        model.zero_grad()
        torch.autograd.backward(functional.cross_entropy(model(x[None]), y[None]))
        for name, weight in model.named_parameters():
            assert weight.grad is not None
            expected[name] += count * weight.grad.to_dense().square() / len(data)
    for name, values in expected.items():
        torch.testing.assert_close(found[name], values)
    mean, _ = mean_gradient(model, data, functional.cross_entropy)
    assert all(g.layout == torch.strided and torch.isfinite(g).all() for g in mean.values())

"""Linear models trained as networks: the hinge loss, and that every step takes a model's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from clients.curvature import empirical_fisher, hutchinson
from clients.linear import LinearSvm, hinge
from clients.steps import Shard
from clients.training import loss_of
from experiments.models import networks as models
from strategies.base import EVERY_MODEL
from strategies.registry import strategies
from tests.support import toy
from tests.support.toy import ToyFederation, ToyModel, request
from unlearning import arrays as named
from unlearning.errors import ConfigError
from unlearning.request import Scope


class SvmToy(ToyModel):
    """The toy model with the hinge loss."""

    def loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the mean hinge loss and a penalty."""
        return hinge(logits, labels) + 0.01 * self.layer.weight.square().sum()


@pytest.fixture
def only_hinge(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let toy federations learn the hinge loss; cross-entropy is out of order."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a step took cross-entropy")

    monkeypatch.setattr(functional, "cross_entropy", refuse)
    monkeypatch.setattr(toy, "ToyModel", SvmToy)


def test_golden_hinge() -> None:
    """Labels 0 0 1; margins 2 - 1, 0 - 3, 4 - 0: losses 1 + 1 - 2 = 0, 1 + 3 - 0 = 4, 0."""
    scores = torch.tensor([[2.0, 1.0, -5.0], [0.0, 3.0, 2.0], [0.0, 4.0, -1.0]])
    assert float(hinge(scores, torch.tensor([0, 0, 1]))) == pytest.approx(4 / 3)
    # Two classes: max(0, 1 - margin), as the binary machine has it.
    margin = torch.tensor([[0.25, 0.0], [0.0, 0.25]])
    assert float(hinge(margin, torch.tensor([0, 0]))) == pytest.approx((0.75 + 1.25) / 2)
    assert float(hinge(torch.zeros(1, 7), torch.tensor([3]))) == 1


def test_the_penalty_leaves_the_biases_out() -> None:
    model = LinearSvm(2, 3, penalty=0.5)
    with torch.no_grad():
        model.linear.weight.fill_(2.0)
        model.linear.bias.fill_(9.0)
    scores, labels = model(torch.zeros(4, 1, 2)), torch.zeros(4, dtype=torch.int64)
    assert model.loss(scores, labels).item() == pytest.approx(1 + 0.25 * 6 * 4)
    with pytest.raises(ConfigError, match="penalty is -1"):
        models.build("linear-svm", (2,), 3, {"penalty": -1.0})


def test_gradient_is_that_of_finite_differences() -> None:
    generator = torch.Generator().manual_seed(0)
    model = LinearSvm(4, 3, penalty=0.3).double()
    x = torch.randn(9, 4, generator=generator, dtype=torch.float64)
    y = torch.arange(9) % 3

    def loss(weight: torch.Tensor) -> torch.Tensor:
        return hinge(x @ weight.T + model.linear.bias, y) + 0.15 * weight.square().sum()

    weight = model.linear.weight
    torch.autograd.backward(model.loss(model(x), y))
    assert torch.autograd.gradcheck(loss, weight.detach().requires_grad_())
    found = torch.autograd.functional.jacobian(loss, weight.detach())
    assert torch.allclose(weight.grad, found)


def test_a_network_without_a_loss_has_cross_entropy() -> None:
    assert loss_of(torch.nn.Linear(2, 2)) is functional.cross_entropy
    model = LinearSvm(2, 2)
    assert loss_of(model) == model.loss


@pytest.mark.parametrize("curvature", [empirical_fisher, hutchinson])
@pytest.mark.parametrize("penalty", [0.0, 0.5])
def test_curvature_of_a_hinge(curvature: Any, penalty: float) -> None:
    model = LinearSvm(3, 3, penalty)
    generator = torch.Generator().manual_seed(1)
    batch = Shard(torch.randn(8, 3, generator=generator), torch.arange(8) % 3)
    found = curvature(model, batch)
    torch.autograd.backward(model.loss(model(batch.features), batch.labels))
    slopes = [weight.grad for weight in model.parameters()]
    for mine, theirs in zip(found.slopes, slopes, strict=True):
        assert torch.allclose(mine, theirs, atol=1e-6)
    if curvature is hutchinson:  # flat but for the penalty
        assert torch.allclose(found.curvatures[0], torch.full((3, 3), penalty))
        assert not found.curvatures[1].any()


def serving() -> list[str]:
    """Return the strategies that make any network forget a client."""
    return [
        name
        for name, cls in strategies().items()
        if Scope.CLIENT in cls.scopes and (cls.models is None or cls.models == EVERY_MODEL)
    ]


@pytest.mark.parametrize("name", serving())
def test_every_strategy_takes_the_models_own_loss(
    tmp_path: Path, only_hinge: None, name: str
) -> None:
    # On so small a model the defaults of these select nothing.
    own = {"subspace": {"energy": 0.5}, "dampening": {"threshold": 0.95}}
    own["parameter-estimation"] = {"share": 0.5}
    strategy = strategies()[name](**own.get(name, {}))
    federation = ToyFederation(tmp_path, keepsakes=strategy.keepsakes())
    arrays = federation.learn(3)
    after = federation.unlearn(strategy, request("client"), arrays)
    assert named.is_finite(after)
    moves = named.digest(after) != named.digest(arrays)
    assert moves == (name != "fine-tune")


@pytest.mark.parametrize("name", ["linear", "linear-svm"])
def test_one_layer_and_no_more(name: str) -> None:
    arrays = models.to_arrays(models.build(name, (1, 8, 8), 10))
    assert sorted(array.shape for array in arrays.values()) == [(10,), (10, 64)]


def test_the_machine_separates_what_can_be_separated() -> None:
    generator = np.random.default_rng(0)
    y = generator.integers(0, 2, 200)
    x = generator.normal(0, 0.3, (200, 2)) + np.where(y[:, None] > 0, 1.0, -1.0)
    model = LinearSvm(2, 2, penalty=1e-3)
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    features, labels = torch.from_numpy(x.astype(np.float32)), torch.from_numpy(y)
    for _ in range(200):
        sgd.zero_grad()
        torch.autograd.backward(model.loss(model(features), labels))
        sgd.step()
    assert float((model(features).argmax(1) == labels).double().mean()) > 0.99

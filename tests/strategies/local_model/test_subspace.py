"""Subspace: what those who stay are fed is answered as before."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from clients.local import Local
from clients.state import arrays_of, load_arrays
from clients.steps import Shard
from clients.steps.layer_inputs import layer_inputs
from strategies.local_model.subspace import Subspace, basis, unseen
from tests.support.toy import ToyFederation, request
from unlearning import arrays as named
from unlearning.errors import ConfigError, FederationError
from unlearning.request import Scope

LOOKS = {"examples": 1000, "max_patches": 100_000}


class Small(nn.Module):
    """A convolution and two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 3, stride=2, padding=1)
        self.hidden = nn.Linear(3 * 4, 40)
        self.head = nn.Linear(40, 5, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        return self.head(self.hidden(self.conv(x).relu().flatten(1)).relu())


def told(model: nn.Module, x: torch.Tensor) -> dict[str, np.ndarray]:
    data = Shard(x, torch.zeros(len(x), dtype=torch.int64))
    local = Local(data, data.take(torch.arange(0)), data.take(torch.arange(0)), lambda seed: model)
    found = layer_inputs(model, local, LOOKS, np.random.default_rng(0)).arrays
    return {name.removeprefix("moment/"): moment for name, moment in found.items()}


def test_a_projector_is_idempotent_and_holds_the_energy() -> None:
    x = np.random.default_rng(0).normal(size=(50, 6)) * [5, 3, 1, 1, 0.1, 0.1]
    moment = x.T @ x
    found = basis(moment, 0.95)
    projector = found @ found.T
    np.testing.assert_allclose(projector @ projector, projector, atol=1e-12)
    held = np.trace(projector @ moment) / np.trace(moment)
    less = found[:, :-1] @ found[:, :-1].T
    assert np.trace(less @ moment) / np.trace(moment) < 0.95 <= held
    assert basis(moment, 1.0).shape == (6, 6)
    assert basis(np.zeros((4, 4)), 0.95).shape == (4, 0)


def test_no_inputs_leave_the_step_as_it_is() -> None:
    step = np.arange(6.0).reshape(2, 3)
    assert unseen(step, basis(np.zeros((3, 3)), 1.0)).tolist() == step.tolist()


def test_the_network_says_the_same_of_what_it_has_seen() -> None:
    """With all energy protected, layer by layer, hence in all; of other inputs it does not."""
    torch.manual_seed(0)
    model, x, other = Small().eval(), torch.randn(4, 2, 4, 4), torch.randn(4, 2, 4, 4)
    before = arrays_of(model)
    said = model(x).detach(), model(other).detach()
    strategy = Subspace(energy=1.0)
    strategy._bases = {name: basis(m, 1.0) for name, m in told(model, x).items()}
    generator = np.random.default_rng(1)
    step = {n: generator.normal(size=a.shape).astype(np.float32) for n, a in before.items()}
    load_arrays(model, strategy._beside(before, step))
    assert strategy.separable > 0.1
    torch.testing.assert_close(model(x), said[0], atol=2e-4, rtol=0)
    assert (model(other) - said[1]).abs().max() > 0.5


def test_moments_are_those_of_the_patches_with_a_one_for_the_bias() -> None:
    torch.manual_seed(0)
    model, x = Small().eval(), torch.randn(7, 2, 4, 4)
    found = told(model, x)
    assert {n: m.shape for n, m in found.items()} == {
        "conv.weight": (19, 19), "hidden.weight": (13, 13), "head.weight": (40, 40),
    }  # fmt: skip
    assert found["conv.weight"][-1, -1] == 7 * 4
    # What the layer says is linear in its rows, so their moment tells the square of its output.
    kernel = torch.cat([model.conv.weight.flatten(1), model.conv.bias[:, None]], 1).detach().numpy()
    expected = model.conv(x).square().sum((0, 2, 3)).detach().numpy()
    squares = np.einsum("oi,ij,oj->o", kernel, found["conv.weight"], kernel)
    np.testing.assert_allclose(squares, expected, rtol=1e-4)


def test_where_the_others_see_everything_the_request_fails(tmp_path) -> None:
    toy = ToyFederation(tmp_path)
    arrays, strategy = toy.learn(rounds=2), Subspace(energy=1.0)
    with pytest.raises(FederationError, match="not separable"):
        toy.unlearn(strategy, request(Scope.CLIENT), arrays)


def test_some_energy_leaves_a_step_and_the_leaver_shows_no_inputs(tmp_path) -> None:
    toy = ToyFederation(tmp_path)
    arrays, strategy = toy.learn(rounds=2), Subspace(energy=0.5)
    after = toy.unlearn(strategy, request(Scope.CLIENT), arrays)
    assert named.digest(after) != named.digest(arrays)
    assert after["running_mean"].tolist() == arrays["running_mean"].tolist()
    assert (1, "layer_inputs") not in toy.asked
    assert toy.asked[-1] == (1, "ascend")
    assert 0 < strategy.separable < 1


def test_a_moment_that_fits_no_layer_is_left_out(tmp_path, caplog) -> None:
    toy = ToyFederation(tmp_path)
    arrays = toy.learn(rounds=2)
    toy.faults[0] = lambda sent: [np.ones((2, 2), np.float32) for _ in sent]
    toy.unlearn(Subspace(energy=0.5), request(Scope.CLIENT), arrays)
    assert "0" in caplog.text
    assert "quarantined" in caplog.text or "left out" in caplog.text


def test_energy_is_a_share() -> None:
    with pytest.raises(ConfigError, match="energy"):
        Subspace(energy=1.5)

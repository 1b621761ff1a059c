"""Networks that answer at every position: sizes, causality, and the derivatives that are asked."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from clients.curvature import hutchinson
from clients.derivatives import gauss_newton_diagonal, mean_gradient, mean_squared_gradient
from clients.local import Local, Shard
from clients.sequences import is_sequential
from clients.steps.forget_loss import forget_loss
from clients.training import kl_divergence, loss_of
from experiments.models import networks
from unlearning.errors import ConfigError
from unlearning.protocol import Settings

SMALL = {
    "char-lstm": {"hidden": 6, "layers": 2, "embedding": 4},
    "char-transformer": {"width": 8, "heads": 2, "layers": 1},
}
NAMES = sorted(SMALL)


def shard(count: int = 3, length: int = 5, classes: int = 7) -> Shard:
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(classes, (count, length), generator=generator)
    return Shard(x.float(), torch.randint(classes, (count, length), generator=generator))


@pytest.mark.parametrize("name", NAMES)
def test_the_full_size_has_about_point_8_million_weights(name: str) -> None:
    net = networks.build(name, (32,), 96)
    assert sum(w.numel() for w in net.parameters()) == 822_112
    assert is_sequential(net)


@pytest.mark.parametrize("name", NAMES)
def test_what_comes_later_changes_no_answer(name: str) -> None:
    net = networks.build(name, (5,), 7, SMALL[name]).eval()
    x = shard().features
    other = x.clone()
    other[:, 3:] = 0
    assert torch.equal(net(x)[..., :3], net(other)[..., :3])
    assert not torch.equal(net(x)[..., 3:], net(other)[..., 3:])
    assert torch.allclose(net(x[:, :3]), net(x)[..., :3], atol=1e-6)  # shorter ones are read too


def test_the_lstm_is_pytorchs() -> None:
    net = networks.build("char-lstm", (5,), 7, SMALL["char-lstm"])
    theirs = torch.nn.LSTM(4, 6, num_layers=2, batch_first=True)
    with torch.no_grad():
        for place, layer in enumerate(net.layers):
            getattr(theirs, f"weight_ih_l{place}").copy_(layer.read.weight)
            getattr(theirs, f"weight_hh_l{place}").copy_(layer.recall.weight)
            getattr(theirs, f"bias_ih_l{place}").copy_(layer.read.bias)
            getattr(theirs, f"bias_hh_l{place}").zero_()
    x = net.embedding(shard().features.long())
    assert torch.allclose(net.layers(x), theirs(x)[0], atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_squares_of_single_gradients_are_those_of_examples_one_by_one(name: str) -> None:
    net, data = networks.build(name, (5,), 7, SMALL[name]), shard()
    found = mean_squared_gradient(net, data)
    total = dict.fromkeys(found, 0.0)
    for place in range(len(data)):
        one, _ = mean_gradient(net, data.take(torch.tensor([place])), loss_of(net))
        total = {key: total[key] + one[key] ** 2 / len(data) for key in total}
    for key, value in found.items():
        assert torch.allclose(value, total[key], atol=1e-7), key


@pytest.mark.parametrize("name", NAMES)
def test_gradients_have_gradients(name: str) -> None:
    net = networks.build(name, (5,), 7, SMALL[name])
    assert all(torch.isfinite(c).all() for c in hutchinson(net, shard()).curvatures)
    found, passes = gauss_newton_diagonal(net, shard())
    assert passes == 4
    assert found.keys() == dict(net.named_parameters()).keys()
    assert all((value >= 0).all() and torch.isfinite(value).all() for value in found.values())


def test_the_diagonal_of_sequences_is_the_sum_over_positions_and_classes() -> None:
    """Of a model without context the law of labels is one row of chances, drawn at L places.

    Logits b, chances p: the mean over L positions of independent labels has the diagonal
    ``p (1 - p) / L``; four draws of 400 examples come near it.
    """

    class Bias(torch.nn.Module):
        every_position = True

        def __init__(self) -> None:
            super().__init__()
            self.b = torch.nn.Parameter(torch.tensor([1.0, 0.0, -1.0]))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.b[None, :, None] + 0 * x[:, None]

    net, data = Bias(), shard(400, 5, 3)
    found, _ = gauss_newton_diagonal(net, data)
    p = net.b.detach().softmax(0)
    assert torch.allclose(found["b"], p * (1 - p) / 5, rtol=0.15)


def test_the_divergence_is_a_mean_over_positions() -> None:
    teacher, student = torch.randn(4, 3), torch.randn(4, 3)
    usual = functional.kl_div(
        student.log_softmax(1), teacher.log_softmax(1), reduction="batchmean", log_target=True
    )
    assert torch.allclose(kl_divergence(teacher, student), usual)
    long = [side[..., None].expand(4, 3, 6) for side in (teacher, student)]
    assert torch.allclose(kl_divergence(*long), usual)


def test_examples_that_are_no_windows_are_refused() -> None:
    with pytest.raises(ConfigError, match="reads windows of text"):
        networks.build("char-lstm", (1, 8, 8), 10)
    with pytest.raises(ConfigError, match="no multiple of heads"):
        networks.build("char-transformer", (8,), 10, {"width": 10, "heads": 4})


@pytest.mark.parametrize("name", NAMES)
def test_the_first_step_of_npo_climbs_the_loss_of_whole_windows(name: str) -> None:
    """At the start its slope is that of ``-mean_f l``, l the sum over a window's L positions.

    One step at rate r over all windows is then ``+ r L`` times the gradient of the mean loss.
    """
    net, data = networks.build(name, (5,), 7, SMALL[name]), shard()
    nothing = data.take(torch.zeros(0, dtype=torch.int64))
    slope, _ = mean_gradient(net, data, loss_of(net))
    before = {key: w.detach().clone() for key, w in net.named_parameters()}
    settings: Settings = {
        "kind": "npo", "epochs": 1, "beta": 0.1, "gamma": 1.0, "alpha": 1.0, "clip": 1e9,
        "batch_size": 8, "learning_rate": 1e-2,
    }  # fmt: skip
    local = Local(nothing, data, nothing, lambda seed: net)
    forget_loss(net, local, settings, np.random.default_rng(0))
    for key, weight in net.named_parameters():
        assert torch.allclose(weight - before[key], 1e-2 * 5 * slope[key], atol=1e-6), key

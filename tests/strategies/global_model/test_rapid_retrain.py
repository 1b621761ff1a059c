"""Curvature, the preconditioned step, and retraining with it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from clients import curvature
from clients.steps import Local, Shard
from clients.steps.precondition import block_mean, newton_step, precondition
from strategies.global_model.rapid_retrain import RapidRetrain
from strategies.global_model.retrain import Retrain
from tests.support.toy import FEATURES, ToyFederation, request, shard
from unlearning import arrays as named
from unlearning.errors import ConfigError
from unlearning.request import Request, Scope

SETTINGS = {
    "local_epochs": 1,
    "batch_size": 2,
    "learning_rate": 0.1,
    "curvature": "empirical-fisher",
    "beta1": 0.9,
    "beta2": 0.5,
    "block": 1,
    "damping": 0.25,
    "max_step": 0.0,
}


def image_batch(size: int = 5) -> Shard:
    generator = torch.Generator().manual_seed(3)
    labels = torch.randint(3, (size,), generator=generator)
    return Shard(torch.randn(size, 2, 6, 6, generator=generator), labels)


def convolutions(**settings: object) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, **settings),  # type: ignore[arg-type]
        nn.ReLU(inplace=True),
        nn.Conv2d(4, 3, 2, bias=False),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(12, 3),
    )


def with_norm(kind: type[nn.Module], *, affine: bool = True) -> nn.Module:
    torch.manual_seed(0)
    sizes = (4,) if kind is nn.BatchNorm2d else (2, 4)
    norm = kind(*sizes, affine=affine)
    return nn.Sequential(nn.Conv2d(2, 4, 3), norm, nn.Flatten(), nn.Linear(64, 3))


def local(data: Shard) -> Local:
    empty = data.take(torch.arange(0))
    return Local(retain=data, forget=empty, held_out=empty, fresh_model=lambda seed: nn.Identity())


def one_by_one(model: nn.Module, batch: Shard) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Return mean and mean square of the examples' gradients, the slow and obvious way."""
    weights = list(model.parameters())
    rows = []
    for x, y in zip(batch.features, batch.labels, strict=True):
        loss = functional.cross_entropy(model(x[None]), y[None])
        rows.append(torch.autograd.grad(loss, weights))
    columns = [torch.stack(column) for column in zip(*rows, strict=True)]
    return [c.mean(0) for c in columns], [c.square().mean(0) for c in columns]


# Curvature ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings", [{}, {"padding": 2, "stride": 2}, {"dilation": 2, "padding": "valid"}]
)
def test_squares_by_layer_are_those_of_single_examples(monkeypatch, settings) -> None:
    monkeypatch.setattr(curvature, "_ENTRIES", 150)  # chunks of 2 of 5 examples
    model, batch = convolutions(**settings), image_batch()
    found = curvature.empirical_fisher(model, batch)
    assert found.passes == 1
    slopes, squares = one_by_one(model, batch)
    torch.testing.assert_close(found.slopes, slopes)
    torch.testing.assert_close(found.curvatures, squares)
    plain = functional.cross_entropy(model(batch.features), batch.labels)
    torch.testing.assert_close(found.slopes, list(torch.autograd.grad(plain, model.parameters())))


@pytest.mark.parametrize(
    "model",
    [
        with_norm(nn.GroupNorm),
        convolutions(padding="same"),
        convolutions(padding=1, padding_mode="circular"),
        convolutions(groups=2),
        nn.Sequential(nn.Flatten(0, 1), nn.Linear(6, 6), nn.Unflatten(0, (-1, 2)), nn.Flatten(),
                      nn.Linear(72, 3)),
    ],
)  # fmt: skip
def test_other_layers_take_a_second_pass_to_the_same_end(model) -> None:
    batch = image_batch()
    found = curvature.empirical_fisher(model, batch)
    assert found.passes == 2
    slopes, squares = one_by_one(model, batch)
    torch.testing.assert_close(found.slopes, slopes)
    torch.testing.assert_close(found.curvatures, squares)
    assert model.training


def test_shared_weights_and_frozen_ones_are_seen() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3))
    model[2].weight = model[0].weight
    batch = shard(0, 4)
    found = curvature.empirical_fisher(model, batch)
    slopes, squares = one_by_one(model, batch)
    torch.testing.assert_close([found.slopes, found.curvatures], [slopes, squares])

    half = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    half[0].requires_grad_(False)
    assert len(curvature.empirical_fisher(half, batch).curvatures) == 2


@pytest.mark.parametrize("affine", [True, False])
def test_batch_statistics_move_once_and_do_not_mix_the_examples(affine) -> None:
    """With BatchNorm the gradient is that of training, the squares those of evaluation."""
    model, batch = with_norm(nn.BatchNorm2d, affine=affine), image_batch()
    before = {name: b.clone() for name, b in model.named_buffers()}
    found = curvature.empirical_fisher(model, batch)
    expected = with_norm(nn.BatchNorm2d, affine=affine).train()
    loss = functional.cross_entropy(expected(batch.features), batch.labels)
    slopes = torch.autograd.grad(loss, expected.parameters())
    torch.testing.assert_close(found.slopes, list(slopes))
    torch.testing.assert_close(dict(model.named_buffers()), dict(expected.named_buffers()))
    assert not torch.equal(before["1.running_mean"], model[1].running_mean)
    torch.testing.assert_close(found.curvatures, one_by_one(expected.eval(), batch)[1])
    assert model.training


def test_hutchinson_is_the_diagonal_on_average() -> None:
    """E[z * Hz] is diag(H): with one weight per class and bias-free, H is small enough to see."""
    torch.manual_seed(0)
    model, batch = nn.Linear(2, 3, bias=False), Shard(torch.randn(6, 2), torch.arange(6) % 3)

    def loss(weight: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(batch.features @ weight.T, batch.labels)

    hessian = torch.autograd.functional.hessian(loss, model.weight.detach()).view(6, 6)
    torch.manual_seed(1)
    found = curvature.hutchinson(model, batch)
    torch.manual_seed(1)
    z = torch.randint_like(model.weight, 2).mul_(2).sub_(1).flatten()
    assert set(z.tolist()) == {-1.0, 1.0}
    torch.testing.assert_close(found.curvatures[0].flatten(), (z * (hessian @ z)).abs())
    torch.testing.assert_close(found.slopes[0], torch.func.grad(loss)(model.weight.detach()))
    assert found.passes == 3


# The step -------------------------------------------------------------------------------------


def test_step_is_slope_over_curvature_and_a_share_of_its_mean() -> None:
    """Curvatures 1, 3 and 8 have mean 4; a damping of 0.25 adds 1 to each.

    -2 / (1 + 1) = -1, 8 / (3 + 1) = 2, -9 / (8 + 1) = -1.
    """
    slopes = [torch.tensor([-2.0, 8.0]), torch.tensor([-9.0])]
    found = newton_step(slopes, [torch.tensor([1.0, 3.0]), torch.tensor([8.0])], 0.25)
    assert [f.tolist() for f in found] == [[-1.0, 2.0], [-1.0]]
    flat = newton_step(slopes, [torch.zeros(2), torch.zeros(1)], 0.0)
    assert all(torch.isfinite(f).all() for f in flat)


def test_blocks_share_their_mean() -> None:
    values = torch.tensor([[1.0, 2.0, 6.0], [4.0, 5.0, 0.0], [7.0, 9.0, 2.0], [8.0, 0.0, 6.0]])
    found = block_mean(values, 5)
    assert found.flatten().tolist() == pytest.approx([3.6] * 5 + [5.2] * 5 + [3.0] * 2, rel=1e-6)
    kernels = torch.arange(16.0).view(2, 2, 2, 2)
    assert block_mean(kernels, 3)[1, 0].tolist() == [[9.5, 9.5], [9.5, 9.5]]
    assert torch.equal(block_mean(kernels, 1), kernels)
    assert block_mean(torch.tensor([4.0, 2.0]), 3).tolist() == [3.0, 3.0]


def test_training_follows_the_papers_sums() -> None:
    """Three batches of a linear softmax model, by the formulas as the paper prints them.

    m_t = (1 - b1) sum_s b1^(t-s) D_s / (1 - b1^t),
    v_t = sqrt((1 - b2) sum_s b2^(t-s) G_s^2 / (1 - b2^t)), w <- w - eta m_t / (v_t + eps)
    with the gradient of one example (p - e_y) x^T, D its mean, G the mean of its squares, and
    eps a quarter of the mean of v_t.
    """
    x = np.array([[1, -2], [0.5, 1], [-1, 0.3], [2, 1], [-0.7, -0.2], [0.1, 1.5]])
    y = np.array([0, 1, 1, 0, 1, 0])
    data = Shard(torch.tensor(x, dtype=torch.float64), torch.tensor(y))
    model = nn.Linear(2, 2, bias=False).double()
    start = np.array([[0.2, -0.4], [-0.1, 0.3]])
    with torch.no_grad():
        model.weight.copy_(torch.from_numpy(start))
    outcome = precondition(model, local(data), SETTINGS, np.random.default_rng(5))

    order = np.random.default_rng(5).permutation(6)
    w, slopes, squares = start.copy(), [], []
    for t in range(1, 4):
        rows = order[2 * t - 2 : 2 * t]
        p = np.exp(x[rows] @ w.T)
        p /= p.sum(1, keepdims=True)
        each = (p - np.eye(2)[y[rows]])[:, :, None] * x[rows][:, None, :]
        slopes.append(each.mean(0))
        squares.append((each**2).mean(0))
        m = 0.1 * sum(0.9 ** (t - s) * slopes[s - 1] for s in range(1, t + 1)) / (1 - 0.9**t)
        mean_square = 0.5 * sum(0.5 ** (t - s) * squares[s - 1] ** 2 for s in range(1, t + 1))
        v = np.sqrt(mean_square / (1 - 0.5**t))
        w -= 0.1 * m / (v + 0.25 * v.mean())
    np.testing.assert_allclose(model.weight.detach().numpy(), w, rtol=1e-9)
    assert (outcome.num_examples, outcome.examples_processed) == (6, 6)


def test_no_step_is_longer_than_allowed() -> None:
    data = shard(0, 2)
    lengths = []
    for limit in (0.0, 0.05):
        model = nn.Linear(FEATURES, 3)
        start = [w.detach().clone() for w in model.parameters()]
        precondition(model, local(data), {**SETTINGS, "max_step": limit}, np.random.default_rng(0))
        moved = [w.detach() - s for w, s in zip(model.parameters(), start, strict=True)]
        lengths.append(float(torch.cat([m.flatten() for m in moved]).norm()))
    assert lengths[0] > 0.1
    assert lengths[1] == pytest.approx(0.05, rel=1e-4)


def test_a_client_without_data_sends_nothing_new() -> None:
    model = nn.Linear(FEATURES, 3)
    before = model.weight.detach().clone()
    outcome = precondition(model, local(shard(0, 0)), SETTINGS, np.random.default_rng(0))
    assert (outcome.num_examples, outcome.examples_processed) == (0, 0)
    assert torch.equal(model.weight, before)


def test_an_unknown_curvature_is_refused() -> None:
    settings = {**SETTINGS, "curvature": "fisher"}
    with pytest.raises(ConfigError, match="empirical-fisher"):
        precondition(nn.Linear(3, 3), local(shard(0, 4)), settings, np.random.default_rng(0))


# The strategy ---------------------------------------------------------------------------------


def test_with_plain_rounds_only_it_is_retraining_bit_for_bit(tmp_path) -> None:
    plain = RapidRetrain(share=1.0, warmup=4)
    assert ToyFederation(tmp_path).answers_alike(plain, Retrain())


def test_rounds_are_a_share_and_the_first_are_plain(tmp_path) -> None:
    toy = ToyFederation(tmp_path / "a")
    arrays = toy.learn(rounds=5)
    twin = toy.branch(tmp_path / "b")
    twin.unlearn(RapidRetrain(share=0.5, warmup=1), request(Scope.CLIENT), arrays)
    assert twin.asked == [(c, s) for s in ("train", *["precondition"] * 2) for c in (0, 2, 3)]


@pytest.mark.parametrize("scope", [Scope.CLIENT, Scope.SAMPLE, Scope.CLASS])
def test_the_result_does_not_depend_on_what_is_forgotten(tmp_path, scope) -> None:
    """Exactness: other forgotten examples in its place, other learning, the same answer."""
    found, learned = set(), set()
    asked = Request(scope, classes=(2,)) if scope is Scope.CLASS else request(scope)
    for salt in (0.0, 5.0):
        toy = ToyFederation(tmp_path / str(salt))
        for client, data in toy.shards.items():
            gone = asked.omission(client)
            hit = torch.isin(data.labels, torch.tensor(sorted(gone.classes)))
            hit[list(gone.samples)] = True
            hit |= gone.everything
            data.features[hit] += salt
        arrays = toy.learn(rounds=3)
        learned.add(named.digest(arrays))
        found.add(named.digest(toy.unlearn(RapidRetrain(warmup=1), asked, arrays)))
    assert len(learned) == 2
    assert len(found) == 1


def test_it_goes_back_only_to_where_the_leaver_joined(tmp_path) -> None:
    toy = ToyFederation(tmp_path, late={1: 4})
    arrays = toy.learn(rounds=5)
    toy.asked.clear()
    strategy = RapidRetrain(share=0.6, warmup=0)
    strategy.join(toy.federation)
    start, rounds = strategy.prepare(request(Scope.CLIENT), toy.federation.history, arrays)
    assert named.digest(start) == named.digest(toy.federation.history.arrays(4))
    assert rounds == 2  # 0.6 of rounds 4 and 5, rounded up
    strategy.discard()


def test_the_clean_rounds_replace_the_old_ones(tmp_path) -> None:
    toy = ToyFederation(tmp_path)
    arrays = toy.learn(rounds=4)
    asked = replace(request(Scope.CLIENT), at_round=None)
    toy.federation.ledger.receive(asked)
    after = toy.run(RapidRetrain(), arrays, rounds=1)
    history = toy.federation.history
    assert history.rounds == (1, 2, 5)
    assert all(1 not in history.participants(t) for t in history.rounds)
    steps = [(1.0, history.contribution(c)) for c in (0, 2, 3)]
    total = named.apply_update(history.initial, named.weighted_sum(steps))
    np.testing.assert_allclose(total["layer.weight"], after["layer.weight"], rtol=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {"curvature": "hessian"},
        {"share": 0.0},
        {"share": 1.5},
        {"warmup": -1},
        {"learning_rate": 0.0},
        {"beta1": 1.0},
        {"beta2": 1.0},
        {"block": 0},
        {"damping": -0.1},
        {"max_step": -1.0},
    ],
)
def test_senseless_options_are_refused(options) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        RapidRetrain(**options)

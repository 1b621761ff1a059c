"""ForgetLoss: the identities of its five kinds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from clients.local import Local
from clients.state import arrays_of
from clients.steps.forget_loss import divergence, forget_loss, preference, saliency
from strategies.local_model.forget_loss import KINDS, ForgetLoss
from tests.support.toy import TRAIN, ToyFederation, ToyModel, request, shard
from unlearning import arrays as named
from unlearning.errors import ConfigError, UnsupportedRequestError
from unlearning.request import Scope

LOSSES = torch.linspace(0.01, 6, 40, dtype=torch.float64)
START = torch.flip(LOSSES, (0,)) / 2


def settings_of(kind: str, **changes: float) -> dict[str, float | str]:
    beta, gamma, alpha = KINDS[kind]
    usual = {"beta": beta, "gamma": gamma, "alpha": alpha, "ascent_epochs": 3, "clip": 1e9}
    return {**TRAIN, "momentum": 0.0, "kind": kind, "epochs": 1, **usual, **changes}


def local(*, retained: int = 0, forgotten: int = 12) -> Local:
    data = shard(0, 12).take(torch.arange(forgotten))
    empty = data.take(torch.arange(0))
    return Local(shard(1, retained) if retained else empty, data, empty, fresh_model=ToyModel)


def moved(given: Local, settings: dict[str, float | str]) -> named.Arrays:
    model = ToyModel(0)
    before = arrays_of(model)
    forget_loss(model, given, settings, np.random.default_rng(0))
    return named.delta(before, arrays_of(model))


def test_npo_is_ascent_in_the_limit_and_never_negative() -> None:
    """For beta -> 0: (2 / beta) log 2 - (l - l0)."""
    beta = 1e-6
    found = preference(LOSSES, START, beta) - 2 / beta * np.log(2)
    torch.testing.assert_close(found, -(LOSSES - START), atol=1e-4, rtol=0)
    assert (preference(LOSSES, START, 0.1) >= 0).all()


def test_the_pull_of_npo_fades_as_the_probability_falls() -> None:
    """d/dl = -2 r^b / (1 + r^b) with r = p / p0: -1 at the start."""
    x = LOSSES.clone().requires_grad_()
    preference(x, START, 0.7).sum().backward()
    ratio = torch.exp(START - LOSSES) ** 0.7
    torch.testing.assert_close(x.grad, -2 * ratio / (1 + ratio))
    y = torch.zeros(1, requires_grad=True)
    preference(y, 0.0, 0.1).sum().backward()
    assert y.grad.item() == pytest.approx(-1)


def test_sim_npo_hardly_moves_what_is_certain() -> None:
    x = torch.zeros(1, requires_grad=True)
    preference(x, 0.0, 4.5, 0.125).sum().backward()
    assert x.grad.item() == pytest.approx(-0.125)


def test_the_first_step_of_npo_is_ascent() -> None:
    given = local()
    found = moved(given, settings_of("npo", batch_size=64))
    model = ToyModel(0).eval()
    x, y = given.forget.features, given.forget.labels
    functional.cross_entropy(model(x), y).backward()
    for name, w in model.named_parameters():
        np.testing.assert_allclose(found[name], 0.3 * w.grad.numpy(), atol=1e-6)


def test_the_mask_is_half_of_all_entries_and_the_rest_stays() -> None:
    gradients = {"a": torch.tensor([[1.0, -5.0], [0.0, 2.0]]), "b": torch.tensor([2.0])}
    found = saliency(gradients)
    assert found["a"].tolist() == [[False, True], [False, True]]
    assert not found["b"].any()
    settings = settings_of("salun", momentum=0.9, weight_decay=0.1, epochs=3)
    step = named.parameters(moved(local(retained=9), settings))
    assert (
        sum(int((a != 0).sum()) for a in step.values()) == sum(a.size for a in step.values()) // 2
    )


def test_scrub_starts_at_no_divergence_and_can_leave_the_ascent_out() -> None:
    z = torch.randn(5, 4)
    assert divergence(z, z).item() == pytest.approx(0, abs=1e-6)
    with_it, without = (
        moved(local(retained=9), settings_of("scrub", epochs=3, ascent_epochs=n, alpha=2.0))
        for n in (3, 0)
    )
    other = replace(local(retained=9), forget=shard(3, 12))
    again = moved(other, settings_of("scrub", epochs=3, ascent_epochs=0, alpha=2.0))
    assert named.digest(without) == named.digest(again)  # distillation on the rest alone
    assert named.digest(with_it) != named.digest(without)


def test_the_rest_is_cycled_beside_the_forget_set() -> None:
    outcome = forget_loss(
        ToyModel(0),
        local(retained=3),
        settings_of("grad-diff", batch_size=2),
        np.random.default_rng(0),
    )
    assert outcome.examples_processed == 12 + 3 + 12 + 3 * 3  # six steps: batches of 2, 1, 2, 1 ...


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_forget_set_is_no_step(kind) -> None:
    found = moved(local(retained=9, forgotten=0), settings_of(kind))
    assert not any(array.any() for array in found.values())


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_serves_samples_and_refuses_clients_where_it_must(tmp_path, kind) -> None:
    toy = ToyFederation(tmp_path)
    arrays = toy.learn(rounds=2)
    after = toy.branch(tmp_path / "a").unlearn(ForgetLoss(kind=kind), request(Scope.SAMPLE), arrays)
    assert named.digest(after) != named.digest(arrays)
    assert after["running_mean"].tolist() == arrays["running_mean"].tolist()
    if kind in ("npo", "sim-npo"):
        toy.unlearn(ForgetLoss(kind=kind), request(Scope.CLIENT), arrays)
        return
    strategy = ForgetLoss(kind=kind)
    strategy.join(toy.federation)
    with pytest.raises(UnsupportedRequestError, match="npo, sim-npo"):
        strategy.check(request(Scope.CLIENT))


def test_no_loss_moves_the_model_beyond_the_servers_reach(tmp_path) -> None:
    toy = ToyFederation(tmp_path)
    arrays = toy.learn(rounds=2)
    strategy = ForgetLoss(rate=50.0, clip=100.0, trust=0.5)
    after = toy.unlearn(strategy, request(Scope.CLIENT), arrays)
    limit = 0.5 * named.norm(named.delta(toy.initial, arrays))
    assert named.norm(named.delta(arrays, after)) == pytest.approx(limit, rel=1e-5)


def test_unknown_kinds_are_refused() -> None:
    with pytest.raises(ConfigError, match="kind"):
        ForgetLoss(kind="dpo")

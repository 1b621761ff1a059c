"""Quit: what the virtual teacher says, and that nothing else moves."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from clients.local import Local
from clients.state import arrays_of
from clients.steps.distil_without import distil_without, virtual_logits
from strategies.local_model.quit import Quit
from tests.support.toy import TRAIN, ToyFederation, ToyModel, request, shard
from unlearning import arrays as named
from unlearning.request import Scope

SETTINGS = {**TRAIN, "epochs": 1, "value": "min", "temperature": 1.0}


def drawn() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(50, 6, generator=generator, dtype=torch.float64) * 3
    return z, torch.arange(50) % 6


@pytest.mark.parametrize("value", ["min", "entropy"])
def test_the_other_classes_keep_their_relations(value) -> None:
    z, y = drawn()
    p, q = virtual_logits(z, y, value).softmax(1), z.softmax(1)
    rest = ~torch.nn.functional.one_hot(y, 6).bool()
    for found in (p, q):
        found[~rest] = 0
    torch.testing.assert_close(p / p.sum(1, keepdim=True), q / q.sum(1, keepdim=True))


def test_the_true_class_becomes_the_least_likely() -> None:
    z, y = drawn()
    p = virtual_logits(z, y, "min").softmax(1)
    torch.testing.assert_close(p[torch.arange(50), y], p.min(1).values)


def test_no_other_value_leaves_more_entropy() -> None:
    z, y = drawn()

    def entropy(logits: torch.Tensor) -> torch.Tensor:
        return torch.special.entr(logits.softmax(1)).sum(1)

    best = virtual_logits(z, y, "entropy")
    for other in np.linspace(-8, 8, 81):
        tried = z.clone()
        tried[torch.arange(50), y] = other
        assert (entropy(best) >= entropy(tried) - 1e-12).all()


def test_two_classes_end_undecided() -> None:
    p = virtual_logits(torch.tensor([[3.0, -1.0]]), torch.tensor([0]), "min").softmax(1)
    assert p.tolist() == [[0.5, 0.5]]


def local(*, retained: int = 0) -> Local:
    data = shard(0, 12)
    empty = data.take(torch.arange(0))
    return Local(shard(1, retained) if retained else empty, data, empty, fresh_model=ToyModel)


def test_examples_that_are_as_wrong_as_can_be_are_not_touched() -> None:
    model, given = ToyModel(0), local()
    labels = model.eval()(given.forget.features).argmin(1)
    given = replace(given, forget=replace(given.forget, labels=labels))
    before = arrays_of(model)
    distil_without(model, given, {**SETTINGS, "momentum": 0.0}, np.random.default_rng(0))
    for name, array in arrays_of(model).items():
        np.testing.assert_allclose(array, before[name], atol=1e-6)


def test_without_a_forget_set_nothing_happens() -> None:
    given = local(retained=5)
    empty = replace(given, forget=given.held_out)
    assert distil_without(ToyModel(0), empty, SETTINGS, np.random.default_rng(0)).num_examples == 0


def test_a_step_is_the_gradient_of_the_divergence() -> None:
    """One full batch: w moves by -rate (softmax(z_s) - softmax(z~))^T x / n."""
    model, given = ToyModel(0), local()
    x, y = given.forget.features, given.forget.labels
    z = model.eval()(x).detach()
    push = (z.softmax(1) - virtual_logits(z, y, "min").softmax(1)).T @ x / len(x)
    before = model.layer.weight.detach().clone()
    settings = {**SETTINGS, "batch_size": 64, "momentum": 0.0, "learning_rate": 0.5}
    distil_without(model, given, settings, np.random.default_rng(0))
    torch.testing.assert_close(model.layer.weight.detach(), before - 0.5 * push)


def test_the_leaver_alone_is_asked_and_statistics_stay(tmp_path) -> None:
    toy = ToyFederation(tmp_path)
    arrays = toy.learn(rounds=3)
    after = toy.unlearn(Quit(), request(Scope.CLIENT), arrays)
    assert toy.asked[-1] == (1, "distil_without")
    assert after["running_mean"].tolist() == arrays["running_mean"].tolist()
    assert named.digest(after) != named.digest(arrays)

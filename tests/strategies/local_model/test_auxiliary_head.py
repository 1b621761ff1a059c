"""AuxiliaryHead: the identities of the combination, and that nothing else moves."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from clients.local import Local
from clients.state import arrays_of
from clients.steps import Shard
from clients.steps.auxiliary_head import auxiliary_head
from strategies.local_model.auxiliary_head import AuxiliaryHead
from tests.support.toy import ToyFederation, request
from unlearning import arrays as named
from unlearning.errors import FederationError
from unlearning.request import Guarantee, Scope

SETTINGS = {
    "class_mode": False, "strength": 0.5, "fresh": 0.5, "epochs": 3, "batch_size": 4,
    "learning_rate": 0.1, "momentum": 0.5, "weight_decay": 0.0,
}  # fmt: skip


def network(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 3))


def local(kept: int = 5) -> Local:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(20, 3, generator=generator)
    data = Shard(x, x.argmax(1))
    return Local(
        retain=data.take(torch.arange(15, 15 + kept)),
        forget=data.take(torch.arange(15)),
        held_out=data.take(torch.arange(0)),
        fresh_model=network,
    )


def answer(**changes: object) -> tuple[named.Arrays, named.Arrays]:
    model = network(1)
    before = arrays_of(model)
    settings = {**SETTINGS, **changes}
    auxiliary_head(model, local(), settings, np.random.default_rng(0))
    return before, arrays_of(model)


@pytest.mark.parametrize("class_mode", [False, True])
def test_only_the_head_changes_and_nothing_at_strength_zero(class_mode) -> None:
    before, after = answer(class_mode=class_mode)
    assert {n for n in before if (before[n] != after[n]).any()} == {"2.weight", "2.bias"}
    before, after = answer(class_mode=class_mode, strength=0.0)
    assert named.digest(before) == named.digest(after)


def test_the_answer_is_the_mean_of_both_heads() -> None:
    before, whole = answer(strength=1.0)
    _, half = answer(strength=0.5)
    for name in ("2.weight", "2.bias"):
        np.testing.assert_allclose(half[name], (before[name] + whole[name]) / 2, atol=1e-6)


def test_an_auxiliary_head_that_is_the_head_changes_nothing() -> None:
    before, after = answer(fresh=0.0, epochs=0)
    for name, array in before.items():
        np.testing.assert_allclose(after[name], array, atol=1e-7)


def test_for_classes_it_begins_at_zero() -> None:
    before, after = answer(class_mode=True, epochs=0)
    assert named.digest(before) == named.digest(after)


def test_for_classes_the_class_is_said_less_and_the_others_are_as_before() -> None:
    model, given = network(1), local()
    three = given.forget.take(given.forget.labels == 1)
    given = Local(given.retain, three, given.held_out, network)
    was = model(given.retain.features).softmax(1).detach()
    settings = {**SETTINGS, "class_mode": True, "strength": 1.0, "epochs": 20}
    auxiliary_head(model, given, settings, np.random.default_rng(0))
    now = model(given.retain.features).softmax(1).detach()
    assert (now[:, 1] < was[:, 1]).all()


def test_a_network_without_a_dense_last_layer_is_refused_in_words() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.LogSoftmax(1))
    with pytest.raises(FederationError, match="last layer is dense"):
        auxiliary_head(model, local(), SETTINGS, np.random.default_rng(0))


def test_the_claim_is_suppressed_and_the_holder_is_asked_once(tmp_path) -> None:
    toy = ToyFederation(tmp_path)
    arrays = toy.learn(rounds=2)
    after = toy.unlearn(AuxiliaryHead(), request(Scope.CLIENT), arrays)
    assert AuxiliaryHead.guarantee is Guarantee.SUPPRESSED
    assert toy.asked[-1] == (1, "auxiliary_head")
    assert named.digest(after) != named.digest(arrays)
    assert after["running_mean"].tolist() == arrays["running_mean"].tolist()

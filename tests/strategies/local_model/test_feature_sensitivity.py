"""FeatureSensitivity and the scope feature: what a model reads, and what clients train on."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn

from clients.local import Local
from clients.steps import Shard
from clients.steps.desensitise import desensitise, drawn, sensitivity
from strategies.global_model.retrain import Retrain
from strategies.local_model.feature_sensitivity import FeatureSensitivity
from tests.support.toy import ToyFederation, ToyModel, shard
from unlearning import arrays as named
from unlearning.request import Guarantee, Request, Scope

NOISE = {"draws": 20, "smallest": 0.05, "largest": 1.0}
SETTINGS = {
    **NOISE, "features": "[1]", "epochs": 3, "batch_size": 8, "learning_rate": 0.05,
    "momentum": 0.0, "weight_decay": 0.0,
}  # fmt: skip


def feature(*features: int, clients: tuple[int, ...] = ()) -> Request:
    return Request(Scope.FEATURE, features=features, clients=clients)


def linear() -> nn.Linear:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return nn.Linear(3, 4).double()


def test_of_a_linear_model_it_is_the_length_of_the_column() -> None:
    model, x = linear(), torch.randn(5, 3, dtype=torch.float64)
    noise = drawn(x, [1], NOISE, np.random.default_rng(0))
    assert not noise[:, :, [0, 2]].any()
    found = sensitivity(model, x, noise)
    torch.testing.assert_close(found, model.weight[:, 1].norm())
    torch.testing.assert_close(found, sensitivity(model, x, 7 * noise))  # whatever its size


def test_with_one_branch_held_opposite_noise_cancels() -> None:
    x = torch.randn(6, 3, dtype=torch.float64)
    one = drawn(x, [1], {**NOISE, "draws": 1}, np.random.default_rng(0))
    both = torch.cat([one, -one])
    sizes = []
    for stop in (True, False):
        model = linear()
        sensitivity(model, x, both, stop_gradient=stop).backward()
        sizes.append(float(model.weight.grad.abs().max()))
    assert sizes[0] < 1e-12 < 0.1 < sizes[1]


def test_the_step_changes_no_other_column_and_ends_at_a_fresh_models() -> None:
    data = shard(0, 30)
    empty = data.take(torch.arange(0))
    model = ToyModel(0)
    with torch.no_grad():
        model.layer.weight[:, 1] *= 8
    before = model.layer.weight.detach().clone()
    local = Local(empty, data, empty, fresh_model=ToyModel)
    outcome = desensitise(model, local, {**SETTINGS, "epochs": 500}, np.random.default_rng(0))
    torch.testing.assert_close(model.layer.weight[:, [0, 2]].detach(), before[:, [0, 2]])
    said = outcome.metrics
    assert said["sensitivity-after"] <= said["sensitivity-fresh"] < said["sensitivity-before"]
    assert said["sensitivity-after"] > said["sensitivity-fresh"] - 0.06  # one step's length


def test_what_a_model_does_not_read_is_not_moved() -> None:
    data = shard(0, 30)
    empty = data.take(torch.arange(0))
    model = ToyModel(0)
    with torch.no_grad():
        model.layer.weight[:, 1] = 0
    before = model.layer.weight.detach().clone()
    local = Local(empty, data, empty, fresh_model=ToyModel)
    desensitise(model, local, SETTINGS, np.random.default_rng(0))
    assert torch.equal(model.layer.weight, before)


def test_retraining_never_moves_a_column_that_all_have_withdrawn(tmp_path) -> None:
    toy = ToyFederation(tmp_path)
    toy.federation.recovery_rounds = 0
    arrays = toy.learn(rounds=3)
    after = toy.unlearn(Retrain(), feature(1), arrays)
    start = toy.initial["layer.weight"]
    assert after["layer.weight"][:, 1].tolist() == start[:, 1].tolist()
    assert (after["layer.weight"][:, 0] != start[:, 0]).all()


def test_retraining_is_learning_from_data_without_the_values(tmp_path) -> None:
    """Bit for bit, with one of four owners."""
    toy = ToyFederation(tmp_path / "a")
    arrays = toy.learn(rounds=3)
    after = toy.unlearn(Retrain(), feature(0, 2, clients=(1,)), arrays)
    other = ToyFederation(tmp_path / "b")
    other.shards[1].features[:, [0, 2]] = 0
    assert named.digest(after) == named.digest(other.learn(rounds=3))


def test_the_owners_alone_are_asked_and_go_on_without_the_values(tmp_path) -> None:
    toy = ToyFederation(tmp_path)
    arrays = toy.learn(rounds=3)
    toy.asked.clear()
    asked = feature(1, clients=(1, 2))
    toy.federation.ledger.receive(asked)
    strategy = FeatureSensitivity()
    toy.run(strategy, arrays, rounds=0)
    assert FeatureSensitivity.guarantee is Guarantee.SUPPRESSED
    assert [c for c, step in toy.asked if step == "desensitise"] == [1, 2]
    assert {c for c, step in toy.asked if step == "train"} == {0, 1, 2, 3}
    assert strategy.sensitivity["after"] <= strategy.sensitivity["before"]
    said = toy.federation.ledger.events(asked.id)[-1].facts["deletion"]
    assert said["acknowledged"] == [1, 2]
    assert said["examples"] == toy.sizes[1] + toy.sizes[2]
    buried = json.loads(next(tmp_path.rglob("*1*/tombstones.json")).read_text())
    assert buried["features"] == [1]


def test_where_nothing_reacts_there_is_nothing_to_do(tmp_path) -> None:
    """A model whose column is smaller than a fresh one's: the request is answered by it."""
    toy = ToyFederation(tmp_path)
    arrays = toy.learn(1)
    arrays["layer.weight"] = arrays["layer.weight"].copy()
    arrays["layer.weight"][:, 1] = 0
    strategy = FeatureSensitivity()
    after = toy.unlearn(strategy, feature(1, clients=(2,)), arrays)
    assert named.digest(after) == named.digest(arrays)
    assert "reacts no more to what is forgotten (0)" in strategy.settled
    after = toy.unlearn(strategy, feature(0, clients=(2,)), toy.learn(4))
    assert not strategy.settled


def test_images_are_counted_over_all_their_axes() -> None:
    from clients.participant import _blanked

    images = Shard(torch.ones(2, 1, 3, 3), torch.zeros(2, dtype=torch.int64))
    found = _blanked(images, frozenset({0, 4})).features
    assert found[:, 0].tolist() == [[[0, 1, 1], [1, 0, 1], [1, 1, 1]]] * 2
    assert images.features.all()


@pytest.mark.parametrize("fields", [{"features": ()}, {"features": (1,), "classes": (1,)}])
def test_a_request_names_features_and_at_most_clients_beside_them(fields) -> None:
    from unlearning.errors import RequestError

    with pytest.raises(RequestError, match="features"):
        Request(Scope.FEATURE, **fields)


def test_a_request_comes_back_from_the_ledger() -> None:
    asked = feature(4, 2, 4, clients=(3,))
    assert asked.features == (2, 4)
    assert Request.from_json(asked.to_json()) == asked
    assert asked.describe() == "feature 2, 4 at client 3"
    assert asked.owners(range(5)) == (3,)
    assert feature(1).owners(range(2)) == (0, 1)

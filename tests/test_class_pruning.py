"""Class-wise pruning: the scores by hand, oracle 25, masks that survive, whole federations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import nn
from toy import shard

from clients.steps import Local, Shard
from clients.steps.activations import activations
from clients.steps.train import train
from experiments import launch
from experiments.config import from_mapping
from experiments.models import build, to_arrays
from experiments.results import read_results
from strategies.structure.class_pruning import ClassPruning
from unlearning.protocol import Reply
from unlearning.pruning import class_scores, masked, prune_highest, tf_idf
from unlearning.request import Request, Scope

TRAIN = {"local_epochs": 2, "batch_size": 4, "learning_rate": 0.3, "momentum": 0.9}


def local(retain: Shard, forget: Shard | None = None, **rest: object) -> Local:
    return Local(
        retain, forget or retain.take(torch.zeros(0, dtype=torch.long)), retain, nn.Module, **rest
    )  # type: ignore[arg-type]


def test_scores_by_hand() -> None:
    """A = [[3, 1], [1, 1]]: TF = [[.75, .25], [.5, .5]].

    Class means are 2 and 1: channel 0 is used by both classes (3 >= 2, 1 >= 1), channel 1 by class
    1 alone; C = 2, so IDF = [log(3/3), log(3/2)].
    """
    expected = np.log(1.5) * np.array([[0, 0.25], [0, 0.5]])
    np.testing.assert_allclose(tf_idf(np.array([[3, 1], [1, 1]])), expected, rtol=1e-15)


def test_counts_weigh_clients_and_empty_classes_are_no_documents() -> None:
    """Sums, not means of means, are added: 6 / 2 = 3 and 2 / 2 = 1 as above; class 1 is empty."""
    sums = np.array([[6.0, 2.0], [0.0, 0.0], [1.0, 1.0]])
    found = class_scores(sums, np.array([2, 0, 1]), [2])
    np.testing.assert_allclose(found, np.log(1.5) * np.array([0, 0.5]), rtol=1e-15)
    assert not class_scores(sums, np.array([2, 0, 1]), [1]).any()


def test_channel_of_one_class_ranks_first_and_uniform_channel_last() -> None:
    """Oracle 25."""
    generator = np.random.default_rng(0)
    a = generator.uniform(0.5, 1.0, size=(10, 6))
    a[:, 0] = 0
    a[4, 0] = 5.0  # fires for class 4 alone
    a[:, 1] = 2.0  # fires for every class alike
    scores = tf_idf(a)[4]
    assert scores.argmax() == 0
    assert scores[1] == scores.min() == 0
    assert prune_highest(scores, 0.2).tolist() == [True] + [False] * 5


@given(hnp.arrays(np.float64, (5, 7), elements=st.floats(0, 1e6)), st.floats(0, 1))
def test_any_activations_give_finite_scores_and_a_quota(a: np.ndarray, share: float) -> None:
    scores = tf_idf(a)
    assert np.isfinite(scores).all()
    assert (scores >= 0).all()
    pruned = prune_highest(scores[2], share)
    assert pruned.sum() <= (min(max(1, round(share * 7)), 6) if share else 0)
    if pruned.any():
        assert scores[2][pruned].min() >= scores[2][~pruned].max()


def test_masked_zeroes_whole_filters() -> None:
    kernel = np.ones((2, 3, 5, 5), np.float32)
    out = masked(kernel, np.array([True, False]))
    assert out[0].all()
    assert not out[1].any()
    assert out.dtype == np.float32


def test_activations_are_those_of_the_layers() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 3))
    data, gone = shard(0, 20), shard(1, 9)
    found = activations(model, local(data, gone), {"hidden_units": True}, np.random.default_rng(0))
    assert found.arrays is not None
    assert found.arrays.keys() == {"sums/0", "counts"}
    x = torch.cat([data.features, gone.features])
    y = torch.cat([data.labels, gone.labels])
    for label in range(3):
        expected = model[0](x[y == label]).relu().sum(0).detach().double()
        np.testing.assert_allclose(found.arrays["sums/0"][label], expected, rtol=1e-5)
        assert found.arrays["counts"][label] == int((y == label).sum())
    assert not activations(model, local(data), {}, np.random.default_rng(0)).arrays.keys() & {
        "sums/0"
    }


def test_resnet_layers_come_with_their_normalisation() -> None:
    model = build("resnet18", (1, 8, 8), 3)
    x = torch.rand(4, 1, 8, 8)
    data = Shard(x, torch.tensor([0, 1, 2, 0]))
    found = activations(model, local(data), {"hidden_units": True}, np.random.default_rng(0))
    assert found.arrays is not None
    labels = {key.removeprefix("sums/") for key in found.arrays if key != "counts"}
    assert {"conv1+bn1", "layer1.0.conv1+layer1.0.bn1"} <= labels
    assert "layer2.0.downsample.0+layer2.0.downsample.1" in labels
    assert not any("fc" in label for label in labels)
    strategy = ClassPruning(share=0.25)
    strategy.request = Request(Scope.CLASS, classes=(0,))
    before = to_arrays(model)
    reply = Reply(0, 4, dict(found.arrays))
    after = strategy.combine(1, before, [reply])
    gone = ~strategy._masks["layer1.0.conv1.weight"]
    assert 0 < gone.sum() <= 16
    for name in ("layer1.0.conv1.weight", "layer1.0.bn1.weight", "layer1.0.bn1.bias"):
        assert not after[name][gone].any()
        np.testing.assert_array_equal(after[name][~gone], before[name][~gone])
    assert {n: a.shape for n, a in after.items()} == {n: a.shape for n, a in before.items()}


def test_masks_hold_through_training_with_momentum() -> None:
    """Oracle 25: after the first step the momentum alone would move a masked weight."""
    with torch.random.fork_rng():
        torch.manual_seed(0)  # of some initial values unit 0 never fires, and would not move
        model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 3))
    keep = np.array([True, False, True, False])
    extras = {"mask/0.weight": keep, "mask/0.bias": keep}
    start = model[0].weight.detach().clone()
    train(model, local(shard(0, 20), extras=extras), TRAIN, np.random.default_rng(0))
    assert not model[0].weight[~torch.from_numpy(keep)].any()
    assert not model[0].bias[~torch.from_numpy(keep)].any()
    assert not torch.equal(model[0].weight[0], start[0])


def test_answers_that_do_not_fit_are_left_out() -> None:
    model = build("mlp", (3,), 3, {"hidden": 4})
    arrays = to_arrays(model)
    good = {"sums/1": np.eye(3, 4) + 0.1, "counts": np.ones(3)}
    strategy = ClassPruning(share=0.25)
    strategy.request = Request(Scope.CLASS, classes=(1,))
    alone = strategy.combine(1, arrays, [Reply(0, 3, good)])
    assert strategy.pruned == {"1": 1}
    assert not alone["1.weight"][1].any()
    for bad in (
        {**good, "sums/1": np.ones((3, 5))},
        {**good, "counts": np.ones(4)},
        {**good, "sums/1": -good["sums/1"]},
        {**good, "sums/9": good["sums/1"]},
    ):
        strategy.join(strategy.federation)
        after = strategy.combine(1, arrays, [Reply(0, 3, good), Reply(1, 3, bad)])
        np.testing.assert_array_equal(after["1.weight"], alone["1.weight"])


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_whole_federation_forgets_a_class(tmp_path: Path, name: str) -> None:
    config = from_mapping(
        {
            "rounds": 3,
            "recovery_rounds": 2,
            "strategies": ["class-pruning"],
            "options": {"class-pruning": {"share": 0.2}},
            "data": {"name": "digits", "clients": 3, "limit": 300},
            "model": {"name": name, "hidden": 32},
            "train": {"batch_size": 16, "learning_rate": 0.1, "momentum": 0.5},
            "requests": [{"scope": "class", "classes": [4]}],
            "engine": {"grid": "local"},
        }
    )
    folder = launch.compare(config, tmp_path / "run", observer=lambda tick: None)
    _, rows = read_results(folder)
    pruned = next(row for row in rows if row.strategy == "class-pruning")
    fine = next(row for row in rows if row.strategy == "fine-tune")
    assert pruned.metrics["forget_accuracy"] < 0.3
    assert pruned.metrics["forget_accuracy"] <= fine.metrics["forget_accuracy"]


def test_bounds_are_checked() -> None:
    with pytest.raises(Exception, match="'share'"):
        ClassPruning(share=1.5)

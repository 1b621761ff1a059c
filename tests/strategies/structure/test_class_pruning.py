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

from clients.steps import Local, Shard
from clients.steps.activations import activations
from clients.steps.train import train
from experiments.config.loading import from_mapping
from experiments.federation import launch
from experiments.models.networks import build, load, to_arrays
from experiments.runs.results import read_results
from strategies.base import UnlearningStrategy
from strategies.structure.class_pruning import ClassPruning, masks_of
from tests.support import toy as toy_module
from tests.support.toy import CLASSES, FEATURES, ToyFederation, request, shard
from unlearning.arrays import Arrays
from unlearning.models.pruning import class_scores, masked, prune_highest, tf_idf
from unlearning.protocol import Reply
from unlearning.records.history import History
from unlearning.records.ledger import Ledger
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


@pytest.mark.parametrize(
    ("name", "params", "expected"),
    [
        ("resnet18", {"width": 8, "groups": 4}, {"conv1+bn1", "layer1.0.conv1+layer1.0.bn1"}),
        ("resnet18", {"width": 8, "groups": 4}, {"layer2.0.downsample.0+layer2.0.downsample.1"}),
        ("vgg11", {"width": 8, "groups": 4}, {"features.0+features.1", "features.4+features.5"}),
        ("vgg11", {"width": 8, "groups": 0}, {"features.0", "features.3"}),
    ],
)
def test_layers_of_deep_networks_come_with_their_normalisation(
    name: str, params: dict[str, int], expected: set[str]
) -> None:
    model = build(name, (1, 8, 8), 3, params)
    labels, before, after, masks = pruned(model)
    assert expected <= labels
    assert not any("fc" in label or "classifier" in label for label in labels)
    for label in expected:
        layer, _, norm = label.partition("+")
        gone = ~masks[f"{layer}.weight"]
        assert 0 < gone.sum() <= max(1, round(0.25 * len(gone)))
        silent = [f"{norm}.{kind}" for kind in ("weight", "bias") if norm]
        for array in (f"{layer}.weight", *silent):
            assert not after[array][gone].any()
            np.testing.assert_array_equal(after[array][~gone], before[array][~gone])
    assert {n: a.shape for n, a in after.items()} == {n: a.shape for n, a in before.items()}


@pytest.mark.parametrize("name", ["resnet18", "vgg11"])
def test_pruned_channels_of_deep_networks_stay_dead_through_training(name: str) -> None:
    """In a residual block the gradient of a normalisation behind which no ReLU stands is not 0."""
    model = build(name, (1, 8, 8), 3, {"width": 8, "groups": 4})
    _, _, after, masks = pruned(model)
    load(model, after)
    data = Shard(torch.rand(8, 1, 8, 8), torch.arange(8) % 3)
    extras = {f"mask/{array}": keep for array, keep in masks.items()}
    train(model, local(data, extras=extras), TRAIN, np.random.default_rng(0))
    trained = to_arrays(model)
    for array, keep in masks.items():
        assert not trained[array][~keep].any(), array
    moved = [array for array in masks if (trained[array] != after[array]).any()]
    assert len(moved) > len(masks) // 2


def pruned(model: nn.Module) -> tuple[set[str], Arrays, Arrays, Arrays]:
    """Return the layers found, the model before and after pruning a quarter, and the masks."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        data = Shard(torch.rand(6, 1, 8, 8), torch.tensor([0, 1, 2, 0, 1, 2]))
    found = activations(model, local(data), {"hidden_units": True}, np.random.default_rng(0))
    assert found.arrays is not None
    labels = {key.removeprefix("sums/") for key in found.arrays if key != "counts"}
    strategy = ClassPruning(share=0.25)
    strategy.request = Request(Scope.CLASS, classes=(0,))
    before = to_arrays(model)
    after = strategy.combine(1, before, [Reply(0, 4, dict(found.arrays))])
    assert strategy.rewritten is not None
    return labels, before, after, masks_of(strategy.rewritten)


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


class Hidden(nn.Module):
    """The toy's task with a hidden layer, so that there is something to prune."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            self.hidden, self.out = nn.Linear(FEATURES, 16), nn.Linear(16, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.out(self.hidden(x).relu())
        return logits


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ToyFederation:
    """Return the toy federation learning a net with a hidden layer, recorded on disk."""
    monkeypatch.setattr(toy_module, "ToyModel", Hidden)
    return ToyFederation(tmp_path / "home", history=History(tmp_path / "history"))


def dead(arrays: Arrays) -> list[int]:
    return np.flatnonzero(~arrays["hidden.weight"].any(axis=1)).tolist()


def test_pruned_channels_are_dead_after_a_restart_of_the_server(
    tmp_path: Path, toy: ToyFederation
) -> None:
    toy.federation.recovery_rounds = 1
    arrays = toy.run(UnlearningStrategy(), rounds=3)
    toy.federation.ledger.receive(request("class"))
    arrays = toy.run(ClassPruning(share=0.2), arrays, rounds=0)
    gone = dead(arrays)
    assert len(gone) == 3
    toy.federation.history.close()

    toy.federation.history = History.open(tmp_path / "history")
    assert toy.federation.history.verify() == []
    anew = ClassPruning(share=0.2)
    after = toy.run(anew, arrays, rounds=4)
    assert all(
        set(instruction.extras) == {"mask/hidden.weight", "mask/hidden.bias"}
        for instruction in anew.teach(9).values()
    )
    assert dead(after) == gone
    assert not after["hidden.bias"][gone].any()
    alive = np.setdiff1d(np.arange(16), gone)
    assert (after["hidden.weight"][alive] != arrays["hidden.weight"][alive]).any()

    toy.federation.ledger.receive(request("class", client=0))
    both = toy.run(ClassPruning(share=0.2), after, rounds=0)
    assert set(gone) < set(dead(both))


def test_a_request_that_failed_leaves_no_mask(toy: ToyFederation) -> None:
    arrays = toy.run(UnlearningStrategy(), rounds=2)
    toy.federation.judge = lambda *_: 1 / 0
    toy.federation.ledger.receive(request("class"))
    toy.run(ClassPruning(share=0.2), arrays, rounds=0)
    assert toy.federation.ledger.events()[-1].event == "failed"
    toy.federation.judge, toy.federation.ledger = None, Ledger()  # it would be tried again
    assert masks_of(toy.federation.history) == {}
    assert toy.federation.history.rounds == (1, 2)
    assert dead(toy.run(ClassPruning(share=0.2), arrays, rounds=1)) == []


def test_clients_that_ignore_the_masks_revive_nothing(toy: ToyFederation) -> None:
    arrays = toy.run(UnlearningStrategy(), rounds=2)
    toy.federation.ledger.receive(request("class"))
    pruned_arrays = toy.run(ClassPruning(share=0.2), arrays, rounds=0)
    toy.faults[2] = lambda answer: [array + 1 for array in answer]
    after = toy.run(ClassPruning(share=0.2), pruned_arrays, rounds=1)
    assert set(dead(pruned_arrays)) <= set(dead(after))


def test_bounds_are_checked() -> None:
    with pytest.raises(Exception, match="'share'"):
        ClassPruning(share=1.5)


def test_a_model_without_layers_to_prune_is_not_served(tmp_path: Path) -> None:
    """It was left as it was, and the request counted as fulfilled."""
    toy = ToyFederation(tmp_path)
    arrays = toy.run(UnlearningStrategy(), rounds=1)
    toy.federation.ledger.receive(request("class"))
    toy.run(ClassPruning(), arrays, rounds=0)
    last = toy.federation.ledger.events()[-1]
    assert last.event == "failed"
    assert "no layer to prune" in str(last.facts["reason"])

"""Transformation: what clients propose and agree on, and the labels that follow."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from clients.local import Local
from clients.steps import Shard
from clients.steps.confusions import confusions
from clients.steps.transform import transform
from strategies.local_model.transformation import Transformation, agreed, nearest_row, proposal
from tests.support.toy import TRAIN, ToyFederation, request
from unlearning import arrays as named
from unlearning.errors import ConfigError
from unlearning.request import Request, Scope


def local() -> Local:
    """Four examples; the model is the identity, so that features are logits."""
    x = torch.tensor([[3.0, 2.0, 0.0], [3.0, 0.0, 1.0], [2.0, 1.9, 0.0], [0.0, 9.0, 1.0]])
    forget = Shard(x, torch.zeros(4, dtype=torch.int64))
    empty = forget.take(torch.arange(0))
    return Local(empty, forget, empty, fresh_model=lambda seed: nn.Identity())


def test_second_choices_of_what_is_right_are_summed() -> None:
    found = confusions(nn.Identity(), local(), {}, np.random.default_rng(0)).arrays or {}
    p = local().forget.features.softmax(1).numpy()
    assert found["right/0"] == 3  # the last one is taken for class 1
    np.testing.assert_allclose(found["seconds/0"], [0, p[0, 1] + p[2, 1], p[1, 2]], rtol=1e-6)


def test_no_forgotten_class_is_proposed_or_agreed_on() -> None:
    assert proposal(np.array([9.0, 1.0, 3.0, 8.0]), {0, 3}) == (2,)
    assert agreed([(1,), (1, 2), (2, 3, 4), ()]) == (1, 2)
    assert agreed([(4,), (3,)]) == (3,)
    assert agreed([()]) == ()
    model = {"w": np.array([[0.0, 0.0], [5.0, 0.0], [0.1, 0.0]]), "b": np.zeros(3)}
    assert nearest_row(model, 0, {0}) == 2
    assert nearest_row(model, 0, {0, 2}) == 1
    assert nearest_row(model, 0, {0, 1, 2}) is None


def test_labels_are_the_likeliest_of_the_set_by_the_model_before() -> None:
    """By what was kept the first example is most like 1, the second like 2."""
    seen = []

    class Seeing(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x)

        def loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            seen.append(labels.tolist())
            return nn.functional.cross_entropy(logits, labels)

    chances = confusions(nn.Identity(), local(), {}, np.random.default_rng(0)).kept["confusions"]
    world = replace(local(), extras={"set/0": np.array([1, 2])}, recall=lambda name: chances)
    outcome = transform(Seeing(3, 3), world, {**TRAIN, "local_epochs": 1}, np.random.default_rng(0))
    assert outcome.num_examples == 4
    order = np.random.default_rng(0).permutation(4)
    assert seen[0] == np.array([1, 2, 1, 1])[order].tolist()


def test_a_class_that_nobody_holds_changes_nothing(tmp_path) -> None:
    toy = ToyFederation(tmp_path)
    arrays = toy.learn(rounds=2)
    for client, data in toy.shards.items():
        toy.shards[client] = data.take(data.labels != 2)
    after = toy.unlearn(Transformation(), Request(Scope.CLASS, classes=(2,)), arrays)
    assert named.digest(after) == named.digest(arrays)


def test_the_class_is_said_no_more_and_the_set_does_not_hold_it(tmp_path) -> None:
    toy = ToyFederation(tmp_path)
    arrays = toy.learn(rounds=6)
    strategy = Transformation(least=2)
    asked = request(Scope.CLASS)
    after = toy.unlearn(strategy, asked, arrays)
    (label,) = asked.classes
    assert strategy.sets.keys() == {label}
    assert label not in strategy.sets[label]
    x = np.concatenate([d.features.numpy() for d in toy.shards.values()])

    def said(model: named.Arrays) -> int:
        logits = x @ model["layer.weight"].T + model["layer.bias"]
        return int((logits.argmax(1) == label).sum())

    assert said(after) < said(arrays) / 2


@pytest.mark.parametrize("options", [{"least": 0}, {"transform_rounds": 0}])
def test_senseless_options_are_refused(options) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        Transformation(**options)

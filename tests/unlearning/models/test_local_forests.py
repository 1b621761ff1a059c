"""A union of local forests: forgetting concerns the owner's trees alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from strategies.global_model.retrain import Retrain
from strategies.structure.local_forest_removal import LocalForestRemoval
from tests.support.structure import learned_and_asked, same, toy_with
from tests.support.toy import request
from unlearning.errors import ConfigError
from unlearning.models.local_forests import LocalForests, grow
from unlearning.models.trees import LEAF, Plan
from unlearning.protocol import Reply
from unlearning.request import Request, Scope

PLAN = Plan(seed=3, inputs=3, depth=4, features=2, thresholds=3, bins=8)


def forests() -> LocalForests:
    return LocalForests(PLAN, 3, 2)


REQUESTS = (
    request("sample"),
    Request(Scope.SAMPLE, samples={0: tuple(range(8)), 3: (0, 1, 2)}),
    request("client", 2),
    request("class"),
)


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (2, 0, 3, 1)])
def test_requests_in_any_order_equal_retraining(tmp_path: Path, order: tuple[int, ...]) -> None:
    toy = toy_with(tmp_path, forests())
    asked = [Request.from_json(REQUESTS[i].to_json()) for i in order]
    own, again = learned_and_asked(toy, LocalForestRemoval(), asked, 1, tmp_path)
    assert same(own, again)
    assert own["clients"].tolist() == [1, 3]


def test_only_the_owner_works(tmp_path: Path) -> None:
    toy = toy_with(tmp_path, forests())
    arrays = toy.run(Retrain(), rounds=1)
    toy.asked.clear()
    after = toy.unlearn(LocalForestRemoval(), request("sample"), arrays)
    assert toy.asked == [(1, "local_forest")]
    others = arrays["tree"] // 2 != 1
    mine = after["tree"] // 2 != 1
    assert np.array_equal(arrays["counts"][others], after["counts"][mine])
    toy.asked.clear()
    toy.unlearn(LocalForestRemoval(), request("client", 3), after)
    assert not toy.asked


def test_golden_vote() -> None:
    """Client 0 with 1 example of class 0, client 1 with 3 of class 1: shares 1/4 and 3/4."""
    model = LocalForests(Plan(seed=0, inputs=1), 2, 1)
    replies = []
    for client, labels in enumerate(([0], [1, 1, 1])):
        instruction = model.teach(model.initial(), [0, 1])[client]
        nodes = grow(instruction.settings, np.zeros((len(labels), 1)), np.array(labels))
        assert nodes["feature"].tolist() == [LEAF]
        count = np.array([len(labels)])
        replies.append(Reply(client, len(labels), {**nodes, "examples": count}))
    arrays = model.learn(model.initial(), replies)
    assert model.predict(arrays, np.zeros((1, 1))).tolist() == [[0.25, 0.75]]
    assert model.predict(model.initial(), np.zeros((1, 1))).tolist() == [[0.5, 0.5]]


def test_trees_of_another_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    model = forests()
    settings = model.teach(model.initial(), [0, 1])[1].settings
    nodes = grow(settings, np.random.default_rng(0).random((5, 3)), np.arange(5) % 3)
    answer = Reply(0, 5, {**nodes, "examples": np.array([5])})
    assert same(model.learn(model.initial(), [answer]), model.initial())
    assert "client 0 sent no trees of its own" in caplog.text


def test_further_rounds_change_nothing(tmp_path: Path) -> None:
    toy = toy_with(tmp_path, forests())
    arrays = toy.run(Retrain(), rounds=1)
    assert same(arrays, toy.run(Retrain(), arrays, rounds=2))


def test_no_trees_at_all() -> None:
    with pytest.raises(ConfigError, match=r"model\.trees is 0"):
        LocalForests(PLAN, 3, 0)

"""The forest: deletion equals growing again, node for node; what it is made of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clients.steps import Shard
from strategies.global_model.retrain import Retrain
from strategies.structure.forest_deletion import ForestDeletion
from tests.support.structure import (
    in_several_orders,
    learned_and_asked,
    mixed,
    same,
    toy_with,
)
from tests.support.toy import request
from unlearning import arrays as named
from unlearning.errors import ConfigError, FederationError
from unlearning.models.forest import Forest
from unlearning.models.forest_counts import counts_of_forgotten, counts_of_open
from unlearning.models.forest_removal import pruned
from unlearning.models.trees import LEAF, OPEN, Plan, in_order, level
from unlearning.protocol import Reply
from unlearning.request import Request, Scope

DEPTH = 4
PLAN = Plan(seed=3, inputs=3, depth=DEPTH, features=2, thresholds=3, bins=8)


def forest(trees: int = 4, **changes: object) -> Forest:
    return Forest(Plan(**{**vars(PLAN), **changes}), 3, trees)  # type: ignore[arg-type]


def replies(model: Forest, nodes: named.Arrays, x: np.ndarray, y: np.ndarray, parts: int) -> list:
    out = []
    for client, rows in enumerate(np.array_split(np.arange(len(y)), parts)):
        found = counts_of_open(model.settings(), nodes, x[rows], y[rows])
        out.append(Reply(client, len(rows), {"total": found.total, "left": found.left}))
    return out


def grown(model: Forest, x: np.ndarray, y: np.ndarray, parts: int = 1) -> named.Arrays:
    arrays = model.initial()
    for _ in range(model.plan.depth):
        arrays = model.learn(arrays, replies(model, arrays, x, y, parts))
    return arrays


def points(size: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    return generator.random((size, 3)), generator.integers(0, 3, size)


def test_golden_stump() -> None:
    """One feature, bins 0..3, all three thresholds, four examples.

    x = .1 .3 .6 .9 lie in bins 0 1 2 3; y = 0 0 1 0. Left/right by threshold 0: {0}/{0,1,0}
    -> 1/1 + (4+1)/3 = 2.67; threshold 1: {0,0}/{1,0} -> 4/2 + 2/2 = 3; threshold 2: {0,0,1}/{0}
    -> 5/3 + 1 = 2.67. So threshold 1; the right child is impure but lies deepest.
    """
    plan = Plan(seed=0, inputs=1, depth=1, thresholds=3, bins=4)
    model = Forest(plan, 2, 1)
    arrays = grown(model, np.array([[0.1], [0.3], [0.6], [0.9]]), np.array([0, 0, 1, 0]))
    assert arrays["path"].tolist() == [1, 2, 3]
    assert arrays["feature"].tolist() == [0, LEAF, LEAF]
    assert arrays["threshold"][0] == 1
    assert arrays["counts"].tolist() == [[3, 1], [2, 0], [1, 1]]
    assert arrays["left"].tolist() == [[[1, 0], [2, 0], [2, 1]]]
    assert model.predict(arrays, np.array([[0.2], [0.7]])).tolist() == [[1, 0], [0.5, 0.5]]


def test_values_that_went_before_move_nothing(tmp_path: Path) -> None:
    model = forest()
    toy = toy_with(tmp_path / "toy", model)
    requests = [
        Request(Scope.FEATURE, features=(1,), clients=(2,)),
        Request(Scope.FEATURE, features=(1,)),
        request("sample", 2),
    ]
    found = learned_and_asked(toy, ForestDeletion(), requests, DEPTH, tmp_path / "again")
    assert same(*found)


def test_no_matter_how_clients_share_the_data() -> None:
    x, y = points(60)
    alone, shared = (grown(forest(), x, y, parts) for parts in (1, 5))
    assert all(np.array_equal(alone[name], shared[name]) for name in alone if name[0] not in "ce")


def test_nodes_are_in_order_and_counts_add_up() -> None:
    x, y = points(80)
    model = forest()
    arrays = grown(model, x, y)
    assert model.is_complete(arrays)
    assert np.array_equal(in_order(arrays["tree"], arrays["path"]), np.arange(len(arrays["tree"])))
    assert arrays["counts"][arrays["path"] == 1].tolist() == [np.bincount(y).tolist()] * 4
    assert arrays["counts"][arrays["feature"] == LEAF].sum() == 80 * 4
    assert len(arrays["left"]) == (arrays["feature"] >= 0).sum()
    assert level(arrays["path"]).max() == DEPTH


def test_candidates_come_from_the_address_alone() -> None:
    tree, path = np.array([0, 0, 1]), np.array([1, 2, 1])
    plan = Plan(seed=0, inputs=9, features=4, thresholds=3, bins=16)
    feature, threshold = plan.candidates(tree, path)
    assert feature.shape == threshold.shape == (3, plan.width) == (3, 12)
    again = plan.candidates(tree[1:], path[1:])
    assert np.array_equal(feature[1:], again[0])
    assert np.array_equal(threshold[1:], again[1])
    assert not np.array_equal(feature[0], feature[1])
    assert all(len(set(row)) == 4 for row in feature)
    assert threshold.min() >= 0
    assert threshold.max() <= 14
    other = Plan(seed=1, inputs=9, features=4, thresholds=3, bins=16).candidates(tree, path)
    assert not np.array_equal(other[0], feature)
    pairs = {tuple(pair) for pair in zip(feature[0], threshold[0], strict=True)}
    assert len(pairs) == 12


@settings(max_examples=40)
@given(
    st.integers(0, 1000),
    st.integers(8, 60),
    st.lists(st.integers(1, 5), min_size=1, max_size=4),
    st.integers(1, 3),
    st.sampled_from(["", "1", "0-2"]),
)
def test_deletions_in_any_order_equal_growing_again(
    seed: int, size: int, sizes: list[int], min_leaf: int, binary: str
) -> None:
    """Oracle 19."""
    x, y = points(size, seed)
    model = forest(trees=2, seed=seed, min_leaf=min_leaf, binary=binary)
    arrays, left = grown(model, x, y), np.arange(size)
    generator = np.random.default_rng(seed)
    for count in sizes:
        gone = generator.choice(left, min(count, len(left) - 1), replace=False)
        if not len(gone):
            break
        left = np.setdiff1d(left, gone)
        found = counts_of_forgotten(model.settings(), arrays, x[gone], y[gone])
        before = named.digest(arrays)
        opened = pruned(model, arrays, [Reply(0, len(gone), found._asdict())]).merged()
        assert named.digest(arrays) == before
        arrays = opened
        while not model.is_complete(arrays):
            arrays = model.learn(arrays, replies(model, arrays, x[left], y[left], 1))
        assert same(arrays, grown(model, x[left], y[left]))


@pytest.mark.parametrize("asked", in_several_orders())
def test_requests_in_any_order_equal_retraining(tmp_path: Path, asked: list[Request]) -> None:
    toy = toy_with(tmp_path, forest())
    own, again = learned_and_asked(toy, ForestDeletion(), asked, DEPTH, tmp_path)
    assert same(own, again)
    assert own["clients"].tolist() == [0, 1, 3]
    assert own["counts"][:, 2].sum() == 0


@pytest.mark.parametrize("scope", ["client", "sample", "class"])
def test_only_owners_are_asked_what_leaves(tmp_path: Path, scope: str) -> None:
    toy = toy_with(tmp_path, forest(trees=1))
    arrays = toy.run(Retrain(), rounds=DEPTH)
    toy.asked.clear()
    toy.federation.ledger.receive(request(scope))
    toy.federation.recovery_rounds = 0
    toy.run(ForestDeletion(), arrays, rounds=0)
    owners = [0, 1, 2, 3] if scope == "class" else [1]
    assert [client for client, _ in toy.asked[: len(owners)]] == owners
    later = {client for client, _ in toy.asked[len(owners) :]}
    assert later <= ({0, 2, 3} if scope == "client" else {0, 1, 2, 3})


def test_without_the_leavers_help(tmp_path: Path) -> None:
    toy = toy_with(tmp_path, forest())
    strategy = ForestDeletion(leavers_help=False)
    own, again = learned_and_asked(toy, strategy, [request("client")], DEPTH, tmp_path)
    assert same(own, again)
    assert 1 not in {client for client, _ in toy.asked}


def test_an_owner_that_does_not_answer(tmp_path: Path) -> None:
    """The others grow the forest again; nobody is left out of it."""
    toy = toy_with(tmp_path, forest())
    arrays = toy.run(Retrain(), rounds=DEPTH)
    twin = toy.branch(tmp_path / "twin")
    failures = []

    def once(answer: list[np.ndarray]) -> list[np.ndarray]:
        failures.append(1)
        if len(failures) == 1:
            raise RuntimeError("broken on purpose")
        return answer

    asked = Request(Scope.SAMPLE, samples={0: (1,), 1: (1,)})
    wanted = toy.branch(tmp_path / "other").unlearn(Retrain(), asked, arrays)
    twin.faults[1] = once
    assert same(twin.unlearn(ForestDeletion(), asked, arrays), wanted)
    assert len(failures) > 1


def test_a_member_lost_while_the_forest_grows_is_asked_again(tmp_path: Path) -> None:
    whole = toy_with(tmp_path / "whole", forest()).run(Retrain(), rounds=DEPTH)
    toy = toy_with(tmp_path / "lost", forest())
    calls = []

    def second(answer: list[np.ndarray]) -> list[np.ndarray]:
        calls.append(1)
        if len(calls) == 2:
            raise RuntimeError("broken on purpose")
        return answer

    toy.faults[2] = second
    arrays = toy.run(Retrain(), rounds=DEPTH + 1)  # one was for nothing
    assert len(calls) > 2
    assert named.digest(arrays) == named.digest(whole)


def test_a_client_lost_in_the_first_round_is_not_part_of_it(tmp_path: Path) -> None:
    toy = toy_with(tmp_path, forest())

    def fails(answer: list[np.ndarray]) -> list[np.ndarray]:
        raise RuntimeError("broken on purpose")

    toy.faults[2] = fails
    arrays = toy.run(Retrain(), rounds=DEPTH)
    assert arrays["clients"].tolist() == [0, 1, 3]
    toy.faults.clear()
    toy.asked.clear()
    after = toy.unlearn(ForestDeletion(), request("client", 2), arrays)
    assert after is arrays
    assert not toy.asked


def test_a_request_while_the_forest_grows(tmp_path: Path) -> None:
    toy = toy_with(tmp_path, forest())
    own, again = learned_and_asked(toy, ForestDeletion(), mixed()[:2], 2, tmp_path)
    assert same(own, again)
    assert (own["feature"] == OPEN).any()


def test_further_rounds_change_nothing(tmp_path: Path) -> None:
    toy = toy_with(tmp_path, forest())
    arrays = toy.run(Retrain(), rounds=DEPTH)
    assert same(arrays, toy.run(Retrain(), arrays, rounds=2))


def test_everybody_leaves(tmp_path: Path) -> None:
    toy = toy_with(tmp_path, forest())
    arrays = toy.run(Retrain(), rounds=DEPTH)
    everybody = Request(Scope.CLIENT, clients=(0, 1, 2, 3))
    after = toy.unlearn(ForestDeletion(), everybody, arrays)
    assert same(after, toy.initial)
    uniform = forest().predict(after, np.zeros((2, 3)))
    assert uniform == pytest.approx(np.full((2, 3), 1 / 3))


@pytest.mark.parametrize("last", [Request(Scope.CLASS, classes=(2,)), request("client", 3)])
def test_nobody_holds_an_example_any_more(tmp_path: Path, last: Request) -> None:
    toy = toy_with(tmp_path, forest())
    everything = [*(Request(Scope.CLASS, classes=(label,)) for label in (0, 1)), last]
    if last.scope is Scope.CLIENT:
        everything[:2] = [request("client", 0), request("client", 1), request("client", 2)]
    own, again = learned_and_asked(toy, ForestDeletion(), everything, DEPTH, tmp_path)
    assert same(own, again)
    assert same(own, forest().initial())


def test_all_samples_of_a_client(tmp_path: Path) -> None:
    toy = toy_with(tmp_path, forest())
    asked = [
        Request(Scope.SAMPLE, samples={0: (0, 1, 2, 3)}),
        Request(Scope.SAMPLE, samples={0: tuple(range(4, 8))}),
        request("sample"),
    ]
    own, again = learned_and_asked(toy, ForestDeletion(), asked, DEPTH, tmp_path)
    assert same(own, again)
    assert own["clients"].tolist() == [1, 2, 3]


def test_identical_examples_give_one_leaf() -> None:
    model = forest(trees=2)
    arrays = grown(model, np.full((4, 3), 0.5), np.array([0, 1, 2, 2]))
    assert (arrays["feature"] == LEAF).all()
    assert len(arrays["feature"]) == 2
    assert model.predict(arrays, np.zeros((1, 3))).tolist() == [[0.25, 0.25, 0.5]]


def test_counts_that_are_not_there_are_refused() -> None:
    x, y = points(20)
    model = forest()
    arrays = grown(model, x, y)
    found = counts_of_forgotten(
        model.settings(), arrays, np.repeat(x[:1], 9, 0), np.repeat(y[:1], 9)
    )
    with pytest.raises(FederationError, match="more examples were to be removed"):
        pruned(model, arrays, [Reply(0, 9, found._asdict())])


def test_malformed_counts_are_no_answer(caplog: pytest.LogCaptureFixture) -> None:
    model = forest()
    bad = Reply(5, 3, {"total": np.zeros((4, 3), np.int64), "left": np.zeros((4, 2, 3))})
    assert not model.learn(model.initial(), [bad])["clients"].size
    assert "client 5 was quarantined this round: client 5 sent no 'left'" in caplog.text


@pytest.mark.parametrize("name", ["depth", "features", "thresholds", "bins", "min_leaf"])
def test_settings_out_of_range(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"model\.{name}"):
        forest(**{name: -1})


def test_values_outside_the_public_range() -> None:
    assert PLAN.binned(np.array([-5, 0, 0.5, 1, 7])).tolist() == [0, 0, 4, 7, 7]


def test_points_of_the_toy_lie_in_range(tmp_path: Path) -> None:
    toy = toy_with(tmp_path, forest())
    held: Shard = toy.shards[0]
    assert torch.all((held.features > 0) & (held.features < 1))

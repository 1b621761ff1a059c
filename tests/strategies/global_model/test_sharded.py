"""Sharded: the other shards stay, the one that was hit is that of a federation without the data."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from clients.participant import arrays_of
from clients.sharded import Sharded as Network
from clients.sharded import merged
from clients.sharded_tree import ShardedTree
from experiments.models import networks
from strategies.base import UnlearningStrategy
from strategies.global_model.retrain import Retrain
from strategies.global_model.sharded import Sharded
from tests.support.sequences import answers_of_random_sequences, few_or_many, random_requests
from tests.support.toy import CLASSES, FEATURES, ToyFederation, ToyModel, request
from unlearning import arrays as named
from unlearning.models.shards import (
    drawn,
    members,
    part_trained,
    parts_above,
    shard_of,
    shards_in,
)
from unlearning.request import Request, Scope
from unlearning.weighing import part_of

SHARDS = 2


def in_shards(seed: int) -> nn.Module:
    return Network([ToyModel(10 * seed + s) for s in range(SHARDS)])


@pytest.fixture(autouse=True)
def _shards(monkeypatch):
    """Let the toy federation learn a model in shards."""
    monkeypatch.setattr("tests.support.toy.ToyModel", in_shards)


def shard_arrays(arrays: named.Arrays, shard: int) -> named.Arrays:
    return {n: a for n, a in arrays.items() if part_of(n) == str(shard)}


# Who belongs where ----------------------------------------------------------------------------


def test_the_assignment_is_even_and_asks_nobody_else() -> None:
    groups = members(range(12), 4)
    assert {len(group) for group in groups.values()} == {3}
    assert all(k in members([k], 4)[shard_of(k, 4)] for k in range(12))
    assert shards_in(arrays_of(in_shards(0))) == 2


def test_a_leaver_changes_the_draw_of_its_own_shard_alone() -> None:
    groups = members(range(12), 3)
    leaver = groups[1][0]
    for t in range(1, 40):
        before = drawn(0, t, range(12), (), 0.5, 3)
        after = drawn(0, t, range(12), {leaver}, 0.5, 3)
        assert [k for k in before if k not in groups[1]] == [k for k in after if k not in groups[1]]
        assert len(after) == len(before) == 6
        if leaver not in before:
            assert before == after


def test_the_draw_of_the_rest_is_uniform() -> None:
    """Four in one shard, two drawn, one gone: each of three pairs in a third of the rounds."""
    pairs = [drawn(0, t, range(4), {2}, 0.5, 1) for t in range(3000)]
    for pair in ((0, 1), (0, 3), (1, 3)):
        assert pairs.count(pair) / 3000 == pytest.approx(1 / 3, abs=0.04)


# The network ----------------------------------------------------------------------------------


def test_shards_vote_and_those_without_training_are_silent() -> None:
    torch.manual_seed(0)
    net = Network([nn.Linear(3, 3) for _ in range(3)])
    x = torch.randn(5, 3)
    each = [net.of(s).net(x).softmax(1) for s in range(3)]
    torch.testing.assert_close(net(x).exp(), sum(each) / 3)
    net.of(0).trained += 2
    net.of(2).trained += 1
    torch.testing.assert_close(net(x).exp(), (each[0] + each[2]) / 2)
    net.merge = True
    mean = (net.of(0).net.weight + net.of(2).net.weight) / 2
    bias = (net.of(0).net.bias + net.of(2).net.bias) / 2
    torch.testing.assert_close(net(x), (x @ mean.T + bias).log_softmax(1))


def test_a_merge_weighs_shards_by_the_examples_of_those_that_are_there(tmp_path) -> None:
    """The specification: ``w = sum (n_s / n) w_s``, the leaver's examples not among them."""
    toy = ToyFederation(tmp_path, clients=6)
    arrays = toy.learn(rounds=2)
    groups = members(range(6), SHARDS)

    def merged_as_it_should_be(arrays: named.Arrays, gone: int) -> None:
        counts = [sum(toy.sizes[k] for k in groups[s] if k != gone) for s in range(SHARDS)]
        assert [int(arrays[f"shards.{s}.examples"]) for s in range(SHARDS)] == counts
        assert counts[0] != counts[1]
        net = networks.load(Network([ToyModel(s) for s in range(SHARDS)], merge=True), arrays)
        name = next(iter(dict(net.of(0).net.named_parameters())))
        expected = sum(counts[s] * arrays[f"shards.{s}.net.{name}"] for s in range(SHARDS))
        found = merged([net.of(s) for s in range(SHARDS)])[name]
        np.testing.assert_allclose(found.detach(), expected / sum(counts), rtol=1e-6)

    merged_as_it_should_be(arrays, gone=-1)
    after = toy.unlearn(Sharded(), request(Scope.CLIENT), arrays)
    merged_as_it_should_be(after, gone=request(Scope.CLIENT).clients[0])


def tree_of(seed: int, levels: int = 2, rounds: tuple[int, ...] = (2, 2)) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        nets = [
            [nn.Linear(FEATURES, CLASSES) for _ in range(2 ** (levels - 1 - level))]
            for level in range(levels)
        ]
    return ShardedTree(nets, rounds)


def test_a_node_begins_with_the_mean_of_its_trained_children() -> None:
    tree = tree_of(0)
    tree.node(0, 0).trained += 2
    tree.begin(1, 0)
    assert torch.equal(tree.node(1, 0).net.weight, tree.node(0, 0).net.weight)
    tree.node(0, 1).trained += 2
    tree.begin(1, 0)
    mean = (tree.node(0, 0).net.weight + tree.node(0, 1).net.weight) / 2
    torch.testing.assert_close(tree.node(1, 0).net.weight, mean)
    tree.node(0, 0).examples += 3
    tree.node(0, 1).examples += 1
    tree.begin(1, 0)
    mean = 0.75 * tree.node(0, 0).net.weight + 0.25 * tree.node(0, 1).net.weight
    torch.testing.assert_close(tree.node(1, 0).net.weight, mean)
    assert not hasattr(tree.node(1, 0), "examples")
    x = torch.randn(4, FEATURES)
    votes = [tree.node(0, place).net(x).softmax(1) for place in (0, 1)]
    torch.testing.assert_close(tree(x).exp(), sum(votes) / 2)
    assert tree.due(0) == (1, 0)
    tree.node(1, 0).trained += 2
    torch.testing.assert_close(tree(x).exp(), tree.node(1, 0).net(x).softmax(1))
    assert tree.due(1) is None


def test_rounds_are_shared_out_over_the_levels() -> None:
    tree = networks.build("sharded-tree", (6,), 3, {"levels": 3, "rounds": 20})
    rounds = [int(tree.node(level, 0).rounds) for level in range(3)]
    assert rounds == [10, 5, 5]
    assert shards_in(arrays_of(tree)) == 4
    assert parts_above(list(arrays_of(tree)), 3) == ("0-3", "1-1", "2-0")
    assert [part_trained(arrays_of(tree), 3, t) for t in (10, 11, 16, 20, 21)] == [
        "0-3", "1-1", "2-0", "2-0", None,
    ]  # fmt: skip


@pytest.mark.parametrize("at", [1, 4])
def test_of_a_tree_the_nodes_off_the_path_stay_and_it_is_the_training_without(
    tmp_path, monkeypatch, at: int
) -> None:
    """Three levels over eight clients; a request after 4 rounds finds the tree half grown."""
    rounds = (2, 2, 2)
    monkeypatch.setattr("tests.support.toy.ToyModel", lambda seed: tree_of(seed, 3, rounds))
    toy = ToyFederation(tmp_path / "a", clients=8, fraction=0.7)
    arrays = toy.learn(rounds=6 if at == 1 else 4)
    asked = request(Scope.CLIENT, at)
    twin = toy.branch(tmp_path / "b")
    twin.asked.clear()
    after = twin.unlearn(Sharded(), asked, arrays)
    leaf = shard_of(at, 4)
    path = parts_above(list(arrays), leaf)
    for name, array in arrays.items():
        if part_of(name) not in path:
            assert np.array_equal(after[name], array)
    group = members(range(8), 4)[leaf]
    assert {client for client, _ in twin.asked[:2]} <= set(group) - {at}
    count = len(twin.asked)
    again = toy.branch(tmp_path / "c")  # wipes what was noted
    assert named.digest(again.unlearn(Retrain(), asked, arrays)) == named.digest(after)
    assert count < len(again.asked)


def test_a_tree_of_one_level_is_one_model(tmp_path, monkeypatch) -> None:
    found = []
    for make in (
        lambda seed: tree_of(seed, 1, (9,)),
        lambda seed: tree_of(seed, 1, (9,)).node(0, 0).net,
    ):
        monkeypatch.setattr("tests.support.toy.ToyModel", make)
        toy = ToyFederation(tmp_path / str(len(found)))
        found.append(next(a for n, a in toy.learn(rounds=3).items() if n.endswith("weight")))
    assert np.array_equal(*found)


# The strategy ---------------------------------------------------------------------------------


def test_other_shards_stay_and_it_is_the_training_without_the_leaver(tmp_path) -> None:
    toy = ToyFederation(tmp_path / "a", clients=6, fraction=0.7)
    arrays = toy.learn(rounds=4)
    hit = shard_of(1, SHARDS)
    group = set(members(range(6), SHARDS)[hit])
    twin = toy.branch(tmp_path / "b")
    after = twin.unlearn(Sharded(), request(Scope.CLIENT), arrays)
    assert {client for client, _ in twin.asked} <= group - {1}
    other = 1 - hit
    assert named.digest(shard_arrays(after, other)) == named.digest(shard_arrays(arrays, other))
    assert named.digest(shard_arrays(after, hit)) != named.digest(shard_arrays(arrays, hit))

    retrained = toy.branch(tmp_path / "c").unlearn(Retrain(), request(Scope.CLIENT), arrays)
    assert named.digest(after) == named.digest(retrained)


def test_the_history_is_that_of_a_federation_without_the_leaver(tmp_path) -> None:
    toy = ToyFederation(tmp_path / "a", clients=6)
    arrays = toy.learn(rounds=3)
    histories = []
    for place, strategy in enumerate((Sharded(), Retrain())):
        twin = toy.branch(tmp_path / str(place))
        twin.unlearn(strategy, request(Scope.CLIENT), arrays)
        histories.append(strategy.rewritten)
    one, other = histories
    for t in (1, 2, 3):
        assert one.examples(t) == other.examples(t)
        assert named.digest(one.arrays(t)) == named.digest(other.arrays(t))
        for client in one.participants(t):
            found = named.digest(one.update(t, client))
            assert found == named.digest(other.update(t, client))


def test_a_shard_without_members_is_not_trained_and_has_no_say(tmp_path) -> None:
    toy = ToyFederation(tmp_path, clients=4)
    arrays = toy.learn(rounds=2)
    gone = members(range(4), SHARDS)[0]
    after = toy.unlearn(Sharded(), Request(Scope.CLIENT, clients=gone), arrays)
    assert after["shards.0.trained"] == 0
    assert named.digest(shard_arrays(after, 0)) == named.digest(shard_arrays(toy.initial, 0))
    assert after["shards.1.trained"] == arrays["shards.1.trained"]


@few_or_many(4)
def test_answers_to_random_sequences_do_not_depend_on_what_was_forgotten(tmp_path, number) -> None:
    for one, other in answers_of_random_sequences(Sharded, tmp_path, number):
        assert one == other


@few_or_many(2)
def test_of_a_tree_answers_do_not_depend_on_what_was_forgotten(
    tmp_path, monkeypatch, number
) -> None:
    monkeypatch.setattr("tests.support.toy.ToyModel", lambda seed: tree_of(seed, 2, (2, 2)))
    for one, other in answers_of_random_sequences(Sharded, tmp_path, number, rounds=4):
        assert one == other


@few_or_many(3)
def test_the_answer_is_the_training_of_those_who_are_left(tmp_path, number) -> None:
    """The reference never saw the leavers: they are forgotten before the first round."""
    for case in range(number):
        toy = ToyFederation(tmp_path / f"{case}", clients=6, seed=case, fraction=0.7)
        toy.federation.recovery_rounds = 0
        asked = random_requests(np.random.default_rng([case, 5]), toy.sizes)
        arrays = toy.learn(rounds=3)
        for one in asked:
            toy.federation.ledger.receive(one)
            arrays = toy.run(Sharded(), arrays, rounds=0)
        never = ToyFederation(tmp_path / f"{case}-never", clients=6, seed=case, fraction=0.7)
        for one in asked:
            never.federation.forgotten = never.federation.forgotten | one
        never.federation.roster.forget(never.federation.forgotten.clients)
        forgotten = never.federation.forgotten
        never.federation.ledger.forgotten = lambda known=forgotten: known
        clean = never.run(UnlearningStrategy(), rounds=3)
        assert named.digest(arrays) == named.digest(clean)

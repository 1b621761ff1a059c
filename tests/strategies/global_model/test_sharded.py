"""Sharded: the other shards stay, the one that was hit is that of a federation without the data."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from clients.participant import arrays_of
from clients.sharded import Sharded as Network
from strategies.base import UnlearningStrategy
from strategies.global_model.retrain import Retrain
from strategies.global_model.sharded import Sharded
from tests.support.sequences import answers_of_random_sequences, random_requests
from tests.support.toy import ToyFederation, ToyModel, request
from unlearning import arrays as named
from unlearning.models.shards import drawn, members, shard_of, shards_in
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


@pytest.mark.parametrize(
    "number",
    [
        4,
        pytest.param(200, marks=[pytest.mark.slow, pytest.mark.nightly, pytest.mark.timeout(1800)]),
    ],
)
def test_answers_to_random_sequences_do_not_depend_on_what_was_forgotten(tmp_path, number) -> None:
    for one, other in answers_of_random_sequences(Sharded, tmp_path, number):
        assert one == other


@pytest.mark.parametrize(
    "number",
    [
        3,
        pytest.param(200, marks=[pytest.mark.slow, pytest.mark.nightly, pytest.mark.timeout(1800)]),
    ],
)
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

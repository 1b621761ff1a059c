"""Sequences: a prefix has seen nothing of later groups; what is left is module-wise training."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from clients.participant import arrays_of
from clients.sequenced import Sequenced
from experiments.models import networks
from strategies.base import UnlearningStrategy
from strategies.global_model.retrain import Retrain
from strategies.global_model.sequences import Sequences
from tests.support.readings import initial_readings
from tests.support.sequences import answers_of_random_sequences, few_or_many, random_requests
from tests.support.toy import CLASSES, FEATURES, ToyFederation, request
from unlearning import arrays as named
from unlearning.models.sequences import groups_in, kept, module_name, place_of, places_in
from unlearning.models.shards import members, shard_of
from unlearning.request import Request, Scope
from unlearning.weighing import part_of

GROUPS, STAGE = 3, 2


def in_sequences(seed: int, groups: int = GROUPS, stage: int = STAGE) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        base = nn.Sequential(nn.Linear(FEATURES, 4), nn.ReLU(), nn.Linear(4, CLASSES))
    return Sequenced(base, groups, groups, stage)


@pytest.fixture(autouse=True)
def _sequences(monkeypatch):
    """Let the toy federation learn a model in sequences."""
    monkeypatch.setattr("tests.support.toy.ToyModel", in_sequences)


@pytest.fixture
def _short_stages(monkeypatch):
    """Let every module be trained for one round, where what belongs where is the matter."""
    monkeypatch.setattr("tests.support.toy.ToyModel", lambda seed: in_sequences(seed, stage=1))


def module(arrays: named.Arrays, order: int, place: int) -> str:
    return named.digest(
        {n: a for n, a in arrays.items() if part_of(n) == module_name(order, place)}
    )


def learned(toy: ToyFederation) -> named.Arrays:
    return toy.learn(rounds=GROUPS * STAGE)


# What belongs where ---------------------------------------------------------------------------


def test_orders_are_rotations_and_a_prefix_ends_before_the_first_group_hit() -> None:
    arrays = arrays_of(in_sequences(0))
    assert groups_in(list(arrays)) == GROUPS
    assert len(places_in(arrays)) == GROUPS**2
    assert [place_of(2, order, 4) for order in range(4)] == [2, 1, 0, 3]
    assert [kept({2, 1}, order, 4) for order in range(4)] == [1, 0, 0, 2]
    assert kept((), 0, 4) == 4


def test_the_expected_number_of_requests_until_nothing_is_left() -> None:
    """L H_L: 4 (1 + 1/2 + 1/3 + 1/4) = 8.33 for four groups and orders."""
    generator, counts = np.random.default_rng(0), []
    for _ in range(4000):
        hit: set[int] = set()
        count = 0
        while any(kept(hit, order, 4) for order in range(4)):
            hit.add(int(generator.integers(4)))
            count += 1
        counts.append(count)
    assert np.mean(counts) == pytest.approx(8.33, abs=0.2)


def test_the_network_is_the_base_and_the_steps_of_the_longest_prefix() -> None:
    net, x = in_sequences(0), torch.randn(5, FEATURES)
    torch.testing.assert_close(net(x), net.base(x))
    for order, place, size in ((1, 0, 0.1), (1, 1, 0.2), (2, 0, 0.7), (0, 1, 9.0)):
        part = net.module(order, place)
        part.trained += 1
        with torch.no_grad():
            for weight in part.net.parameters():
                weight += size
    with torch.no_grad():  # order 1 has two modules in a row, order 0 has none
        expected = in_sequences(0)
        for weight in expected.base.parameters():
            weight += 0.1 + 0.2
    torch.testing.assert_close(net(x), expected.base(x))


def test_the_base_is_frozen_and_a_network_with_buffers_is_refused() -> None:
    arrays = arrays_of(in_sequences(0))
    assert all(named.is_buffer(n, a) for n, a in arrays.items() if n.startswith("base."))
    with pytest.raises(ValueError, match="no buffers"):
        Sequenced(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)), 2, 2, 1)
    built = networks.build("sequences", (6,), 3, {"groups": 2, "orders": 2})
    assert len(places_in(arrays_of(built))) == 4


# Learning -------------------------------------------------------------------------------------


def test_modules_are_trained_one_after_the_other_and_then_nothing_is(tmp_path) -> None:
    toy = ToyFederation(tmp_path, clients=6)
    arrays = toy.learn(rounds=STAGE)
    for order in range(GROUPS):
        trained = [int(arrays[f"sequences.{order}-{i}.trained"]) for i in range(GROUPS)]
        assert trained == [STAGE, 0, 0]
    after = toy.run(UnlearningStrategy(), arrays, rounds=(GROUPS - 1) * STAGE)
    more = toy.run(UnlearningStrategy(), after, rounds=2)
    assert all(int(a) == STAGE for n, a in after.items() if n.endswith("trained"))
    assert named.digest(after) == named.digest(more)
    base = {n for n in after if n.startswith("base.")}
    assert all(np.array_equal(after[n], toy.initial[n]) for n in base)


@pytest.mark.usefixtures("_short_stages")
@pytest.mark.parametrize("fraction", [1.0, 0.5])
def test_a_prefix_does_not_depend_on_data_of_later_groups(tmp_path, fraction: float) -> None:
    one = ToyFederation(tmp_path / "as-it-is", clients=6, fraction=fraction).learn(GROUPS)
    for group in range(GROUPS):
        toy = ToyFederation(tmp_path / f"changed-{group}", clients=6, fraction=fraction)
        for client in members(range(6), GROUPS)[group]:
            toy.shards[client].features[:] += 5.0
        other = toy.learn(GROUPS)
        for order, place in places_in(one):
            same = module(one, order, place) == module(other, order, place)
            assert same is (place < place_of(group, order, GROUPS))


def test_what_is_left_is_training_module_by_module_on_the_other_groups(
    tmp_path, monkeypatch
) -> None:
    toy = ToyFederation(tmp_path / "a", clients=6)
    arrays = learned(toy)
    toy.federation.recovery_rounds = 0
    strategy = Sequences()
    with monkeypatch.context() as patch:
        readings = initial_readings(patch)
        after = toy.unlearn(strategy, request(Scope.CLIENT), arrays)
    assert len(readings) == 2  # for the modules and the new history, not for every array
    hit = shard_of(1, GROUPS)
    assert strategy.lengths == {j: place_of(hit, j, GROUPS) for j in range(GROUPS)}
    assert not [step for _, step in toy.asked[-1:] if step != "train"]
    never = ToyFederation(tmp_path / "b", clients=6)
    gone = members(range(6), GROUPS)[hit]
    for client in gone:
        never.federation.forgotten |= Request(Scope.CLIENT, clients=(client,))
    never.federation.roster.forget(set(gone))
    never.federation.ledger.forgotten = lambda known=never.federation.forgotten: known
    alone = never.run(UnlearningStrategy(), rounds=GROUPS * STAGE)
    for order, length in strategy.lengths.items():
        for place in range(GROUPS):
            if place < length:
                assert module(after, order, place) == module(alone, order, place)
            else:
                assert module(after, order, place) == module(toy.initial, order, place)


def test_recovery_trains_what_was_switched_off_without_the_forgotten(tmp_path) -> None:
    toy = ToyFederation(tmp_path, clients=6)
    arrays = learned(toy)
    toy.federation.recovery_rounds = STAGE
    toy.federation.ledger.receive(request(Scope.CLIENT))
    after = toy.run(Sequences(), arrays, rounds=0)
    hit = shard_of(1, GROUPS)
    for order in range(GROUPS):
        place = place_of(hit, order, GROUPS)
        assert int(after[f"sequences.{order}-{place}.trained"]) == STAGE
        assert module(after, order, place) != module(arrays, order, place)


@pytest.mark.usefixtures("_short_stages")
def test_where_nothing_is_left_it_is_retraining(tmp_path) -> None:
    toy = ToyFederation(tmp_path / "a", clients=6)
    arrays = toy.learn(GROUPS)
    everywhere = request(Scope.CLASS)
    found = [
        toy.branch(tmp_path / name).unlearn(strategy, everywhere, arrays)
        for name, strategy in (("b", Sequences()), ("c", Retrain()))
    ]
    assert named.digest(found[0]) == named.digest(found[1])


def test_one_group_is_retraining(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("tests.support.toy.ToyModel", lambda seed: in_sequences(seed, 1))
    toy = ToyFederation(tmp_path / "a")
    arrays = toy.learn(rounds=STAGE)
    found = [
        toy.branch(tmp_path / name).unlearn(strategy, request(Scope.CLIENT), arrays)
        for name, strategy in (("b", Sequences()), ("c", Retrain()))
    ]
    assert named.digest(found[0]) == named.digest(found[1])


@pytest.mark.usefixtures("_short_stages")
@few_or_many(3)
def test_answers_to_random_sequences_do_not_depend_on_what_was_forgotten(tmp_path, number) -> None:
    for one, other in answers_of_random_sequences(Sequences, tmp_path, number, rounds=GROUPS):
        assert one == other


def test_prefixes_only_shrink(tmp_path) -> None:
    toy = ToyFederation(tmp_path, clients=6)
    arrays = learned(toy)
    toy.federation.recovery_rounds = 0
    lengths = []
    for one in random_requests(np.random.default_rng([3, 5]), toy.sizes):
        toy.federation.ledger.receive(one)
        strategy = Sequences()
        arrays = toy.run(strategy, arrays, rounds=0)
        lengths.append(strategy.lengths)
    assert all(
        later[order] <= GROUPS and set(earlier) == set(later)
        for earlier, later in pairwise(lengths)
        for order in later
    )

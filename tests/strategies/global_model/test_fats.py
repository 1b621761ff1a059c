"""Fats: the law of the draws by enumeration, and equality with retraining bit for bit."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from functools import cache
from math import prod

import numpy as np
import pytest

from strategies.base import UnlearningStrategy
from strategies.global_model.fats import Fats
from strategies.global_model.retrain import Retrain
from tests.support.sequences import answers_of_random_sequences, few_or_many, random_requests
from tests.support.toy import TRAIN, ToyFederation, request
from unlearning import arrays as named
from unlearning.draws import batch, first_drawn, smallest_keys
from unlearning.request import Request, Scope

# The law of all draws of a tiny federation: three clients, one drawn per round, three examples
# each, one per step, two steps, two rounds. Client 0 forgets its example 0.
CLIENTS, EXAMPLES, STEPS, ROUNDS = 3, 3, 2, 2
Round = tuple[int, tuple[int, ...]]  # who was drawn, and its examples step by step
Law = Counter[tuple[Round, ...]]


def rounds_of(clients: tuple[int, ...], gone: frozenset[int] = frozenset()) -> Iterator[Round]:
    """Yield all outcomes of one round, equally likely given the client."""
    for client in clients:
        held = [i for i in range(EXAMPLES) if client or i not in gone]
        for drawn in itertools.product(held, repeat=STEPS):
            yield client, drawn


@cache
def chance(outcome: Round, clients: int, gone: frozenset[int]) -> Fraction:
    held = EXAMPLES - (0 if outcome[0] else len(gone))
    return Fraction(1, clients) * Fraction(1, held) ** STEPS


def training(gone: frozenset[int]) -> Law:
    """Return the law of the draws of a training without some examples of client 0."""
    everyone = tuple(range(CLIENTS))
    law: Law = Counter()
    for path in itertools.product(list(rounds_of(everyone, gone)), repeat=ROUNDS):
        law[path] += prod(chance(one, CLIENTS, gone) for one in path)
    return law


def after(rule: str) -> Law:
    """Return the law after client 0 has forgotten its example 0, by a rule for the roll-back."""
    gone, everyone = frozenset({0}), tuple(range(CLIENTS))
    law: Law = Counter()
    begun: Law = Counter()  # the rounds that stay of a path that is rolled back
    for path, likely in training(frozenset()).items():
        hit = [t for t, (client, drawn) in enumerate(path) if client == 0 and 0 in drawn]
        if not hit:
            law[path] += likely
        else:
            begun[path[: hit[0]]] += likely
    for stays, likely in begun.items():
        kept = (0,) if rule == "kept" else everyone
        choices = [list(rounds_of(kept, gone))]
        choices += [list(rounds_of(everyone, gone))] * (ROUNDS - len(stays) - 1)
        for rest in itertools.product(*choices):
            chances = [chance(rest[0], len(kept), gone)]
            chances += [chance(one, CLIENTS, gone) for one in rest[1:]]
            law[stays + rest] += likely * prod(chances)
    return law


def distance(one: Law, other: Law) -> Fraction:
    """Return the total variation between two laws."""
    return sum((abs(one[path] - other[path]) for path in one | other), Fraction(0)) / 2


def test_the_client_of_the_round_is_kept_and_the_wrong_rule_is_found() -> None:
    reference = training(frozenset({0}))
    assert sum(reference.values()) == 1
    assert distance(after("kept"), reference) == 0
    assert float(distance(after("drawn again"), reference)) == pytest.approx(0.1646, abs=5e-5)


def test_the_keys_are_uniform_over_all_orders_and_ignore_who_is_gone() -> None:
    """Over all orders of the keys: the law with an example gone is that of never having had it."""
    for size in (1, 2):
        with_it: Counter[tuple[int, ...]] = Counter()
        without: Counter[tuple[int, ...]] = Counter()
        for order in itertools.permutations(range(4)):
            keys = np.array(order, float)
            there = smallest_keys(keys, np.arange(4), size)
            rest = smallest_keys(keys, np.array([0, 1, 3]), size)
            if 2 not in there:
                assert there.tolist() == rest.tolist()
            with_it[tuple(there)] += 1
            without[tuple(rest)] += 1
        assert len(set(with_it.values())) == len(set(without.values())) == 1
        assert len(with_it) == len(list(itertools.combinations(range(4), size)))
        assert len(without) == len(list(itertools.combinations(range(3), size)))


def test_positions_keep_their_keys() -> None:
    everything = np.arange(50)
    for t in range(1, 30):
        drawn = batch(0, 1, t, 0, everything, 6)
        rest = batch(0, 1, t, 0, np.delete(everything, 49), 6)
        if 49 not in drawn:
            assert drawn.tolist() == rest.tolist()
    assert batch(0, 1, 1, 0, everything, 99).tolist() == everything.tolist()


def test_the_first_draw_is_found() -> None:
    ids = np.arange(30)
    seen = [t for t in range(1, 9) if any(7 in batch(3, 2, t, h, ids, 2) for h in range(2))]
    assert first_drawn(3, 2, range(1, 9), 2, ids, (7,), 2) == (seen[0] if seen else 0)
    assert first_drawn(3, 2, (), 2, ids, (7,), 2) == 0


# The strategy ---------------------------------------------------------------------------------


def stable(home, *, seed: int = 0, fraction: float = 0.6, **settings: object) -> ToyFederation:
    """Return a federation that trains by stable sampling."""
    toy = ToyFederation(home, seed=seed, fraction=fraction, **settings)  # type: ignore[arg-type]
    toy.federation.train = {**TRAIN, "batch_size": 2, "stable_steps": 2}
    toy.federation.recovery_rounds = 0
    return toy


@pytest.mark.parametrize("scope", [Scope.CLIENT, Scope.SAMPLE, Scope.CLASS])
def test_it_is_retraining_from_scratch_bit_for_bit(tmp_path, scope) -> None:
    for seed in range(2):
        toy = stable(tmp_path / f"{seed}", seed=seed)
        arrays = toy.learn(rounds=4)
        found = toy.branch(tmp_path / f"{seed}-a").unlearn(Fats(), request(scope), arrays)
        scratch = Retrain(from_scratch=True)
        wanted = toy.branch(tmp_path / f"{seed}-b").unlearn(scratch, request(scope), arrays)
        assert named.digest(found) == named.digest(wanted)


def test_what_was_never_drawn_costs_one_message_and_changes_nothing(tmp_path) -> None:
    for seed in range(30):
        toy = stable(tmp_path / f"{seed}", seed=seed)
        arrays = toy.learn(rounds=3)
        clients = tuple(range(4))
        rounds = [t for t in (1, 2, 3) if 3 in toy.federation.draw(t, clients, arrays)]
        ids = np.arange(toy.sizes[3])
        idle = [i for i in ids if not first_drawn(seed, 3, rounds, 2, ids, (int(i),), 2)]
        if not rounds or not idle:
            continue
        toy.asked.clear()
        asked = Request(Scope.SAMPLE, samples={3: (int(idle[0]),)})
        before = toy.federation.history.participants(rounds[0])
        toy.federation.ledger.receive(asked)
        after = toy.run(Fats(), arrays, rounds=0)
        assert toy.asked == [(3, "first_drawn")]
        assert named.digest(after) == named.digest(arrays)
        assert toy.federation.history.participants(rounds[0]) == before
        return
    raise AssertionError("no example stayed out in 30 federations")


def test_clients_count_alike(tmp_path) -> None:
    toy = stable(tmp_path, fraction=1.0)
    toy.learn(rounds=1)
    assert set(toy.federation.history.weights(1).values()) == {0.25}


def test_drawn_counts_not_answered(tmp_path) -> None:
    """A leaver that was drawn in round 1 and failed: the others must be drawn again there."""

    def fails(arrays):
        raise RuntimeError("broken on purpose")

    for seed in range(30):
        toy = stable(tmp_path / f"{seed}", seed=seed)
        toy.federation.min_replies = 0.0
        there = [1 in toy.federation.draw(t, tuple(range(4)), ()) for t in (1, 2, 3)]
        if there != [True, False, True]:
            continue
        toy.faults[1] = fails
        arrays = toy.learn(rounds=1)
        toy.faults.clear()
        arrays = toy.run(UnlearningStrategy(), arrays, rounds=2)
        asked = request(Scope.CLIENT)
        assert toy.federation.history.first_round(asked) == 3
        found = toy.branch(tmp_path / "a").unlearn(Fats(), asked, arrays)
        wanted = toy.branch(tmp_path / "b").unlearn(Retrain(from_scratch=True), asked, arrays)
        assert named.digest(found) == named.digest(wanted)
        return
    raise AssertionError("no such draw in 30 federations")


class Stable:
    """Let random sequences run in federations that sample stably."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(
            "tests.support.toy.TRAIN", {**TRAIN, "batch_size": 2, "stable_steps": 2}
        )


@few_or_many(3)
def test_answers_to_random_sequences_do_not_depend_on_what_was_forgotten(
    tmp_path, monkeypatch, number
) -> None:
    Stable(monkeypatch)
    for one, other in answers_of_random_sequences(Fats, tmp_path, number):
        assert one == other


@few_or_many(3)
def test_the_answer_is_the_training_of_the_data_that_are_left(
    tmp_path, monkeypatch, number
) -> None:
    Stable(monkeypatch)
    for case in range(number):
        toy = stable(tmp_path / f"{case}", seed=case)
        asked = random_requests(np.random.default_rng([case, 5]), toy.sizes)
        arrays = toy.run(Fats(), rounds=3)
        for one in asked:
            toy.federation.ledger.receive(one)
            arrays = toy.run(Fats(), arrays, rounds=0)
        never = stable(tmp_path / f"{case}-never", seed=case)
        for one in asked:
            never.federation.forgotten = never.federation.forgotten | one
        never.federation.roster.forget(never.federation.forgotten.clients)
        forgotten = never.federation.forgotten
        never.federation.ledger.forgotten = lambda known=forgotten: known
        assert named.digest(arrays) == named.digest(never.run(UnlearningStrategy(), rounds=3))

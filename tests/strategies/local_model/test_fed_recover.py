"""FedRecover: which rounds are exact, what stands for the others, and what it saves."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from strategies.global_model.retrain import Retrain
from strategies.local_model.fed_recover import FedRecover, exact_rounds, largest_usual
from tests.support.past import forget, joined, past, vector
from tests.support.toy import ToyFederation
from unlearning import arrays as named
from unlearning.errors import ConfigError, HistoryError
from unlearning.protocol import Reply

SPARSE = {"warmup": 2, "correct_every": 3, "final": 1}


class Quadratic:
    """Clients whose answer is one gradient step on a_k / 2 |w - c_k|^2, or a_k per coordinate."""

    COUNTS = (1, 2, 3, 2)

    def __init__(self, *, size=3, rate=0.1, curvature=(1.0, 2.0, 0.5, 3.0), absent=()):
        rng = np.random.default_rng(0)
        self.centres = rng.normal(scale=3, size=(4, size))
        self.curvature = [np.asarray(a) * np.ones(size) for a in curvature]
        self.start = vector(*rng.normal(size=size))
        self.rate = rate
        self.absent = set(absent)  # (round, client)

    def update(self, client, w):
        step = -self.rate * self.curvature[client] * (w["w"] - self.centres[client])
        return {"w": step}

    def there(self, t, without=()):
        return [k for k in range(4) if (t, k) not in self.absent and k not in without]

    def learn(self, rounds, without=()):
        """Return (history, final model) of federated gradient descent."""
        answers, current = [], self.start
        for t in range(1, rounds + 1):
            there = self.there(t, without)
            answers.append({k: (self.COUNTS[k], self.update(k, current)) for k in there})
            mean = named.weighted_mean(answers[-1].values())
            current = named.apply_update(current, mean)
        return past(self.start, answers, keep=("globals", "updates"))

    def recover(self, strategy, rounds, *gone, lose=()):
        """Return what the strategy makes of forgetting ``gone``, and whom it asked by round."""
        history, final = self.learn(rounds)
        joined(strategy, history)
        strategy.federation.roster.forget(gone)
        current, number = strategy.prepare(forget(*gone or (9,)), history, final)
        asked = []
        for i in range(1, number + 1):
            wanted = strategy.instruct(i)
            asked.append(sorted(wanted))
            replies = [
                Reply(k, self.COUNTS[k], {}, update=self.update(k, current))
                for k in sorted(wanted)
                if (i, k) not in lose
            ]
            current = strategy.combine(i, current, iter(replies))
        return current, asked


# The schedule -----------------------------------------------------------------------------------


def test_schedule_by_hand():
    assert exact_rounds(12, 2, 3, 2) == [1, 2, 5, 8, 11, 12]
    assert exact_rounds(3, 20, 10, 5) == [1, 2, 3]
    assert exact_rounds(4, 0, 1, 0) == [1, 2, 3, 4]
    assert exact_rounds(0, 1, 1, 1) == []


@pytest.mark.parametrize(("rounds", "saving"), [(100, 0.68), (200, 0.79), (2000, 0.8895)])
def test_saving_of_the_papers_settings(rounds, saving):
    exact = len(exact_rounds(rounds, 20, 10, 5))
    assert exact == 20 + 5 + (rounds - 25) // 10
    assert 1 - exact / rounds == pytest.approx(saving, abs=5e-4)


def test_saving_is_measured_as_planned(tmp_path, caplog):
    """Nine rounds of three retained clients: warm-up 2, rounds 5 and 8, the last: 5 of 9."""
    caplog.set_level(logging.INFO, logger="fedunlearn")
    toy = ToyFederation(tmp_path)
    final = toy.learn(9)
    strategy = FedRecover(**SPARSE, tolerance=0.0)
    strategy._usual = lambda *_: np.inf  # no estimate is out of the ordinary
    toy.unlearn(strategy, forget(1), final)
    curved = strategy.asked - 3 * 5  # clients without positive curvature had to be asked
    assert strategy.replayed == 27
    assert toy.federation.costs["unlearn"].client_rounds == strategy.asked
    assert strategy.saving == pytest.approx(1 - (15 + curved) / 27)
    assert f"asked for {strategy.asked} of 27 client rounds" in caplog.text
    assert "of 44 % by plan" in caplog.text


# The estimate -----------------------------------------------------------------------------------


@pytest.mark.parametrize("memory", [1, 2, 4])
def test_on_quadratic_losses_it_is_retraining(memory):
    """Curvature is the same in all directions, so that one pair tells all of it."""
    world = Quadratic()
    _, retrained = world.learn(12, without=(1,))
    after, asked = world.recover(FedRecover(**SPARSE, memory=memory, tolerance=0.05), 12, 1)
    np.testing.assert_allclose(after["w"], retrained["w"], rtol=1e-9)
    assert asked[2] == []
    assert [i for i, clients in enumerate(asked, 1) if clients] == [1, 2, 5, 8, 11, 12]


def test_in_one_dimension_too():
    world = Quadratic(size=1)
    _, retrained = world.learn(10, without=(2,))
    after, _ = world.recover(FedRecover(**SPARSE), 10, 2)
    np.testing.assert_allclose(after["w"], retrained["w"], rtol=1e-9)


def test_curvature_brings_it_closer_than_the_stored_updates_alone():
    world = Quadratic(curvature=[(1, 3, 0.5), (1, 1, 1), (2, 0.1, 1), (0.5, 2, 4)])
    _, retrained = world.learn(12, without=(1,))
    stored, asked = world.recover(FedRecover(warmup=0, correct_every=99, final=0), 12, 1)
    assert not any(asked)
    estimated, _ = world.recover(FedRecover(warmup=3, correct_every=99, final=0), 12, 1)
    far, near = (named.norm(named.subtract(m, retrained)) for m in (stored, estimated))
    assert near < far / 5


def test_clients_that_come_and_go_have_pairs_of_their_own():
    world = Quadratic(absent={(1, 0), (2, 0), (3, 3), (6, 2), (7, 0)})
    world.absent |= {(t, 1) for t in (4, 5)}
    retrained = world.learn(12, without=(1,))[1]
    after, asked = world.recover(FedRecover(**SPARSE, tolerance=0.05), 12, 1)
    assert asked[1] == [2, 3]
    assert asked[3] == []  # round 4: client 0 has no pair yet, its stored update stands in
    assert named.norm(named.subtract(after, retrained)) < 0.1


@pytest.mark.parametrize(("memory", "rounds"), [(1, [12]), (2, [11, 12]), (4, [5, 8, 11, 12])])
def test_the_latest_pairs_are_kept(memory, rounds):
    strategy = FedRecover(**SPARSE, memory=memory, tolerance=0.05)
    Quadratic().recover(strategy, 12, 1)
    assert {client: list(kept) for client, kept in strategy._pairs.items()} == dict.fromkeys(
        (0, 2, 3), rounds
    )


def test_buffers_of_an_estimate_are_what_the_client_had_reached():
    """Without client 1 the variance is at 1 after round 1; in round 2 client 0 had reached 2."""

    def model(weight, variance):
        return {"w": np.array([weight]), "running_var": np.array([variance])}

    start, middle = model(0.0, 1.0), model(1.0, 9.0)
    rounds = [
        {0: (1, named.delta(start, start)), 1: (1, named.delta(start, model(2.0, 17.0)))},
        {0: (1, named.delta(middle, model(3.0, 2.0))), 1: (1, named.delta(middle, middle))},
    ]
    history, _ = past(start, rounds)
    assert named.digest(history.arrays(2)) == named.digest(middle)
    strategy = joined(FedRecover(warmup=0, correct_every=9, final=0), history, 2)
    after = strategy.unlearn(forget(1), history, model(9.0, 9.0))
    assert {name: array.item() for name, array in after.items()} == {"w": 2.0, "running_var": 2.0}


def test_nothing_to_forget_changes_nothing():
    world = Quadratic()
    history, final = world.learn(8)
    after, asked = world.recover(FedRecover(warmup=0, correct_every=99, final=0), 8)
    assert not any(asked)
    assert named.digest(after) == named.digest(final)
    after, _ = world.recover(FedRecover(**SPARSE), 8)
    np.testing.assert_allclose(after["w"], final["w"], rtol=1e-14)
    assert history.rounds == tuple(range(1, 9))


def test_nothing_to_forget_repeats_a_real_federation_bit_by_bit(tmp_path):
    toy = ToyFederation(tmp_path)
    final = toy.learn(5)
    strategy = FedRecover(warmup=0, correct_every=99, final=0)
    strategy.join(toy.federation)
    current, rounds = strategy.prepare(forget(9), toy.federation.history, final)
    for i in range(1, rounds + 1):
        assert not strategy.instruct(i)
        current = strategy.combine(i, current, iter(()))
    assert named.digest(current) == named.digest(final)


@pytest.mark.parametrize("late", [{}, {1: 3}])
def test_asking_every_round_is_retraining(tmp_path, late):
    toy = ToyFederation(tmp_path / "a", late=late, fraction=0.8)
    final = toy.learn(5)
    retrained = toy.branch(tmp_path / "b").unlearn(Retrain(), forget(1), final)
    strategy = FedRecover(warmup=0, correct_every=1, final=0)
    again = toy.branch(tmp_path / "c").unlearn(strategy, forget(1), final)
    assert named.digest(again) == named.digest(retrained)


def test_every_kind_of_round_in_a_real_federation(tmp_path):
    """Closer to retraining than the sum of the others' stored updates, with buffers as state."""
    toy = ToyFederation(tmp_path / "a")
    final = toy.learn(10)
    retrained = toy.branch(tmp_path / "b").unlearn(Retrain(), forget(1), final)
    strategy = FedRecover(warmup=3, correct_every=3, final=1)
    after = toy.branch(tmp_path / "c").unlearn(strategy, forget(1), final)
    stored = FedRecover(warmup=0, correct_every=99, final=0)
    rough = toy.branch(tmp_path / "d").unlearn(stored, forget(1), final)
    assert 0 < strategy.asked < strategy.replayed
    near, far = (named.norm(named.subtract(m, retrained)) for m in (after, rough))
    assert near < far
    assert named.mismatch(final, after) is None
    clean = strategy.rewritten
    assert clean.rounds == tuple(range(1, 11))
    assert all(list(clean.participants(t)) == [0, 2, 3] for t in clean.rounds)
    assert clean.participants(7) == {k: toy.sizes[k] for k in (0, 2, 3)}


# Where no estimate can stand for an answer ------------------------------------------------------


def test_an_estimate_out_of_the_ordinary_is_replaced_by_an_answer():
    """Clients 0 and 2 pull to 10, client 3 to 0, and client 1 kept the model near 0 as well.

    The largest original update is |.3 x .5 x 10| = 1.5, at the start. Without client 1 the model
    goes to 10/3, where client 3 answers with .3 x 2 x 10/3 = 2.
    """
    world = Quadratic(size=1, rate=0.3, curvature=(0.5, 8.0, 0.5, 2.0))
    world.start, world.centres = vector(0.0), np.array([[10.0], [0.0], [10.0], [0.0]])
    _, retrained = world.learn(12, without=(1,))
    strategy = FedRecover(**SPARSE, tolerance=0.0)
    after, asked = world.recover(strategy, 12, 1)
    assert strategy._limit == pytest.approx(1.5)
    assert asked[2:10] == [[], [], [0, 2, 3], [3], [3], [0, 2, 3], [3], [3]]
    np.testing.assert_allclose(after["w"], retrained["w"], rtol=1e-9)
    assert strategy.saving == pytest.approx(1 - (6 * 3 + 4) / 36)


def test_a_client_without_positive_curvature_is_asked():
    world = Quadratic(curvature=(1.0, 2.0, -0.5, 3.0))
    _, retrained = world.learn(8, without=(1,))
    after, asked = world.recover(FedRecover(**SPARSE, tolerance=0.05), 8, 1)
    assert asked[2] == asked[3] == [2]
    np.testing.assert_allclose(after["w"], retrained["w"], rtol=1e-9)


def test_a_client_that_does_not_answer_is_left_out_of_the_round():
    world = Quadratic()
    strategy = FedRecover(**SPARSE, tolerance=0.05)
    world.recover(strategy, 12, 1, lose={(5, 3)})
    assert list(strategy.rewritten.participants(5)) == [0, 2]
    assert list(strategy.rewritten.participants(6)) == [0, 2, 3]
    assert strategy._pairs[3][0] != 5


def test_the_limit_is_of_the_remaining_clients():
    world = Quadratic()
    world.centres[1] = 1e6
    strategy = FedRecover(**SPARSE, tolerance=0.0)
    world.recover(strategy, 4, 1)
    history, _ = world.learn(4)
    updates = [history.update(t, k)["w"] for t in history.rounds for k in (0, 2, 3)]
    assert strategy._limit == np.abs(updates).max()


def test_a_round_of_the_forgotten_alone_is_an_identity_step():
    world = Quadratic(absent={(3, 0), (3, 2), (3, 3)})
    strategy = FedRecover(**SPARSE, tolerance=0.05)
    _, asked = world.recover(strategy, 6, 1)
    assert asked[2] == []
    assert strategy.rewritten.participants(3) == {}
    clean = strategy.rewritten
    assert named.digest(clean.arrays(3)) == named.digest(clean.arrays(4))


@pytest.mark.parametrize("share", [0.0, 0.01, 0.1])
def test_largest_usual_is_a_quantile(share):
    """At most the share exceeds it, and no smaller coordinate would do."""
    rng = np.random.default_rng(0)
    updates = [
        {"a": rng.normal(size=(7, 3)), "b": rng.normal(size=11), "running_var": np.full(2, 99.0)}
        for _ in range(5)
    ]
    values = np.sort(np.abs(np.concatenate([u[n].ravel() for u in updates for n in "ab"])))
    found = largest_usual(iter(updates), values.size, share)
    assert (values > found).sum() == int(share * values.size)
    assert found in values


def test_a_later_request_finds_a_clean_history(tmp_path):
    toy = ToyFederation(tmp_path)
    toy.federation.ledger.receive(forget(1, id="a", at_round=4))
    toy.federation.ledger.receive(forget(2, id="b", at_round=5))
    after = toy.run(FedRecover(warmup=2, correct_every=2, final=1), rounds=5)
    assert named.is_finite(after)
    history = toy.federation.history
    assert history.rounds == (1, 2, 3, 4, 5, 6, 7)
    assert {c for t in history.rounds for c in history.participants(t)} == {0, 3}


def test_rounds_that_were_not_kept_are_an_error_in_words():
    step = {0: (1, vector(1.0)), 1: (1, vector(2.0))}
    history, final = past(vector(0.0), [step] * 4, interval=2)
    with pytest.raises(HistoryError, match=r"round 2 was not kept; .*history\.interval = 1"):
        joined(FedRecover(), history).unlearn(forget(1), history, final)


def test_asking_in_every_round_is_said(caplog):
    Quadratic().recover(FedRecover(), 3, 1)
    assert "all 3 rounds, which is retraining" in caplog.text


@pytest.mark.parametrize(
    "options",
    [{"memory": 0}, {"warmup": -1}, {"correct_every": 0}, {"final": -1}, {"tolerance": 0.2}],
)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        FedRecover(**options)

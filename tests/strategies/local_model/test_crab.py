"""Crab: which rounds and clients are kept, where it goes back to, and one step by hand."""

from __future__ import annotations

import numpy as np
import pytest

from strategies.global_model.retrain import Retrain
from strategies.local_model.crab import Crab, change, kinship, top
from tests.support.past import forget, joined, past, vector
from tests.support.toy import ToyFederation
from unlearning import arrays as named
from unlearning.arrays import Arrays
from unlearning.errors import ConfigError
from unlearning.protocol import Reply

EVERYTHING = {"rollback": 0.0, "keep_rounds": 1.0, "keep_clients": 1.0, "ratio": 1.0}


def prepared(rounds, request=None, clients=4, start=None, **options):
    history, final = past(start or vector(0.0, 0.0), rounds)
    strategy = joined(Crab(**options), history, clients)
    wanted = request or forget(1)
    strategy.federation.roster.forget(wanted.leavers)
    model, number = strategy.prepare(wanted, history, final)
    assert number == len(strategy._plan)
    return strategy, model, history


def kept(strategy):
    return dict(strategy._plan)


# What is important ------------------------------------------------------------------------------


def test_change_by_hand():
    """Softmax (1/2, 1/2) to (3/4, 1/4): 1/2 ln(2/3) + 1/2 ln 2; the array of one value adds 0."""
    before = {"a": np.zeros((2, 1), np.float32), "b": np.ones(1), "running_var": np.zeros(2)}
    after = {"a": np.log([[3.0], [1.0]]), "b": np.zeros(1), "running_var": np.array([5.0, 0])}
    expected = np.log(2 / 3) / 2 + np.log(2) / 2
    assert change(before, after) == pytest.approx(expected, rel=1e-12)
    assert change(after, before) == pytest.approx(0.75 * np.log(1.5) + 0.25 * np.log(0.5))
    assert change(before, before) == 0
    far = {name: array + 1e4 for name, array in after.items()}
    assert change(before, far) == pytest.approx(expected, rel=1e-9)


def test_kinship_by_hand():
    """Cosines 0.6 and -1; an array without a direction and a buffer count for nothing."""
    local = {"a": np.array([[3.0, 4.0]]), "b": np.array([2.0]), "c": np.zeros(2), "n": np.array(1)}
    model = {"a": np.array([[7.0, 0.0]]), "b": np.array([-1.0]), "c": np.ones(2), "n": np.array(1)}
    assert kinship(local, model) == pytest.approx(-0.4)


def test_top_rounds_up_and_settles_ties_by_key():
    scores = {1: 0.5, 2: 2.0, 3: 0.5, 4: -1.0, 5: 0.5}
    assert top(scores, 0.6) == [1, 2, 3]
    assert top(scores, 0.61) == [1, 2, 3, 5]
    assert top(scores, 1e-6) == [2]
    assert top(scores, 1.0) == [1, 2, 3, 4, 5]
    assert top({}, 0.5) == []
    assert top(dict.fromkeys(range(100), 0.0), 0.07) == list(range(7))  # not 7.000000000000001


def mover(x: float) -> dict[int, tuple[int, Arrays]]:
    """Return a round whose mean moves by (x, 0), and which does not depend on client 1."""
    return {k: (1, vector(x, 0.0)) for k in (0, 1, 2)}


def test_rounds_are_kept_window_by_window():
    """Steps of 1, 3, 2 | 5, 9: the two largest thirds of the first window, one half of the rest."""
    rounds = [mover(0.0), *(mover(x) for x in (1.0, -3.0, 2.0, -5.0, 9.0))]
    strategy, *_ = prepared(rounds[1:], window=3, keep_rounds=0.6)
    assert sorted(kept(strategy)) == [5]  # client 1 changed nothing: back to the last round only
    spoiled = {**mover(1.0), 1: (1, vector(1.0, 9.0))}
    strategy, *_ = prepared([spoiled, *rounds[2:]], window=3, keep_rounds=0.4, rollback=0.0)
    assert sorted(kept(strategy)) == [1, 2, 5]
    strategy, *_ = prepared([spoiled, *rounds[2:]], window=5, keep_rounds=0.2, rollback=0.0)
    assert sorted(kept(strategy)) == [5]


def test_clients_that_resemble_the_result_are_kept():
    """From (9, 0) all go to (8.9, -.06); least far from there are client 0, then 3, then 2."""
    round_ = {
        0: (1, vector(1.0, 0.5)),
        1: (1, vector(1.0, 0.0)),
        2: (1, vector(-8.0, 9.0)),
        3: (5, vector(1.0, -2.0)),
    }
    strategy, *_ = prepared([round_], start=vector(9.0, 0.0), keep_clients=0.5)
    assert kept(strategy) == {1: [0, 3]}
    strategy, *_ = prepared([round_], start=vector(9.0, 0.0), keep_clients=0.3)
    assert kept(strategy) == {1: [0]}
    strategy, *_ = prepared([round_], start=vector(9.0, 0.0), keep_clients=0.7)
    assert kept(strategy) == {1: [0, 2, 3]}


# Where it goes back to --------------------------------------------------------------------------

# Client 1 has half of the examples and moves by x where client 0 stays: |x| / 2 per round.
STEPS = (1.0, 2.0, 1.0, 4.0, 2.0)
ROUNDS = [{0: (1, vector(0.0, 0.1)), 1: (1, vector(x, 0.1))} for x in STEPS]


@pytest.mark.parametrize(
    ("share", "begin"), [(0.0, 1), (0.09, 1), (0.11, 2), (0.31, 3), (0.41, 4), (0.81, 5), (1.0, 5)]
)
def test_it_goes_back_to_a_share_of_the_sensitivity(share, begin):
    """Sensitivities .5, 1, .5, 2, 1, in all 5: shares 0, .1, .3, .4, .8 before rounds 1 to 5."""
    strategy, model, history = prepared(ROUNDS, rollback=share, keep_rounds=1.0)
    assert sorted(kept(strategy)) == list(range(begin, 6))
    assert named.digest(model) == named.digest(history.arrays(begin))


def test_a_late_joiner_is_gone_back_before():
    rounds = [{0: (1, vector(1.0, 0.0))}, *ROUNDS]
    strategy, model, _ = prepared(rounds, rollback=0.0, keep_rounds=1.0)
    assert sorted(kept(strategy)) == [2, 3, 4, 5, 6]
    np.testing.assert_array_equal(model["w"], [1.0, 0.0])


def test_a_round_of_the_forgotten_alone_is_never_kept_nor_passed():
    rounds = [ROUNDS[0], {1: (1, vector(1e-9, 0.0))}, ROUNDS[0]]
    strategy, *_ = prepared(rounds, rollback=1.0, keep_rounds=1.0)
    assert sorted(kept(strategy)) == [3]
    assert strategy.rewritten.rounds == (1,)


def test_models_that_the_forgotten_shaped_are_erased():
    strategy, _, history = prepared(ROUNDS, rollback=0.5)
    assert strategy.rewritten.rounds == (1, 2, 3)
    assert strategy.rewritten.stored_globals == (1,)
    assert all(list(strategy.rewritten.participants(t)) == [0] for t in (1, 2, 3))
    assert history.stored_globals == (1, 2, 3, 4, 5)


def test_only_the_forgotten_took_part():
    strategy, model, _ = prepared([{1: (1, vector(1.0, 1.0))}] * 2)
    assert not strategy._plan
    np.testing.assert_array_equal(model["w"], [0, 0])


# The step ---------------------------------------------------------------------------------------


def test_one_step_by_hand():
    """Stored lengths 5 and 1, fresh directions (0, 1) and (-.6, -.8), weights 1 and 3, scale 2.

    2 (1 (0, 5) + 3 (-.6, -.8)) / 4 = (-.9, 1.3).
    """
    round_ = {0: (1, vector(3.0, -4.0)), 1: (4, vector(1.0, 0.0)), 2: (3, vector(0.0, 1.0))}
    strategy, model, _ = prepared([round_], keep_clients=1.0, step_scale=2.0)
    fresh = {0: (1, vector(0.0, 0.01)), 2: (3, vector(-6.0, -8.0))}
    replies = [Reply(k, count, {}, update=update) for k, (count, update) in fresh.items()]
    after = strategy.combine(1, model, iter(replies))
    np.testing.assert_allclose(after["w"], [-0.9, 1.3], rtol=1e-12)
    clean = strategy.rewritten
    assert clean.participants(1) == {0: 1, 2: 3}
    np.testing.assert_allclose(clean.update(1, 0)["w"], [0, 10], rtol=1e-12)


def test_a_step_makes_up_for_the_rounds_left_out_of_its_window():
    """One of three rounds is kept: lengths 5 and 1 three times; of a window of one, once."""
    round_ = {0: (1, vector(3.0, -4.0)), 1: (1, vector(1.0, 0.0)), 2: (1, vector(0.0, 1.0))}
    replies = [Reply(0, 1, {}, update=vector(0.0, 1.0)), Reply(2, 1, {}, update=vector(0.0, 1.0))]
    for rounds, factor in ((3, 3.0), (1, 1.0)):
        strategy, model, _ = prepared([round_] * rounds, rollback=0.0)
        assert len(strategy._plan) == 1
        after = strategy.combine(1, model, iter(replies))
        np.testing.assert_allclose(after["w"] - model["w"], [0, factor * 3], rtol=1e-12)


def test_a_client_that_does_not_answer_is_left_out():
    round_ = {0: (1, vector(3.0, -4.0)), 1: (4, vector(1.0, 0.0)), 2: (3, vector(0.0, 1.0))}
    strategy, model, _ = prepared([round_])
    after = strategy.combine(1, model, iter([Reply(2, 3, {}, update=vector(1.0, 0.0))]))
    np.testing.assert_allclose(after["w"], [1, 0], rtol=1e-12)
    assert strategy.rewritten.participants(1) == {2: 3}


@pytest.mark.parametrize(
    ("train", "ratio", "short"),
    [
        ({"local_epochs": 5}, 0.5, {"local_epochs": 3, "max_steps": 0}),
        ({"local_epochs": 1, "max_steps": 7}, 0.5, {"local_epochs": 1, "max_steps": 4}),
        ({"local_epochs": 2}, 1.0, {"local_epochs": 2, "max_steps": 0}),
    ],
)
def test_calibration_is_a_share_of_the_usual_work(train, ratio, short):
    strategy, *_ = prepared(ROUNDS, ratio=ratio)
    strategy.federation.train = train
    (instruction,) = strategy.instruct(1).values()
    assert instruction.step == "train"
    assert instruction.settings == short
    assert instruction.seed_round == strategy._plan[0][0]


def test_where_nothing_is_left_out_the_first_round_is_that_of_retraining(tmp_path):
    """On a clean model with the same seeds, the fresh direction is the stored one."""
    toy = ToyFederation(tmp_path / "a", late={1: 3})
    final = toy.learn(3)
    retrained = toy.branch(tmp_path / "b").unlearn(Retrain(), forget(1), final)
    after = toy.branch(tmp_path / "c").unlearn(Crab(**EVERYTHING), forget(1), final)
    for name, array in retrained.items():
        np.testing.assert_allclose(after[name], array, rtol=1e-5, atol=1e-6)


def test_it_saves_work_and_leaves_a_clean_history(tmp_path):
    toy = ToyFederation(tmp_path)
    toy.federation.ledger.receive(forget(1, id="a", at_round=6))
    toy.federation.ledger.receive(forget(2, id="b", at_round=7))
    after = toy.run(Crab(window=3), rounds=7)
    assert named.is_finite(after)
    assert 0 < toy.federation.costs["unlearn"].client_rounds < 6 * 3 + 7 * 2
    history = toy.federation.history
    assert {c for t in history.rounds for c in history.participants(t)} == {0, 3}
    assert history.rounds[-1] == 9
    assert history.verify() == []


@pytest.mark.parametrize(
    "options",
    [
        {"rollback": 1.1},
        {"window": 0},
        {"keep_rounds": 0.0},
        {"keep_clients": 1.5},
        {"ratio": 0.0},
        {"step_scale": -1.0},
    ],
)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        Crab(**options)

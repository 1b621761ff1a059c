"""FedAccum: the numbers of the paper's baseline, and what replaying on the server must keep."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from strategies.local_model.fed_accum import FedAccum, rebase
from tests.support.past import forget, joined, past, random_past, vector
from unlearning import arrays as named
from unlearning.arrays import Arrays
from unlearning.errors import ConfigError, HistoryError
from unlearning.request import Request, Scope

# Three clients with 1, 2 and 1 examples; client 2 is absent from round 2, all are in round 3.
GOLDEN = [
    {0: (1, vector(4, -2)), 1: (2, vector(-1, 3)), 2: (1, vector(2, 2))},
    {0: (1, vector(1, 1)), 1: (2, vector(-2, 4))},
    {0: (1, vector(0, -3)), 1: (2, vector(5, 5)), 2: (3, vector(4, 1))},
]


def answer(rounds, request, clients=3):
    history, final = past(vector(1, 1), rounds, keep=("globals", "updates"))
    strategy = joined(FedAccum(), history, clients)
    return strategy.unlearn(request, history, final), strategy


def test_golden():
    """Without client 1, from w = (1, 1).

    round 1: clients 0 and 2, one example each: mean (3, 0)              -> (4, 1)
    round 2: client 0 alone: (1, 1)                                      -> (5, 2)
    round 3: clients 0 and 2 with 1 and 3 examples: (12, 0) / 4 = (3, 0) -> (8, 2)
    """
    after, _ = answer(GOLDEN, forget(1))
    np.testing.assert_allclose(after["w"], [8, 2], rtol=1e-15)


def test_interval_and_scale():
    """Rounds 1 and 3 alone, each step twice as long: (1, 1) + 2 (3, 0) + 2 (3, 0) = (13, 1)."""
    history, final = past(vector(1, 1), GOLDEN)
    strategy = joined(FedAccum(interval=2, interval_scale=2.0), history, 3)
    after = strategy.unlearn(forget(1), history, final)
    assert strategy.rewritten.rounds == (1, 3)
    np.testing.assert_allclose(after["w"], [13, 1], rtol=1e-15)


def test_only_rounds_after_the_first_participation_change():
    """Client 2 is new in round 2: round 1 stays, (1, 1) + (4, 0) / 2 = (3, 1), then (5, -1)."""
    rounds = [
        {0: (1, vector(3, 3)), 1: (1, vector(1, -3))},
        {0: (1, vector(2, -2)), 2: (7, vector(100, 100))},
    ]
    history, final = past(vector(1, 1), rounds)
    strategy = joined(FedAccum(), history, 3)
    after = strategy.unlearn(forget(2), history, final)
    np.testing.assert_array_equal(after["w"], [5, -1])
    assert named.digest(strategy.rewritten.arrays(2)) == named.digest(history.arrays(2))
    assert strategy.rewritten.participants(1) == {0: 1, 1: 1}


def test_rounds_of_the_forgotten_alone_are_identity_steps():
    rounds = [{0: (1, vector(1, 0))}, {1: (2, vector(9, 9))}, {0: (1, vector(0, 2))}]
    after, strategy = answer(rounds, forget(1), clients=2)
    np.testing.assert_array_equal(after["w"], [2, 3])
    assert strategy.rewritten.participants(2) == {}
    assert strategy.rewritten.rounds == (1, 2, 3)


def test_nobody_left_is_the_initial_model():
    after, _ = answer(GOLDEN, forget(0, 1, 2))
    np.testing.assert_array_equal(after["w"], [1, 1])


def test_owners_of_samples_are_left_out_of_the_past_but_stay():
    whole, _ = answer(GOLDEN, forget(1))
    after, strategy = answer(GOLDEN, Request(Scope.SAMPLE, samples={1: (0,)}))
    np.testing.assert_array_equal(after["w"], whole["w"])
    assert strategy.remaining == (0, 1, 2)
    everybody = Request(Scope.SAMPLE, samples={0: (0,), 1: (0,), 2: (0,)})
    after, _ = answer(GOLDEN, everybody)
    np.testing.assert_array_equal(after["w"], [1, 1])


@pytest.mark.parametrize("seed", range(5))
def test_one_after_the_other_equals_both_at_once(seed):
    history, final, _ = random_past(seed)
    both = joined(FedAccum(), history).unlearn(forget(1, 2), history, final)
    strategy = joined(FedAccum(), history.fork(None))
    first = strategy.unlearn(forget(1), strategy.federation.history, final)
    strategy.federation.history.adopt(strategy.rewritten)
    second = strategy.unlearn(forget(2, id="b"), strategy.federation.history, first)
    np.testing.assert_allclose(second["w"], both["w"], rtol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_what_was_rewritten_is_a_history_of_the_result(seed):
    """Each recorded model plus the weighted mean of its updates is the next one."""
    history, final, _ = random_past(seed)
    strategy = joined(FedAccum(), history)
    after = strategy.unlearn(forget(1), history, final)
    clean = strategy.rewritten
    models = [*(clean.arrays(t) for t in clean.rounds), after]
    for t, (model, following) in zip(clean.rounds, pairwise(models), strict=True):
        steps = [(p, clean.update(t, client)) for client, p in clean.weights(t).items()]
        reached = named.apply_update(model, named.weighted_sum(steps)) if steps else model
        np.testing.assert_allclose(reached["w"], following["w"], rtol=1e-12)
        assert 1 not in clean.participants(t)


def bn(weight: float, variance: float, count: int) -> Arrays:
    return {
        "w": np.array([weight], np.float32),
        "bn.running_var": np.array([variance], np.float32),
        "bn.num_batches_tracked": np.array(count),
    }


def test_rebase_keeps_the_state_that_the_client_reached():
    """A variance fell from 9 to 2; added to 1 as a difference it would be -6."""
    moved = rebase(named.delta(bn(1, 9, 3), bn(4, 2, 5)), bn(1, 9, 3), bn(0, 1, 3))
    reached = named.apply_update(bn(0, 1, 3), moved)
    assert {name: array.item() for name, array in reached.items()} == {
        "w": 3,
        "bn.running_var": 2,
        "bn.num_batches_tracked": 5,
    }
    assert {array.dtype for array in moved.values()} == {np.dtype("f4"), np.dtype("i8")}


def test_variances_are_averaged_as_state():
    """Of round 2, clients 0 and 2 reached variances 2 and 4 with 1 and 3 examples: 3.5."""
    start, middle = bn(0, 1, 0), bn(0, 9, 4)
    one = {0: (1, named.delta(start, bn(1, 1, 1))), 1: (9, named.delta(start, middle))}
    history, w2 = past(start, [one])
    rounds = [
        one,
        {
            0: (1, named.delta(w2, bn(1, 2, 7))),
            1: (2, named.delta(w2, bn(5, 50, 7))),
            2: (3, named.delta(w2, bn(1, 4, 7))),
        },
    ]
    history, final = past(start, rounds)
    after = joined(FedAccum(), history, 3).unlearn(forget(1), history, final)
    assert after["bn.running_var"].item() == pytest.approx(3.5)
    assert after["bn.num_batches_tracked"].item() == 7


def test_nothing_recorded_before_is_an_error_in_words():
    history, final = past(vector(1, 1), [])
    for t in (2, 3):
        with history.record(t, vector(0, 0)) as entry:
            entry.add(0, 1, vector(1, 1))
    with pytest.raises(HistoryError, match=r"interval 2 finds no recorded round before round 2"):
        joined(FedAccum(interval=2), history, 3).unlearn(forget(0), history, final)


@pytest.mark.parametrize("options", [{"interval": 0}, {"interval_scale": 0.0}])
def test_options_out_of_range_are_refused(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        FedAccum(**options)

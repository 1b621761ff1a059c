"""Sifu: where it goes back to, when it needs noise, and what a second request sees."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from strategies.federation import Federation
from strategies.global_model.retrain import Retrain
from strategies.global_model.sensitivity import threshold
from strategies.global_model.sifu import Sifu
from tests.support.past import forget, joined, past, vector
from tests.support.toy import ToyFederation
from unlearning import arrays as named
from unlearning.errors import ConfigError, FederationError
from unlearning.records.history import History
from unlearning.request import Guarantee

# Sensitivity to client 1 (half of the examples): |Delta - Delta without 1| = |x| / 2 where client
# 1 moves by x and client 0 not at all.
STEPS = (1.0, 2.0, 1.0, 4.0)
ROUNDS = [{0: (1, vector(0.0)), 1: (1, vector(x))} for x in STEPS]
PSI = [0.5, 1.0, 0.5, 2.0]


def sigma_for(limit, epsilon=10.0, clients=3):
    """Return the noise whose threshold is ``limit``."""
    return limit / threshold(epsilon, 1 / clients, 1.0)


def answer(limit, rounds=ROUNDS, request=None, start=1000.0, clients=3, **options):
    history, final = past(vector(start), rounds)
    options = {"budget": 0.0, "sigma": sigma_for(limit, clients=clients), **options}
    strategy = joined(Sifu(**options), history, clients)
    return strategy.unlearn(request or forget(1), history, final), strategy


@pytest.mark.parametrize(
    ("limit", "n"), [(0.4, 0), (0.51, 1), (1.49, 1), (1.51, 2), (2.01, 3), (3.9, 3), (4.1, 4)]
)
def test_it_goes_back_to_the_latest_model_within_the_threshold(limit, n):
    """Psi(n) = 0, .5, 1.5, 2, 4; w^n = 1000 + .5, 1.5, 2, 4. The noise is short beside 1000."""
    after, strategy = answer(limit)
    centre = 1000 + sum(PSI[:n])
    assert abs(after["w"].item() - centre) < 6 * strategy.sigma
    assert strategy.rewritten.rounds == tuple(range(1, n + 1))
    if n:
        assert after["w"].item() != centre
        assert strategy.claim[0] == 10.0
        assert strategy.claim[2] == pytest.approx(sum(PSI[:n]))
    else:
        assert after["w"].item() == 1000
        assert strategy.claim is None


def test_a_late_joiner_needs_no_noise():
    rounds = [{0: (1, vector(3.0)), 2: (2, vector(0.0))}, *ROUNDS]
    after, strategy = answer(0.4, rounds)
    assert after["w"].item() == 1001
    assert strategy.claim is None
    assert strategy.rewritten.rounds == (1,)


def test_a_round_of_the_forgotten_alone_is_never_kept():
    rounds = [{0: (1, vector(0.0)), 1: (1, vector(0.1))}, {1: (1, vector(1e-9))}]
    _, strategy = answer(100.0, rounds)
    assert strategy.rewritten.rounds == (1,)


def test_with_contraction_the_latest_model_counts_not_the_first_violation():
    """With rho = .1: Psi = .5, 1.05, .605, 2.06; the limit .7 is passed at n = 2, not at n = 3."""
    _, strategy = answer(0.7, contraction=0.1)
    assert strategy.rewritten.rounds == (1, 2, 3)
    assert strategy.claim[2] == pytest.approx(0.605)
    _, strategy = answer(0.7)
    assert strategy.rewritten.rounds == (1,)


@pytest.mark.parametrize(("rule", "n"), [("max", 2), ("safe", 0), ("set", 0), ("auto", 0)])
def test_the_rule_for_groups_decides_how_far_back(rule, n):
    """Each round is the counter-example: alone 9/11 each, together 9. The limit is 1.7.

    The rounds leave the model where it was, so learning is made to have gone on a little since.
    """
    round_ = {0: (45, vector(1.0)), 1: (45, vector(1.0)), 2: (10, vector(-9.0))}
    history, _ = past(vector(1000.0), [round_, round_])
    sigma = sigma_for(1.7, clients=3)
    strategy = joined(Sifu(budget=0.0, sigma=sigma, group_rule=rule), history, 3)
    strategy.unlearn(forget(0, 1), history, vector(1001.0))
    assert strategy.rewritten.rounds == tuple(range(1, n + 1))


def test_what_the_forgotten_shaped_is_erased_up_to_the_restart():
    after, strategy = answer(1.51)
    clean = strategy.rewritten
    assert clean.stored_globals == (1,)
    assert all(1 not in clean.participants(t) for t in clean.rounds)
    strategy.federation.history.adopt(clean)
    with strategy.federation.history.record(5, after) as entry:
        entry.add(0, 1, vector(1.0))
    assert strategy.federation.history.stored_globals == (1, 5)


# A second request -----------------------------------------------------------------------------


def two_requests(limit, *, then=None):
    """Return what client 2's request goes back to; a new object with limit ``then`` may serve it.

    Clients 1 and 2 have a third of the examples each and move by 3 and 0 in rounds 1 and 2:
    |Delta - Delta without c| = 1/2 |Delta_c - Delta|, that is 1 for client 1 and .5 for client 2.
    After client 1 left, round 3 is shared by 0 and 2 alone, at half each: 1.5 for client 2.
    """
    there = {0: (1, vector(0.0)), 1: (1, vector(3.0)), 2: (1, vector(0.0))}
    history, final = past(vector(1000.0), [there, there])
    options = {"budget": 0.0, "sigma": sigma_for(limit)}
    strategy = joined(Sifu(**options), history, 3)
    first = strategy.unlearn(forget(1), history, final)
    assert strategy.rewritten.rounds == (1, 2)  # Psi = 2 is within the limit
    history.adopt(strategy.rewritten)
    with history.record(3, first) as entry:
        entry.add(0, 1, vector(0.0))
        entry.add(2, 1, vector(3.0))
    final = named.apply_update(first, vector(1.5))
    if then is not None:
        strategy = Sifu(budget=0.0, sigma=sigma_for(then))
    strategy = joined(strategy, history, 3)
    strategy.federation.completed = 3
    return strategy.unlearn(forget(2, id="b"), history, final), first, strategy


def test_sensitivity_is_counted_from_the_last_noisy_restart():
    """1 before the restart and 1.5 since it: each is within 2, so the current model may stay."""
    after, first, strategy = two_requests(2.01)
    assert strategy.claim[2] == pytest.approx(1.5)
    assert strategy.rewritten.rounds == (1, 2, 3)
    assert abs(after["w"].item() - first["w"].item() - 1.5) < 6 * strategy.sigma


def test_an_object_that_does_not_know_the_restart_is_careful():
    """Counted from round 1 it is 2.5; the model after round 2, at sensitivity 1, is still there."""
    after, first, strategy = two_requests(2.01, then=2.01)
    assert strategy.claim[2] == pytest.approx(1.0)
    assert strategy.rewritten.rounds == (1, 2)
    assert abs(after["w"].item() - first["w"].item()) < 6 * strategy.sigma


def test_an_erased_model_is_not_gone_back_to():
    """The model after round 1, at sensitivity .5, was erased with client 1: it is the initial."""
    after, _, strategy = two_requests(2.01, then=0.6)
    assert strategy.claim is None
    np.testing.assert_array_equal(after["w"], [1000.0])


def test_a_branch_that_is_too_sensitive_at_its_end_is_left():
    """Rounds 1 and 2 give client 1 .5 each and client 2 1.5 each; the limit is 1.4.

    Client 1 goes with noise on the current model, and round 3 is client 0's alone. For client 2
    the first branch ends at 3: only the initial model is left, whatever happened in the second.
    """
    there = {0: (1, vector(0.0)), 1: (1, vector(0.0)), 2: (2, vector(3.0))}
    history, final = past(vector(1000.0), [there, there])
    strategy = joined(Sifu(budget=0.0, sigma=sigma_for(1.4)), history, 3)
    first = strategy.unlearn(forget(1), history, final)
    assert strategy.claim[2] == pytest.approx(1.0)
    history.adopt(strategy.rewritten)
    with history.record(3, first) as entry:
        entry.add(0, 1, vector(0.0))
    strategy.federation.completed = 3
    second = strategy.unlearn(forget(2, id="b"), history, first)
    np.testing.assert_array_equal(second["w"], [1000.0])
    assert strategy.rewritten.rounds == ()
    assert strategy.claim is None


# Against a federation that learns ---------------------------------------------------------------


@pytest.mark.parametrize("late", [{}, {1: 3}])
def test_without_noise_it_is_retraining(tmp_path, late):
    toy = ToyFederation(tmp_path / "a", late=late)
    final = toy.learn(4)
    retrained = toy.branch(tmp_path / "b").unlearn(Retrain(), forget(1), final)
    strategy = Sifu(sigma=0.0, budget=1.0)
    again = toy.branch(tmp_path / "c").unlearn(strategy, forget(1), final)
    assert named.digest(again) == named.digest(retrained)
    assert strategy.rewritten.rounds == (1, 2, 3, 4)


@pytest.mark.parametrize(("budget", "rounds"), [(0.0, 0), (0.5, 2), (0.6, 3), (1.0, 4)])
def test_the_budget_limits_what_is_learned_again(tmp_path, budget, rounds):
    toy = ToyFederation(tmp_path)
    final = toy.learn(4)
    toy.asked.clear()
    toy.unlearn(Sifu(sigma=0.0, budget=budget), forget(1), final)
    assert len(toy.asked) == 3 * rounds
    assert toy.federation.costs["unlearn"].client_rounds == 3 * rounds


def test_two_requests_in_a_running_federation(tmp_path):
    toy = ToyFederation(tmp_path)
    toy.federation.ledger.receive(forget(1, id="a", at_round=3))
    toy.federation.ledger.receive(forget(2, id="b", at_round=5))
    strategy = Sifu(sigma=0.05, epsilon=40.0)
    after = toy.run(strategy, rounds=5)
    assert named.is_finite(after)
    assert strategy.claim is not None
    assert all(toy.federation.ledger.state(id) == "fulfilled" for id in "ab")
    history = toy.federation.history
    assert {c for t in history.rounds for c in history.participants(t)} == {0, 3}
    assert history.verify() == []


# The claim --------------------------------------------------------------------------------------


def test_the_claim_is_logged_with_the_delta_that_is_reached(caplog):
    caplog.set_level(logging.INFO, logger="fedunlearn")
    answer(0.51)
    assert "heuristic epsilon 10 with delta" in caplog.text
    _, strategy = answer(
        0.51, epsilon=1.0, convex=True, delta=0.01, sigma=0.5 / threshold(1, 0.01, 1)
    )
    assert "certified epsilon 1 with delta" in caplog.text
    assert strategy.claim[1] < 0.01


def test_only_a_convex_loss_is_certified():
    assert Sifu().guarantee is Guarantee.APPROXIMATE
    assert Sifu(convex=True, epsilon=1.0).guarantee is Guarantee.CERTIFIED
    assert Sifu.guarantee is Guarantee.APPROXIMATE
    strategy = Sifu(convex=True, epsilon=1.0)
    strategy.join(Federation())
    assert strategy.guarantee is Guarantee.CERTIFIED
    strategy.join(Federation(noise_key=b"given"))
    assert strategy.guarantee is Guarantee.APPROXIMATE
    with pytest.raises(ConfigError, match=r"'epsilon' is 1\.5: .*proven up to 1"):
        Sifu(convex=True, epsilon=1.5)


def test_the_rule_set_has_updates_recorded():
    assert "updates" in Sifu(group_rule="set").needs
    assert "updates" not in Sifu().needs
    assert "updates" not in Sifu.needs


def test_noise_that_would_drown_the_model_is_refused():
    with pytest.raises(FederationError, match="allow_drowning"):
        answer(0.0, start=0.1, sigma=5.0)
    after, _ = answer(0.0, start=0.1, sigma=5.0, allow_drowning=True)
    assert named.is_finite(after)


def test_every_request_draws_noise_of_its_own():
    first, _ = answer(4.1)
    again, _ = answer(4.1)
    assert first["w"] != again["w"]  # nobody else can draw it
    history, final = past(vector(1000.0), ROUNDS)
    strategy = joined(Sifu(budget=0.0, sigma=sigma_for(4.1)), history, 3)
    strategy.unlearn(forget(0), history, final)
    second = strategy.unlearn(forget(1, id="b"), history, final)
    assert abs(second["w"] - first["w"]) > 1e-6


def test_buffers_stay_without_noise():
    start = {"w": np.full(3, 9.0), "running_var": np.ones(3), "n": np.array(2)}
    step = {"w": np.ones(3), "running_var": np.ones(3), "n": np.array(4)}
    history = History(keep=("globals", "sensitivities"))
    history.start(start)
    with history.record(1, start) as entry:
        entry.add(0, 1, step)
        entry.add(1, 1, {**step, "w": -step["w"]})
    final = {**named.apply_update(start, step), "w": start["w"]}
    strategy = joined(Sifu(epsilon=100.0), history, 2)
    after = strategy.unlearn(forget(1), history, final)
    assert strategy.claim is not None
    assert not np.array_equal(after["w"], final["w"])
    np.testing.assert_array_equal(after["running_var"], final["running_var"])
    assert after["n"] == 4


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"epsilon": 0.0}, "epsilon"),
        ({"delta": 1.0}, "delta"),
        ({"sigma": -1.0}, "sigma"),
        ({"contraction": 0.0}, "contraction"),
        ({"group_rule": "sum"}, "auto, max, set, safe"),
        ({"budget": 1.5}, "budget"),
    ],
)
def test_options_out_of_range_are_refused(options, word):
    with pytest.raises(ConfigError, match=word):
        Sifu(**options)
